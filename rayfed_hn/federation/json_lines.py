"""A file of JSON lines that grows with every version of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rayfed_hn.files import write_text
from rayfed_hn.saving import saving


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
        with saving(self._path), self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
            file.flush()
            os.fsync(file.fileno())

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
        """All records but a torn last line."""
        if not self._path.exists():
            return []
        lines = self._path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]  # a torn last line was never committed
