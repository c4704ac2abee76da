"""Parts of folders in object storage on nodes that share no disk with whoever started a command."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from rayfed_hn.errors import StorageAway, StorageError
from rayfed_hn.files import write_atomically
from rayfed_hn.locks import lent
from rayfed_hn.storage.claim import Claim, TakenUp, lock_of, part, token_of
from rayfed_hn.storage.mirror import Mirror
from rayfed_hn.storage.remote import Remote, origin_of

T = TypeVar("T")
RETRY_SECONDS = 240.0
FIRST_PAUSE, MOST_PAUSE = 1.0, 30.0  # seconds between two tries


def bring_bags(root: Path, sites: Iterable[str]) -> None:
    """See to it that a node has the bags of some sites, if the store is a copy of a remote one.

    Raises:
        StorageError: They cannot be brought.
    """
    remote = origin_of(root)
    if remote is not None:
        folders = tuple(f"site={site}/" for site in sites)
        Mirror(root, remote).pull(lambda name: "/" not in name or name.startswith(folders))


class StoreHere:
    """A bag store on a disk that a worker shares with whoever embeds: nothing has to be moved."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def bring(self, names: Iterable[str]) -> None:
        """They are here."""

    def send(self, names: Iterable[str]) -> None:
        """They are there."""

    def is_marked(self, mark: str) -> bool:
        """Whether a mark was set, by this worker or another."""
        return (self._root / mark).exists()

    def set_mark(self, mark: str) -> None:
        """Set a mark, a path below the store's folder."""
        (self._root / mark).touch()

    def clear_mark(self, mark: str) -> None:
        """Take a mark away."""
        (self._root / mark).unlink(missing_ok=True)


class StoreElsewhere:
    """A bag store in object storage, on a node that shares no disk with whoever embeds.

    Nothing of the store is brought but what the slide at hand has there, and what it leaves is sent
    at once.

    Args:
        root: Where the copy of the store lies on this node.
        remote: The store.

    Raises:
        StorageError: It cannot be reached.
    """

    def __init__(self, root: Path, remote: Remote) -> None:
        self._root, self._remote = root, remote
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.bring(["recipe.json"])

    def bring(self, names: Iterable[str]) -> None:
        """Make some files what they are there; what is not there is not here either.

        Raises:
            StorageError: They cannot be read.
        """
        _patiently(lambda: self._bring(names), RETRY_SECONDS)

    def _bring(self, names: Iterable[str]) -> None:
        for name in names:
            path = self._root / name
            if self._remote.has(name):
                path.parent.mkdir(mode=0o700, exist_ok=True)
                write_atomically(path, lambda made, name=name: self._remote.download(name, made))
            else:
                path.unlink(missing_ok=True)

    def send(self, names: Iterable[str]) -> None:
        """Make some files there what they are here.

        Raises:
            StorageError: They cannot be written.
        """
        _patiently(lambda: self._send(names), RETRY_SECONDS)

    def _send(self, names: Iterable[str]) -> None:
        for name in names:
            path = self._root / name
            if path.exists():
                self._remote.upload(path, name)
                os.utime(path)  # not older than what is there, so that it is not brought again
            else:
                self._remote.delete(name)

    def is_marked(self, mark: str) -> bool:
        """Whether a mark was set, by this node or another."""
        return _patiently(lambda: self._remote.has(mark), RETRY_SECONDS)

    def set_mark(self, mark: str) -> None:
        """Set a mark, a path below the store's folder."""
        _patiently(lambda: self._remote.write(mark, b""), RETRY_SECONDS)

    def clear_mark(self, mark: str) -> None:
        """Take a mark away."""
        _patiently(lambda: self._remote.delete(mark), RETRY_SECONDS)


def store_of(root: Path, shared: Path) -> StoreHere | StoreElsewhere | None:
    """The store as a worker has it; None if whoever embeds would not see what it writes.

    Args:
        root: The store's folder, or that of its copy.
        shared: What whoever embeds has made on its disk, for this run alone.

    Raises:
        StorageError: It is in object storage, which cannot be reached.
    """
    if shared.exists():
        return StoreHere(root)
    remote = origin_of(root)
    return None if remote is None else StoreElsewhere(root, remote)


