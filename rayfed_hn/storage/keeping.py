"""Commands whose folders are in object storage: brought here, worked on, and sent as they change.

An address is replaced by the path of its copy on this disk, so that nothing else has to know of
object storage. A run directory has one process that sends it: whoever takes it up last is believed,
and the earlier one ends. On one machine a run has one process too, and others read what is there.
"""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

from rayfed_hn.errors import ConfigError, Interrupted, StorageError
from rayfed_hn.locks import Holder, lent
from rayfed_hn.storage.claim import Claim, TakenUp, lock_of, part, set_aside, take
from rayfed_hn.storage.index import Stamp
from rayfed_hn.storage.mirror import Mirror, stamp_of
from rayfed_hn.storage.pointed import COMMITS, clear_pins
from rayfed_hn.storage.remote import Remote, is_remote, remote_of

PUSH_SECONDS = 10.0
WAIT_SECONDS = 60.0  # for readers of a copy that is to be written
RUN_DIR = "run.dir"
ADDRESSED = ("", RUN_DIR, "data.bags", "--bags", "--against")  # "": the run that a command is about

_stack: ExitStack | None = None  # of the command that runs


@contextmanager
def storage() -> Iterator[None]:
    """Whatever is brought here within is sent as it changes, and in the end.

    Raises:
        StorageError: Something could not be sent.
    """
    global _stack
    with ExitStack() as _stack:
        try:
            yield
        finally:
            _stack, kept_open = None, _stack
            kept_open.close()


def brought(words: Sequence[str]) -> list[str]:
    """Words of a command, the verb first, with paths in place of addresses that are read.

    That of a run which is written is left to the verb, which knows whether it goes on with it.

    Raises:
        ConfigError: An address cannot be used.
        StorageError: It cannot be reached.
    """
    found = []
    for before, word in pairwise(["", *words]):
        given, text = _parted(word)
        if is_remote(text):
            place = given.rstrip("=") or (before if before.startswith("--") else "")
            _check_place(place, text)
            if place != RUN_DIR and (place or words[0] != "resume"):  # see bring_run
                text = bring(text)
        found.append(given + text)
    return found


def _parted(word: str) -> tuple[str, str]:
    """``key=`` or ``--option=``, if there is one, and the rest."""
    match = re.match(r"(--[a-z-]+|[\w.]+)=", word)
    return (match[0], word[match.end() :]) if match else ("", word)


def _check_place(place: str, text: str) -> None:
    if place not in ADDRESSED:
        raise ConfigError(
            f"{place}: {text} is in object storage, where only run.dir and data.bags can be; give "
            "a path (slides and tables are read from a disk, such as a bucket that is mounted "
            "there, and what --to names is written to one)"
        )


def bring(text: str) -> str:
    """The path of the copy of what is at an address; any other text as it is."""
    return _brought(text, alone=False)


def bring_run(text: str, *, goes_on: bool) -> str:
    """The path of the copy of a run that a command writes; any other text as it is.

    No other process may write it from now on. A run that is there, and that this command does not
    go on with, is left to whoever has it.

    Args:
        text: A path or an address.
        goes_on: The command goes on with a run that is there.
    """
    alone = is_remote(text) and (goes_on or not remote_of(text).has("config.yaml"))
    return _brought(text, alone=alone)


def _brought(text: str, *, alone: bool) -> str:
    if not is_remote(text):
        return text
    remote = remote_of(text)
    if _stack is None:
        raise StorageError(f"{text}: is brought here by commands alone; give a path")
    return str(_stack.enter_context(kept(remote, alone=alone)))


@contextmanager
def kept(remote: Remote, *, alone: bool, every: float | None = None) -> Iterator[Path]:
    """A copy of a remote folder on this disk that is sent whenever it has changed, and in the end.

    Args:
        remote: The folder.
        alone: Nobody else may write this folder while this process does: whoever has taken it up
            on another machine ends.
        every: Seconds between two looks; None: ``PUSH_SECONDS``.

    Raises:
        ConfigError: A process of this machine is at work there.
        StorageError: It cannot be reached, or what changed last could not be sent.
        TakenUp: Another process has taken it up meanwhile; the copy is out of the way.
    """
    remote.check()
    copy = remote.copy
    lock = lock_of(copy)
    with ExitStack() as stack:
        if alone:
            _refuse(remote, stack.enter_context(lent(lock, wait_seconds=WAIT_SECONDS)))
        sender = _Sender(remote, copy, None if alone else lock)
        sender.begin()
        ended = threading.Event()
        thread = threading.Thread(
            target=sender.keep, args=(ended, every or PUSH_SECONDS), daemon=True
        )
        thread.start()
        try:
            yield copy
        finally:
            ended.set()
            sender.last(thread)


