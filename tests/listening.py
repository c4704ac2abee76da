"""Which doors of a cluster answer strangers: every port that its processes listen on is tried."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from processes import marked

# A call of each service that Ray's processes offer. In a process of its own: gRPC's threads do not
# survive forks.
_CALLS = (
    *("NodeInfoGcsService/CheckAlive", "NodeManagerService/GetNodeStats"),
    *("ObjectManagerService/Pull", "ReporterService/GetTraceback", "LogService/ListLogs"),
    *("RayletDriver/ClusterInfo", "CoreWorkerService/GetCoreWorkerStats"),
)
_PROBE = """
import sys, grpc
for door in sys.argv[1].split():
    with grpc.insecure_channel(door) as channel:
        for call in sys.argv[2].split():
            try:
                channel.unary_unary("/ray.rpc." + call)(b"", timeout=5)
                print(door, "OK", call)
            except grpc.RpcError as error:
                print(door, error.code().name, call)
"""
_NOT_THIS = ("UNIMPLEMENTED", "UNAVAILABLE")  # another service, or none of gRPC


@dataclass
class Doors:
    """What came of it.

    Attributes:
        asked: Doors that asked for a token.
        answered: Doors that can be reached from elsewhere and did something without.
        silent: Doors that speak nothing that we know.
    """

    asked: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


def open_doors(mark: str) -> Doors:
    """Try all doors of the processes that carry a mark."""
    ports = _listening(set(marked(mark)))
    told = subprocess.run(
        [sys.executable, "-c", _PROBE, " ".join(ports), " ".join(_CALLS)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = Doors()
    for door, public in ports.items():
        by_rpc = {line.split()[1] for line in told.splitlines() if line.startswith(door + " ")}
        by_rpc -= set(_NOT_THIS)
        by_http = _http(door)
        if public and ("OK" in by_rpc or by_http == 200):
            found.answered.append(door)
        elif by_rpc == {"UNAUTHENTICATED"} or by_http == 401:
            found.asked.append(door)
        else:
            found.silent.append(door)
    return found


def _listening(pids: set[int]) -> dict[str, bool]:
    """Doors of some processes, and whether more than this machine can reach them."""
    owners = {inode: pid for pid in pids for inode in _sockets(pid)}
    found: dict[str, bool] = {}
    for name, width in (("tcp", 8), ("tcp6", 32)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] != "0A" or fields[9] not in owners:
                continue
            address, _, port = fields[1].partition(":")
            local = address.endswith("7F") if width == 8 else address[24:].endswith("7F")
            host = ".".join(str(b) for b in reversed(bytes.fromhex(address[-8:])))
            host = "127.0.0.1" if host == "0.0.0.0" else host
            found[f"{host}:{int(port, 16)}"] = not local
    return found


def _sockets(pid: int) -> list[str]:
    try:
        links = [link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []
    return [name[8:-1] for name in links if name.startswith("socket:[")]


def _http(door: str) -> int | None:
    try:
        with urllib.request.urlopen(f"http://{door}/", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (OSError, ValueError):
        return None
    except Exception:  # not HTTP at all
        return None
