"""Ends, hangs or slows a process of a run when it reaches a named point."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from rayfed_hn.points import EVENT

HANG_SECONDS = 10_000.0


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    time.sleep(HANG_SECONDS)


def arm(point: str, nth: int, marker: Path, act: Any = kill, times: int = 1) -> None:
    """Act when this process comes to a point for the nth time.

    Args:
        point: Which.
        nth: From 1; in a process that was started anew it counts anew.
        marker: Folder that remembers what was done.
        act: What to do.
        times: Processes that it is done to, all in all.
    """
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event != EVENT or arguments[0] != point:
            return
        seen += 1
        if seen == nth and _claim(marker, times):
            act()

    sys.addaudithook(hook)


def _claim(marker: Path, times: int) -> bool:
    marker.mkdir(parents=True, exist_ok=True)
    for number in range(times):
        try:
            os.close(os.open(marker / str(number), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        return True
    return False


def armed(base: type, *how: Any) -> type:
    """A class of actors that ``arm(*how)`` themselves before anything else."""

    class Armed(base):
        def __init__(self, *arguments: Any) -> None:
            arm(*how)
            super().__init__(*arguments)

    return Armed
