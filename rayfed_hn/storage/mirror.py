"""A folder on this disk and the same in object storage, kept alike.

What counts is moved last: a commit's files are there before the pointer names it, so that whoever
takes the remote folder up, at any moment, finds a run that can go on. What is about to be sent is
noted before, so that a process that dies in between does not take its own older file for news.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path

from rayfed_hn.errors import StorageError
from rayfed_hn.files import write_atomically
from rayfed_hn.storage.index import Index, Pair, Stamp
from rayfed_hn.storage.pointed import COMMITS, POINTER, is_whole, pinned
from rayfed_hn.storage.remote import Remote

NOTE_BYTES = 2**26  # of files that were sent, after which that is noted
TRIES = 5  # to see a folder whose commits come and go

# One at a time moves the files of a copy in this process: what one has just brought is no news to
# the other. Other processes see to it by what they call their own, or by a lock.
_turns: defaultdict[Path, threading.RLock] = defaultdict(threading.RLock)


class Mirror:
    """Moves what has changed, one way or the other.

    Args:
        local: A folder on this disk; it need not exist.
        remote: Its counterpart.
        mine: Which files this process sends, by their path below the folder; others may send the
            rest.
        check: Raises if this process may send nothing any more; is told whether to make sure.
    """

    def __init__(
        self,
        local: Path,
        remote: Remote,
        mine: Callable[[str], bool] = lambda name: True,
        check: Callable[[bool], None] = lambda sure: None,
    ) -> None:
        self._local, self._remote, self._mine, self._check = local, remote, mine, check
        self._index, self._turn = Index(local, remote.uri), _turns[local]

    def pull(
        self, wanted: Callable[[str], bool] = lambda name: True, *, theirs: bool = False
    ) -> int:
        """Make files what they are there; returns how many were brought.

        What has changed here and not there stays, to be sent, and so does what was on its way
        there. What has changed on both sides is taken from there. What was alike and is gone there
        is deleted here, unless the remote folder is empty: then everything will be sent again.

        Args:
            wanted: Of which files, by their path below the folder.
            theirs: What has changed here counts for nothing.

        Raises:
            StorageError: It cannot be read there, or written here.
        """
        moved = 0
        with self._turn:
            for _ in range(TRIES):
                pointer, listed = self._remote.read(POINTER), self._remote.files()
                self._check_inside(listed)
                there = {name: stamp for name, stamp in listed.items() if not _stays(name)}
                if not there:
                    self._index.note(dict.fromkeys(self._index.read()))
                    return moved
                # A commit is dropped after another was pointed at: look again then.
                if is_whole(pointer, there) or pointer == self._remote.read(POINTER):
                    now = {name: stamp for name, stamp in there.items() if wanted(name)}
                    more, whole = self._bring(now, pointer, theirs=theirs)
                    moved += more
                    if whole:
                        self._drop(filter(wanted, self._left(there, theirs=theirs)))
                        return moved
        raise StorageError(f"{self._remote.uri}: its files come and go faster than they are read")

    def _bring(
        self, there: Mapping[str, Stamp], pointer: bytes | None, *, theirs: bool
    ) -> tuple[int, bool]:
        """Returns how many files came, and whether all were there still."""
        known, news = self._index.read(), dict[str, Pair | None]()
        try:
            for name in sorted(there, key=_rank):
                path = self._local / name
                here = self._is_here(name, there[name], known.get(name), theirs=theirs)
                if here and not (name == POINTER and self._moved_on(pointer, known.get(name))):
                    continue
                try:
                    self._fetch(name, path, pointer)
                except FileNotFoundError:
                    return len(news), False
                news[name] = _stamp(path), there[name]
            return len(news), True
        finally:
            self._index.note(news)

    def _fetch(self, name: str, path: Path, pointer: bytes | None) -> None:
        def fill(made: Path) -> None:
            if name == POINTER and pointer is not None:
                made.write_bytes(pointer)  # as it was when its commit was listed
            else:
                self._remote.download(name, made)

        try:
            write_atomically(path, fill)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise error.__cause__ from None
            raise
        except OSError as error:
            raise StorageError(f"{path} cannot be written ({error.strerror})") from error

    def _left(self, there: Mapping[str, Stamp], *, theirs: bool) -> Iterable[str]:
        """Files here that are to go as they have gone there."""
        if theirs:
            return [name for name in self._found() if name not in there]
        known = self._index.read()
        return [
            name
            for name, stamp in self._found(all_of_it=True).items()
            if name not in there and known.get(name, (None, None))[0] == stamp
            if known[name][1] is not None
        ]

    def _drop(self, names: Iterable[str]) -> None:
        dropped = list(names)
        for name in dropped:
            path = self._local / name
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # until one that is not empty
                for folder in path.relative_to(self._local).parents[:-1]:
                    (self._local / folder).rmdir()
        self._index.note(dict.fromkeys(dropped))

    def push(self) -> int:
        """Send what is new or has changed here; returns how many files that were.

        Files that were sent and are gone here are taken away there.

        Raises:
            StorageError: It cannot be written there; the next push tries again.
        """
        with self._turn, pinned(self._local, self._found) as (pointer, found, pins):
            changed, gone = self._unlike(found)
            if not changed and not gone:
                return 0
            self._index.note({name: (found[name], None) for name in changed}, lasting=True)
            number = self._send({name: found[name] for name in sorted(changed, key=_rank)}, pins)
            if pointer is not None and POINTER in changed:
                self._check(True)
                self._remote.write(POINTER, pointer)
                self._note({POINTER: found[POINTER]})
                number += 1
            for name in gone:
                self._check(False)
                self._remote.delete(name)
                self._index.note({name: None})
            return number

    def _send(self, changed: Mapping[str, Stamp], pins: Mapping[str, Path]) -> int:
        """Send files but for the pointer; returns how many there were."""
        sent, waiting = 0, dict[str, Stamp]()
        try:
            for name, stamp in changed.items():
                self._check(False)
                if name != POINTER and self._upload(name, pins.get(name, self._local / name)):
                    waiting[name], sent = stamp, sent + 1
                if sum(size for size, _ in waiting.values()) >= NOTE_BYTES:
                    self._note(waiting)
                    waiting = {}
        finally:
            with contextlib.suppress(StorageError):  # then they are sent once more
                self._note(waiting)
        return sent

    def _note(self, sent: Mapping[str, Stamp]) -> None:
        """Take down that files are alike; their times there are known to a listing alone."""
        there = self._remote.files() if sent else {}
        self._index.note({n: (stamp, there[n]) for n, stamp in sent.items() if n in there})

    def _upload(self, name: str, path: Path) -> bool:
        try:
            self._remote.upload(path, name)
        except (StorageError, FileNotFoundError):
            if path.exists():
                raise
            return False  # an earlier commit that was dropped in the meantime
        return True

    def _is_here(self, name: str, there: Stamp, known: Pair | None, *, theirs: bool) -> bool:
        try:
            here = _stamp(self._local / name)
        except OSError:
            return False
        if theirs:
            return known == (here, there)
        if known is not None:
            return known[1] in (there, None)
        return here[0] == there[0] and here[1] >= there[1]  # sent by whoever keeps no index

    def _moved_on(self, pointer: bytes | None, known: Pair | None) -> bool:
        """Whether the pointer changed there alone; all have one size, and times are coarse."""
        path = self._local / POINTER
        here = known is not None and known[1] is not None and known[0] == _stamp(path)
        return here and path.read_bytes() != pointer

    def changed(self) -> bool:
        """Whether there is anything to send."""
        with self._turn:
            return any(self._unlike(self._found()))

    def unsent(self) -> dict[str, Stamp]:
        """What is new or has changed here."""
        with self._turn:
            found = self._found()
            return {name: found[name] for name in self._unlike(found)[0]}

    def _unlike(self, found: Mapping[str, Stamp]) -> tuple[list[str], list[str]]:
        """What is new or has changed, and what is gone."""
        known = self._index.read()
        changed = [
            name
            for name, stamp in found.items()
            if name not in known or known[name][0] != stamp or known[name][1] is None
        ]
        mine = (name for name in known if self._mine(name) and not _stays(name))
        return changed, [name for name in mine if name not in found]

    def _found(self, *, all_of_it: bool = False) -> dict[str, Stamp]:
        found = {}
        for folder, _, files in os.walk(self._local):
            for file in files:
                path = Path(folder) / file
                name = path.relative_to(self._local).as_posix()
                if not _stays(name) and (all_of_it or self._mine(name)):
                    with contextlib.suppress(OSError):  # it has just gone
                        found[name] = _stamp(path)
        return found

    def _check_inside(self, names: Iterable[str]) -> None:
        root = self._local.resolve()
        for name in names:
            if not (root / name).resolve().is_relative_to(root):
                raise StorageError(f"{self._remote.uri}: has a file outside of itself, {name!r}")


def _rank(name: str) -> tuple[bool, bool, str]:
    """The pointer last, and before it what describes a commit."""
    return name == POINTER, name.startswith(f"{COMMITS}/"), name


def _stays(name: str) -> bool:
    """Whether a file is for one machine alone: locks, what is being written, a site's own."""
    parts = name.split("/")
    own = any(part == "privacy" and before.startswith("site=") for before, part in pairwise(parts))
    return own or parts[-1] in ("lock", "site.log") or any(part.startswith(".") for part in parts)


def stamp_of(path: Path) -> Stamp | None:
    """What a file is told by; None: there is none."""
    try:
        return _stamp(path)
    except OSError:
        return None


def _stamp(path: Path) -> Stamp:
    about = path.stat()
    return about.st_size, about.st_mtime_ns
