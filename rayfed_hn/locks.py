"""Locks that the kernel gives back when their process ends, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rayfed_hn.errors import ConfigError

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # where a submitted job is told what it is
LOOK_SECONDS = 0.1  # between two tries

_held: dict[Path, int] = {}  # open files, until this process ends


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    process: str
    host: str
    since: str
    job: str = ""

    def __str__(self) -> str:
        who = f"the job {self.job}" if self.job else f"process {self.process} on {self.host}"
        return f"{who} since {self.since}"

    @property
    def ended_by(self) -> str:
        """What ends it; numbers of processes mean nothing on another node."""
        if self.job:
            return f"ray job stop {self.job}"
        return f"kill {self.process} on {self.host}"


def hold(path: Path, wait_seconds: float = 0.0) -> Holder | None:
    """Take a lock for as long as this process lives; to take it again changes nothing.

    Args:
        path: The lock's file; its folder need not exist.
        wait_seconds: How long to wait for whoever holds it.

    Returns:
        Whoever holds it still; None if it is ours.

    Raises:
        ConfigError: The folder takes no locks.
    """
    path = path.resolve()
    if _is_ours(path):
        return None
    file = _take(path, fcntl.LOCK_EX, wait_seconds)
    if isinstance(file, Holder):
        return file
    _held[path] = file
    return None


@contextmanager
def lent(path: Path, *, shared: bool = False, wait_seconds: float = 0.0) -> Iterator[Holder | None]:
    """Take a lock for a while; unlike ``hold``, it is taken from others of this process too.

    Args:
        path: The lock's file; its folder need not exist.
        shared: Others may have it at the same time, who share it too.
        wait_seconds: How long to wait for whoever holds it.

    Yields:
        Whoever holds it still; None if it is ours.

    Raises:
        ConfigError: The folder takes no locks.
    """
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    file = _take(path, mode, wait_seconds)
    try:
        yield file if isinstance(file, Holder) else None
    finally:
        if not isinstance(file, Holder):
            os.close(file)


def _take(path: Path, mode: int, wait_seconds: float) -> int | Holder:
    """The open file of a lock that is ours now, or whoever holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _no_lock(path, error) from error
    end = time.monotonic() + wait_seconds
    try:
        while not _taken(file, mode):
            if time.monotonic() >= end:
                holder = _holder(file)
                os.close(file)
                return holder
            time.sleep(LOOK_SECONDS)
        if mode == fcntl.LOCK_EX:
            _sign(file)
    except OSError as error:
        os.close(file)
        raise _no_lock(path, error) from error
    return file


def _no_lock(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"run.dir: {path} cannot be locked ({os.strerror(error.errno or 0)}), so that two runs at "
        "once could not be told apart; make the folder writable, or give another run.dir"
    )


def _is_ours(path: Path) -> bool:
    """Whether this process holds it, and the file is still the one that it holds."""
    file = _held.get(path)
    if file is None:
        return False
    if path.exists() and path.stat().st_ino == os.fstat(file).st_ino:
        return True
    os.close(_held.pop(path))
    return False


def _taken(file: int, mode: int) -> bool:
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(file: int) -> None:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    about = {"process": os.getpid(), "host": socket.gethostname(), "since": now, "job": _job()}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(about).encode(), 0)


def _job() -> str:
    """The submission id of the job that this process is; empty if it is none."""
    try:
        return str(json.loads(os.environ.get(JOB, "{}"))["metadata"]["job_submission_id"])
    except (ValueError, KeyError, TypeError):
        return ""


def _holder(file: int) -> Holder:
    try:
        about = json.loads(os.pread(file, 4096, 0))
        names = ("process", "host", "since", "job")
        return Holder(*(str(about[name]) for name in names))
    except (ValueError, KeyError, TypeError):  # it has just been taken
        return Holder("(unknown)", "(unknown)", "just now")
