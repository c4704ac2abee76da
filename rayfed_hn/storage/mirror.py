"""A folder on this disk and the same in object storage, kept alike.

What counts is moved last: a commit's files are there before the pointer names it, so that whoever
takes the remote folder up, at any moment, finds a run that can go on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from rayfed_hn.errors import StorageError
from rayfed_hn.files import write_atomically, write_text
from rayfed_hn.saving import saving
from rayfed_hn.storage.remote import Remote

POINTER = "checkpoints/LATEST"  # names the newest commit that counts
INDEX = ".mirror.json"  # in the copy: what was alike when somebody looked last

Stamp = tuple[int, int]  # size, and nanoseconds since 1970


class Mirror:
    """Moves what has changed, one way or the other.

    Args:
        local: A folder on this disk; it need not exist.
        remote: Its counterpart.
        mine: Which files this process sends, by their path below the folder; others may send the
            rest.
    """

    def __init__(
        self, local: Path, remote: Remote, mine: Callable[[str], bool] = lambda name: True
    ) -> None:
        self._local, self._remote, self._mine = local, remote, mine
        self._alike: dict[str, tuple[Stamp, Stamp]] = {}  # of files that are, here and there

    def pull(self, wanted: Callable[[str], bool] = lambda name: True) -> int:
        """Bring what is missing here, or has changed there; returns how many files that were.

        What has changed here and not there stays, to be sent. What has changed on both sides is
        taken from there.

        Raises:
            StorageError: It cannot be read there, or written here.
        """
        moved = 0
        self._read_index()
        for name, there in sorted(self._remote.files().items(), key=lambda item: _rank(item[0])):
            path = self._inside(name)
            if not wanted(name) or _stays(name) or self._is_here(name, there):
                continue
            try:
                write_atomically(path, lambda made, name=name: self._remote.download(name, made))
            except OSError as error:
                raise StorageError(f"{path} cannot be written ({error.strerror})") from error
            self._alike[name], moved = (_stamp(path), there), moved + 1
        if moved:
            self._write_index()
        return moved

    def push(self) -> int:
        """Send what is new or has changed here; returns how many files that were.

        Files that were sent and are gone here are taken away there.

        Raises:
            StorageError: It cannot be written there; the next push tries again.
        """
        self._read_index()
        pointer, found = self._read_pointer(), self._found()
        changed = self._unlike(found)
        gone = [name for name in self._alike if name not in found and self._mine(name)]
        if not changed and not gone:
            return 0
        sent = [name for name in sorted(changed, key=_rank) if name != POINTER and self._send(name)]
        if pointer is not None and POINTER in changed:
            self._remote.write(POINTER, pointer)
            sent.append(POINTER)
        for name in gone:
            self._remote.delete(name)
            del self._alike[name]
        there = self._remote.files()
        self._alike |= {name: (found[name], there[name]) for name in sent if name in there}
        self._write_index()
        return len(sent)

    def _send(self, name: str) -> bool:
        try:
            self._remote.upload(self._local / name, name)
        except (StorageError, FileNotFoundError):
            if (self._local / name).exists():
                raise
            return False  # a commit that was dropped in the meantime
        return True

    def _is_here(self, name: str, there: Stamp) -> bool:
        try:
            here = _stamp(self._local / name)
        except OSError:
            return False
        if name in self._alike:
            return self._alike[name][1] == there
        return here[0] == there[0] and here[1] >= there[1]  # sent, but that was not noted any more

    def _read_index(self) -> None:
        """Read anew each time: another process, or thread, may have moved what is its own."""
        try:
            index = json.loads((self._local / INDEX).read_text(encoding="utf-8"))
            found = index["files"] if index["of"] == self._remote.uri else {}
            self._alike = {
                name: (_stamp_of(here), _stamp_of(there)) for name, (here, there) in found.items()
            }
        except (OSError, ValueError, AttributeError, TypeError, KeyError):
            self._alike = {}  # then more is moved than has to be

    def _write_index(self) -> None:
        with saving(self._local / INDEX):
            write_text(
                self._local / INDEX, json.dumps({"of": self._remote.uri, "files": self._alike})
            )

    def changed(self) -> bool:
        """Whether there is anything to send."""
        self._read_index()
        return bool(self._unlike(self._found()))

    def _unlike(self, found: Mapping[str, Stamp]) -> list[str]:
        known = {name: here for name, (here, _) in self._alike.items()}
        return [name for name, stamp in found.items() if known.get(name) != stamp]

    def _read_pointer(self) -> bytes | None:
        """Read before anything is listed: what it names is there then, and what follows is too."""
        try:
            return (self._local / POINTER).read_bytes()
        except OSError:
            return None

    def _found(self) -> dict[str, Stamp]:
        found = {}
        for folder, _, files in os.walk(self._local):
            for file in files:
                path = Path(folder) / file
                name = path.relative_to(self._local).as_posix()
                if not _stays(name) and self._mine(name):
                    try:
                        found[name] = _stamp(path)
                    except OSError:
                        continue  # it has just gone
        return found

    def _inside(self, name: str) -> Path:
        path = (self._local / name).resolve()
        if not path.is_relative_to(self._local.resolve()):
            raise StorageError(f"{self._remote.uri}: has a file outside of itself, {name!r}")
        return path


def _rank(name: str) -> tuple[bool, bool, str]:
    """The pointer last, and before it what describes a commit."""
    return name == POINTER, name.startswith("checkpoints/"), name


def _stays(name: str) -> bool:
    """Whether a file means something to this machine alone: locks, and what is being written."""
    parts = name.split("/")
    return parts[-1] == "lock" or any(part.startswith(".") for part in parts)


def _stamp(path: Path) -> Stamp:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _stamp_of(pair: list[int]) -> Stamp:
    size, time = pair
    return size, time
