"""Commands whose folders are in object storage: brought here, worked on, and sent as they change.

An address is replaced by the path of its copy on this disk, so that nothing else has to know of
object storage. A run directory has one process that sends it: whoever takes it up last is believed,
and the earlier one stops.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

from rayfed_hn.errors import ConfigError, StorageError
from rayfed_hn.storage.mirror import Mirror
from rayfed_hn.storage.remote import Remote, is_remote, remote_of

PUSH_SECONDS = 10.0
CLAIM = ".held.json"  # there alone: who sends
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
    """Words of a command, the verb first, with paths in place of addresses.

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
            # What goes on with a run is its only process; a reader of a run is not.
            alone = place == RUN_DIR or (not place and words[0] == "resume")
            text = bring(text, alone=alone)
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


def bring(text: str, *, alone: bool) -> str:
    """The path of the copy of what is at an address; any other text as it is.

    Args:
        text: A path or an address.
        alone: Nobody else may send this folder while this process does.
    """
    if not is_remote(text):
        return text
    remote = remote_of(text)
    if _stack is None:
        raise StorageError(f"{text}: is brought here by commands alone; give a path")
    return str(_stack.enter_context(kept(remote, alone=alone)))


@contextmanager
def kept(remote: Remote, *, alone: bool, every: float = PUSH_SECONDS) -> Iterator[Path]:
    """A copy of a remote folder on this disk that is sent whenever it has changed, and in the end.

    Args:
        remote: The folder.
        alone: Nobody else may send this folder while this process does.
        every: Seconds between two looks.

    Raises:
        StorageError: It cannot be reached, or what changed last could not be sent.
    """
    remote.check()
    mirror = Mirror(remote.copy, remote, lambda name: name != CLAIM)
    moved = mirror.pull(lambda name: name != CLAIM)
    if moved:
        print(f"{remote.uri}: {moved} file{'s' * (moved != 1)} brought to {remote.copy}")
    sender = _Sender(remote, mirror, alone=alone)
    ended = threading.Event()
    thread = threading.Thread(target=sender.keep, args=(ended, every), daemon=True)
    thread.start()
    try:
        yield remote.copy
    finally:
        ended.set()
        thread.join()
        sender.last()


class _Sender:
    """Sends what has changed, until another process has taken the folder up."""

    def __init__(self, remote: Remote, mirror: Mirror, *, alone: bool) -> None:
        self._remote, self._mirror, self._alone = remote, mirror, alone
        about = {"host": socket.gethostname(), "process": os.getpid(), "token": uuid.uuid4().hex}
        self._own, self._claimed = json.dumps(about).encode(), False

    def keep(self, ended: threading.Event, every: float) -> None:
        """Send every so many seconds; a failure is told once, and tried again."""
        told = False
        while not ended.wait(every):
            try:
                self._push()
            except StorageError as error:
                if not told:
                    print(f"rayfed-hn: warning: {error}; trying again", file=sys.stderr)
                told = True

    def last(self) -> None:
        """Send what is left.

        Raises:
            StorageError: It cannot be sent; says where it is.
        """
        try:
            self._push()
        except StorageError as error:
            raise StorageError(
                f"{error}; what was not sent is whole in {self._remote.copy}, and is sent when a "
                "command with the same address runs on this machine"
            ) from None

    def _push(self) -> None:
        if self._claimed and self._remote.read(CLAIM) != self._own:
            raise StorageError(
                f"{self._remote.uri}: another process has taken this folder up; nothing more is "
                "sent from here"
            )
        if self._alone and not self._claimed and self._mirror.changed():
            self._remote.write(CLAIM, self._own)
            self._claimed = True
        self._mirror.push()
