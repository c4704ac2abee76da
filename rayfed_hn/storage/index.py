"""What was alike when somebody looked last, kept in a copy by all processes that move its files.

What is new is appended to a journal, a line a file, and folded into the index now and then: a run
of ten thousand sites has as many files, and nobody wants to write all of their names for each.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rayfed_hn.files import write_text
from rayfed_hn.saving import saving

INDEX = ".mirror.json"
FOLD_BYTES = 2**18  # of journal, below which it is left as it is

Stamp = tuple[int, int]  # size, and nanoseconds since 1970
# Of a file here and there; without the latter, what is here was about to be sent.
Pair = tuple[Stamp, Stamp | None]


class Index:
    """Files of a copy that are alike here and there, or are on their way there.

    Args:
        folder: The copy.
        uri: What it is a copy of; what is known of another address does not count.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self._uri, self._path = uri, folder / INDEX
        name = hashlib.sha256(uri.encode()).hexdigest()[:8]
        self._journal = folder / f".mirror.{name}.jsonl"

    def read(self) -> dict[str, Pair]:
        """What is known, by the path below the copy; less than was, if it cannot be read.

        Then more is moved than has to be.
        """
        if not self._journal.exists():  # nor is it made, or a folder for it
            return self._folded()
        with self._turn() as journal:
            return self._known(journal)

    def note(self, news: Mapping[str, Pair | None], *, lasting: bool = False) -> None:
        """Take down what has become of some files.

        Args:
            news: By the path below the copy; None: it is neither here nor there any more.
            lasting: Return when that is on the disk.

        Raises:
            StorageError: It cannot be written.
        """
        if not news:
            return
        lines = "".join(json.dumps([name, pair]) + "\n" for name, pair in news.items())
        with self._turn() as journal, saving(self._journal):
            os.write(journal, lines.encode())
            if lasting:
                os.fsync(journal)
            size = os.fstat(journal).st_size
            if size > FOLD_BYTES and size > _size(self._path):
                known = self._known(journal)
                write_text(self._path, json.dumps({"of": self._uri, "files": known}))
                os.ftruncate(journal, 0)

    @contextmanager
    def _turn(self) -> Iterator[int]:
        """The journal, while no other process reads or writes it."""
        with saving(self._journal):
            self._journal.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            journal = os.open(self._journal, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            with saving(self._journal):
                fcntl.flock(journal, fcntl.LOCK_EX)
            yield journal
        finally:
            os.close(journal)

    def _known(self, journal: int) -> dict[str, Pair]:
        known = self._folded()
        for line in os.pread(journal, os.fstat(journal).st_size, 0).splitlines():
            try:
                name, pair = json.loads(line)
                if pair is None:
                    known.pop(name, None)
                else:
                    known[name] = _pair_of(pair)
            except (ValueError, TypeError):
                continue  # it was cut
        return known

    def _folded(self) -> dict[str, Pair]:
        try:
            index = json.loads(self._path.read_text(encoding="utf-8"))
            found = index["files"] if index["of"] == self._uri else {}
            return {name: _pair_of(pair) for name, pair in found.items()}
        except (OSError, ValueError, AttributeError, TypeError, KeyError):
            return {}


def _pair_of(pair: list[list[int] | None]) -> Pair:
    (size, time), there = pair  # type: ignore[misc]
    if there is None:
        return (size, time), None
    return (size, time), (there[0], there[1])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
