"""Processes that are ours: told by number and start time, or by a mark in their environment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from state import Process, Refused

MARK = "RAYFED_HN_LOCAL"  # with the cluster's mark and the node's name, in every process of a node
END_SECONDS = 20.0


def identify(pid: int) -> Process | None:
    """A process as it is now; None: there is none, or only what its parent has not taken away."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else Process(pid, int(fields[19]))


def alive(process: Process | None) -> bool:
    return process is not None and identify(process.pid) == process


def kill(process: Process | None) -> None:
    """End a process at once, if it is still the one that we have started."""
    if process is not None and alive(process):
        end_now(process.pid)
        wait_until(lambda: not alive(process), END_SECONDS, f"process {process.pid} does not end")


def marked(mark: str, node: str = "") -> list[int]:
    """All processes that carry a cluster's mark, or a node's, wherever they have gone."""
    wanted = f"{MARK}={mark}-{node}".encode()
    return [
        pid
        for pid in _pids()
        if any(e == wanted or (not node and e.startswith(wanted)) for e in _environment(pid))
    ]


def kill_marked(mark: str, node: str = "") -> None:
    """End all processes that carry a mark, and those that they start meanwhile."""

    def none_left() -> bool:
        left = marked(mark, node)
        for pid in left:
            end_now(pid)
        return not left

    wait_until(none_left, END_SECONDS, "processes of the cluster do not end")


def wait_until(done: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Look again and again.

    Raises:
        Refused: It is not done in time.
    """
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise Refused(f"{otherwise} (waited {seconds:.0f} s)")
        time.sleep(0.1)


def _pids() -> list[int]:
    own = os.getpid()
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and int(p.name) != own]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return []


def end_now(pid: int) -> None:
    """End a process that may have ended meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