def offer(root: Path) -> None:
    """Let workers on other nodes find a store as it is, if it is the copy of one elsewhere.

    Raises:
        StorageError: It cannot be sent.
    """
    remote = origin_of(root)
    if remote is not None:
        Mirror(root, remote).push()


def collect(root: Path) -> None:
    """Have what workers on other nodes have sent.

    Raises:
        StorageError: It cannot be brought.
    """
    remote = origin_of(root)
    if remote is not None:
        Mirror(root, remote).pull()


def forget_marks(root: Path, marks: str) -> None:
    """Take away what marks workers on other nodes have left, in this run or in one that was cut.

    Args:
        root: The store's folder, which nobody else embeds into.
        marks: How their paths below it begin.
    """
    remote = origin_of(root)
    if remote is not None:
        with contextlib.suppress(StorageError):  # the next run does it
            for name in remote.files():
                if name.startswith(marks):
                    remote.delete(name)


class Share:
    """What one process keeps of a run, where nobody else on its machine sends it.

    Storage that is out of reach is tried again for four minutes (``RETRY_SECONDS``): less than
    whoever starts actors waits for them.

    Args:
        folder: The run directory; nothing is moved of None and of a plain folder.
        mine: What this process keeps, by the path below the folder.
        holder: The token of whoever has taken the run up; nothing is moved without one. On a disk
            that they share they send all there is too, and storage may be away for a while.
    """

    def __init__(self, folder: Path | None, mine: Callable[[str], bool], holder: str = "") -> None:
        remote = None if folder is None else origin_of(folder)
        self._mirror: Mirror | None = None
        self._patience = RETRY_SECONDS
        if folder is None or remote is None or not holder:
            return
        self._shared = token_of(folder) == holder
        self._remote, self._folder, self._mine = remote, folder, mine
        self._mirror = Mirror(folder, remote, mine, Claim(remote, holder).check)

    def pull(self) -> None:
        """Have what was kept on another node.

        Raises:
            StorageAway: It could not be brought.
            TakenUp: Another process has taken the run up.
        """
        if self._mirror is not None:
            self._patiently(self._take_up)

    def push(self) -> None:
        """Send what has changed.

        Raises:
            StorageAway: It could not be sent.
            TakenUp: Another process has taken the run up.
        """
        if self._mirror is None:
            return
        if not self._shared:
            self._patiently(self._mirror.push)
            return
        try:  # whoever goes on with this on another node finds it there
            self._mirror.push()
        except TakenUp:
            raise
        except StorageError:
            return

    def _take_up(self) -> None:
        assert self._mirror is not None
        if self._shared:  # what is here is this run's, but may be of before it was on another node
            self._mirror.pull(self._mine)
            return
        with lent(lock_of(self._folder)) as holder:
            if holder is None:  # nor a command that has not noticed yet
                part(self._remote, self._folder, Mirror(self._folder, self._remote).changed)
        self._mirror.pull(self._mine, theirs=True)

    def _patiently(self, move: Callable[[], object]) -> None:
        try:
            _patiently(move, self._patience)
            self._patience = RETRY_SECONDS
        except TakenUp:
            raise
        except StorageError as error:
            self._patience = 0.0  # whoever comes next need not wait for nothing again
            raise StorageAway(
                f"{error}; tried for {RETRY_SECONDS:g} s. What was committed there before "
                "is whole: see to it that all nodes can reach and write it, and "
                f"'rayfed-hn resume {self._remote.uri}' goes on"
            ) from None


def _patiently(move: Callable[[], T], seconds: float) -> T:
    """Try again and again while storage is away; returns what came of it.

    Raises:
        StorageError: It is away for too long.
        TakenUp: That is not what is the matter.
    """
    end, pause = time.monotonic() + seconds, FIRST_PAUSE
    while True:
        try:
            return move()
        except TakenUp:
            raise
        except StorageError:
            if time.monotonic() + pause > end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, MOST_PAUSE)
