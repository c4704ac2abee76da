"""A file of JSON lines that grows with every version of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from rayfed_hn.errors import DataError
from rayfed_hn.files import sync, write_text
from rayfed_hn.saving import saving

_BLOCK = 2**16


class JsonLines:
    """Records of what has been committed, one a line.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add lines, which are on disk before anything that vouches for them is.

        Raises:
            DataError: They cannot be written.
        """
        lines = "".join(json.dumps(record) + "\n" for record in records)
        with saving(self._path):
            new = not self._path.exists()
            with self._path.open("a+b") as file:
                file.truncate(_whole(file))
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync(self._path.parent)

    def keep_until(self, version: int) -> None:
        """Drop records of versions that were never committed; they will be made again."""
        self.keep(lambda record: record["made"] <= version)

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> list[dict[str, Any]]:
        """Drop records that are not wanted, and a torn last line; returns what is left."""
        with saving(self._path):
            kept = [record for record in self.read() if wanted(record)]
            write_text(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        return kept

    def read(self) -> list[dict[str, Any]]:
        """All records but a torn last line.

        Raises:
            DataError: A line was changed.
        """
        if not self._path.exists():
            return []
        lines = self._path.read_bytes().split(b"\n")
        found = []
        for number, line in enumerate(lines[:-1], 1):  # a torn last line was never committed
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{self._path} is damaged at line {number} ({type(error).__name__}); restore "
                    "the file from a backup, or start again with another run.dir"
                ) from error
        return found


def _whole(file: BinaryIO) -> int:
    """Length without a torn last line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