def _refuse(remote: Remote, holder: Holder | None) -> None:
    if holder is not None:
        raise ConfigError(
            f"run.dir: {remote.uri} is in use on this machine by {holder}; wait until that has "
            f"ended, or end it ({holder.ended_by}) and give the same command again"
        )


def _heeded() -> signal.Signals:
    """A signal that Python hears: what a script starts in the background ignores Ctrl-C's."""
    heard = (one for one in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(one)))
    return next(heard, signal.SIGINT)


class _Sender:
    """Sends what has changed, until another process has taken the folder up.

    Args:
        remote: The folder.
        copy: Where it is worked on.
        lock: Taken whenever files are moved, so that they are not while another process of this
            machine writes them, who sends them too; None: this is that process.

    Attributes:
        lost: What became of the right to send.
    """

    def __init__(self, remote: Remote, copy: Path, lock: Path | None) -> None:
        self._remote, self._copy, self._lock = remote, copy, lock
        self._mirror = Mirror(copy, remote, self._is_mine, self._check)
        self._left: dict[str, Stamp] = {}  # of a run that is but read: what nobody has sent yet
        self._reads = False
        self._claim: Claim | None = None
        self.lost: TakenUp | None = None

    def begin(self) -> None:
        """Bring what is there."""
        with self._turn() as holder:
            if holder is not None:
                print(f"{self._remote.uri}: is read as {holder} has it in {self._copy}")
                return
            self._part()
            if self._lock is None:
                clear_pins(self._copy)
                self._claim = take(self._remote, self._copy)
            moved = self._mirror.pull()
            if self._lock is not None and (self._copy / "config.yaml").exists():
                self._left, self._reads = self._mirror.unsent(), True
        if moved:
            files = f"{moved} file{'s' * (moved != 1)}"
            print(f"{self._remote.uri}: {files} brought to {self._copy}")

    def _part(self) -> None:
        """What was never sent from here has no place in a run that went on elsewhere."""
        where = part(self._remote, self._copy, self._mirror.changed)
        if where is not None:
            print(
                f"{self._remote.uri}: was taken up elsewhere since; what was not sent from here is "
                f"in {where}"
            )

    def keep(self, ended: threading.Event, every: float) -> None:
        """Send every so many seconds; a failure is told once, and tried again."""
        told = False
        while not ended.wait(every):
            try:
                self._push()
                told = False
            except TakenUp as error:
                self.lost = error
                if not ended.is_set():  # whatever the command is at ends as by Ctrl-C
                    signal.pthread_kill(threading.main_thread().ident or 0, _heeded())
                return
            except Exception as error:  # whatever it is, hours of work may follow
                if not told:
                    print(f"rayfed-hn: warning: {error}; trying again", file=sys.stderr)
                told = True

    def last(self, thread: threading.Thread) -> None:
        """Send what is left, once the thread that sends has ended.

        Raises:
            TakenUp: It must not be sent; says where it is.
            StorageError: It cannot be sent; says where it is.
            Interrupted: It was not sent; says where it is.
        """
        try:
            thread.join()
            if self.lost is None:
                self._push()
        except TakenUp as error:
            self.lost = error
        except StorageError as error:
            raise StorageError(f"{error}; {self._unsent}") from None
        except KeyboardInterrupt:
            if self.lost is None:
                what = f"interrupted while {self._remote.uri} was sent"
                raise Interrupted(f"{what}; {self._unsent}") from None
        if self.lost is not None:
            raise TakenUp(f"{self.lost}; what it wrote is in {set_aside(self._copy)}") from None

    @property
    def _unsent(self) -> str:
        return (
            f"what was not sent is whole in {self._copy}, and is sent when a command with the same "
            "address runs on this machine, unless the run is taken up elsewhere before"
        )

    def _push(self) -> None:
        with self._turn() as holder:
            if holder is None:
                self._check(sure=True)
                self._mirror.push()

    def _is_mine(self, name: str) -> bool:
        """Of a run that is but read, what was written since, and never a commit."""
        if not self._reads:
            return True
        known = self._left.get(name)
        return not name.startswith(f"{COMMITS}/") and known != stamp_of(self._copy / name)

    def _check(self, sure: bool) -> None:
        if self._claim is not None:
            self._claim.check(sure)

    @contextmanager
    def _turn(self) -> Iterator[Holder | None]:
        """Yields who else is at work in the copy."""
        if self._lock is None:
            yield None
        else:
            with lent(self._lock, shared=True) as holder:
                yield holder
