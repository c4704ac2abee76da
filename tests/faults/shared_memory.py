"""What lies in Ray's shared memory while a run is at work, searched for marks."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import psutil

CHUNK = 2**24


class Searched:
    """Searches the object stores below this process until it is left.

    Attributes:
        found: Marks that were seen in them.
        most: Bytes that were written in them, at most at one time.
    """

    def __init__(self, marks: Mapping[str, bytes]) -> None:
        self._marks, self._stop = marks, threading.Event()
        self.found: set[str] = set()
        self.most = 0
        self._thread = threading.Thread(target=self._search, daemon=True)

    def __enter__(self) -> Searched:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _search(self) -> None:
        while not self._stop.is_set():
            for store in _stores():
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    self._look_at(store)
            time.sleep(0.1)

    def _look_at(self, store: Path) -> None:
        handle, size = os.open(store, os.O_RDONLY), 0
        try:
            for data in _written(handle):
                size += len(data)
                self.found |= {name for name, mark in self._marks.items() if mark in data}
        finally:
            os.close(handle)
        self.most = max(self.most, size)


def _stores() -> Iterator[Path]:
    """Files that are mapped as object stores; they have no name any more."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == "raylet":
                for handle in Path(f"/proc/{process.pid}/fd").iterdir():
                    if "plasma" in os.readlink(handle) and handle.stat().st_size:
                        yield handle


def _written(handle: int) -> Iterator[bytes]:
    """What was ever written into a sparse file; the rest is zeros, and gigabytes of them."""
    end, place = os.fstat(handle).st_size, 0
    while place < end:
        try:
            place = os.lseek(handle, place, os.SEEK_DATA)
        except OSError:
            return  # nothing comes any more
        hole = os.lseek(handle, place, os.SEEK_HOLE)
        while place < hole:
            data = os.pread(handle, min(CHUNK, hole - place), place)
            if not data:
                return
            yield data
            place += len(data)
