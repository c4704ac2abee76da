"""Ray's own doors: who can reach a cluster, and who can read what it leaves on disk.

A cluster that we start has a token of its own and keeps its files where nobody else can look. One
that we join must not answer strangers, unless the user accepts that. Inside a cluster there are no
doors: whoever is in may run anything.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.exceptions import AuthenticationError

from rayfed_hn.errors import ConfigError

MAX_SOCKET_PATH = 107  # bytes, of a Unix socket on Linux
# session_<date>_<time>_<microseconds>_<pid>/sockets/<the longest name of a socket>
RAY_NEEDS = len("/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.12345")
TOKEN_SOURCES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
TLS_FILES = ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
PROBE_SECONDS = 30.0
STRANGERS = ("UNAUTHENTICATED", "PERMISSION_DENIED")  # what they are answered
# In a process of its own: gRPC's threads do not survive the forks by which Ray starts others.
_PROBE = """
import sys, grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    try:
        channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=10)
        print("OK")
    except grpc.RpcError as error:
        print(error.code().name)
"""


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for the files of a cluster of ours, which only this user can enter.

    Ray makes its own folders readable by everybody, so they need one around them. It is deleted in
    the end, logs and spilt objects with it, unless an error goes through, which logs may explain.
    """
    outer = Path(tempfile.mkdtemp(prefix="rayfed-hn-", dir=_short_base()))
    failed = False
    try:
        yield outer / "r"
    except Exception:  # an interruption is none, and explains itself
        failed = True
        raise
    finally:
        if not failed:
            shutil.rmtree(outer, ignore_errors=True)


def _short_base() -> str:
    """Where temporary files belong, or /tmp if sockets would not find room there."""
    base = tempfile.gettempdir()
    room = MAX_SOCKET_PATH - RAY_NEEDS - len("/rayfed-hn-abcdefgh")
    return base if len(os.fsencode(base)) <= room else "/tmp"


def make_token() -> None:
    """Give a cluster of ours a token that no other cluster has, unless the user has set one.

    Ray would take the token in the user's home, or write one there that others can read.
    """
    if not any(os.environ.get(name) for name in TOKEN_SOURCES):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def check_own() -> None:
    """Refuse a cluster of ours that came up without a token although nobody asked for that.

    Raises:
        ConfigError: This version of Ray has another default.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode == "disabled":
        _warn(
            "RAY_AUTH_MODE=disabled: everybody who can reach this machine's ports can run code as "
            "you while this lasts"
        )
    elif mode != "token":
        raise ConfigError(
            "Ray has started without a token; set RAY_AUTH_MODE=token, or RAY_AUTH_MODE=disabled "
            "to accept that everybody who can reach this machine's ports can run code as you"
        )


def check_tls() -> None:
    """Refuse TLS without its files, which Ray would only report as a cluster that cannot start.

    Raises:
        ConfigError: Names the variable and what is wrong with its file.
    """
    if os.environ.get("RAY_USE_TLS", "").lower() not in ("1", "true"):
        return
    for name in TLS_FILES:
        value = os.environ.get(name)
        if not value:
            raise ConfigError(
                f"{name}: missing; RAY_USE_TLS=1 needs {', '.join(TLS_FILES)}, each a PEM file"
            )
        if not os.access(value, os.R_OK) or not Path(value).is_file():
            raise ConfigError(f"{name}: {value} is not a file that can be read")
    key = Path(os.environ["RAY_TLS_SERVER_KEY"])
    if key.stat().st_mode & 0o077:
        _warn(f"RAY_TLS_SERVER_KEY: others may read or change {key}; give it mode 0600")


def check_token() -> None:
    """Refuse a token's file that is not there, over which Ray would only stumble.

    Raises:
        ConfigError: Names the file.
    """
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if os.environ.get("RAY_AUTH_TOKEN") or not path:
        return
    try:
        empty = not Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        empty = True
    if empty:
        raise ConfigError(
            f"RAY_AUTH_TOKEN_PATH: {path} holds no token that can be read; is it that of a cluster "
            "which has ended? 'unset RAY_AUTH_TOKEN_PATH RAY_AUTH_MODE RAY_ADDRESS', or give the "
            "file of the cluster's token"
        )


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn Ray's failures to join a cluster into what the user can do.

    Raises:
        ConfigError: No cluster, another version, or the wrong token.
    """
    try:
        yield
    except AuthenticationError:
        raise ConfigError(_refused(address)) from None
    except (ConnectionError, ValueError) as error:
        if _as_stranger(address) in STRANGERS:  # it is there; Ray 2.60 does not say so
            raise ConfigError(_refused(address)) from None
        raise ConfigError(f"RAY_ADDRESS={address}: no cluster answers there ({error})") from None
    except RuntimeError as error:
        if "ersion" not in str(error):
            raise ConfigError(f"RAY_ADDRESS={address}: cannot be joined ({error})") from None
        raise ConfigError(
            f"RAY_ADDRESS={address}: the cluster has another version of Ray or Python than this "
            f"program (Ray {ray.__version__}, Python {sys.version.split()[0]}); install the same "
            "on all machines"
        ) from None


def _refused(address: str) -> str:
    return (
        f"RAY_ADDRESS={address}: the cluster refuses our token, or we have none; set "
        "RAY_AUTH_TOKEN_PATH to the file of the cluster's token, and RAY_AUTH_MODE=token"
    )


def check_joined(gcs_address: str, *, accepted: bool) -> None:
    """Refuse a cluster that answers strangers, or warn where only this machine can reach it.

    Args:
        gcs_address: ``host:port`` of its head.
        accepted: ``resources.insecure_cluster``.

    Raises:
        ConfigError: It does, and it can be reached over a network.
    """
    answer = _as_stranger(gcs_address)
    if answer in STRANGERS or _tls_guards(answer):
        return
    what = f"the Ray cluster at {gcs_address} answers without a token (RAY_AUTH_MODE=disabled)"
    if answer != "OK":
        what = f"whether the Ray cluster at {gcs_address} asks for a token is not known ({answer})"
    if not accepted and not _is_loopback(gcs_address):
        raise ConfigError(
            f"RAY_ADDRESS: {what}; without one, who can reach it can read what sites hold. "
            "Start it with RAY_AUTH_MODE=token ('ray get-auth-token --generate' makes one), or "
            "accept that with resources.insecure_cluster=true"
        )
    _warn(f"{what}; without one, everybody who can reach it can run code in it")


def _as_stranger(gcs_address: str) -> str:
    """What a call without a token is answered: the name of a gRPC status."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE, gcs_address],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "no answer"
    return done.stdout.strip() or "no gRPC here"


def _tls_guards(answer: str) -> bool:
    return answer == "UNAVAILABLE" and os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true")


def _is_loopback(gcs_address: str) -> bool:
    host = gcs_address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _warn(text: str) -> None:
    print(f"rayfed-hn: warning: {text}", file=sys.stderr)
