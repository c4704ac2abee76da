"""Who may send a run: whoever took it up last, told by a file beside the run's own.

The same file lies in the copy, unsent: by its token a process knows whether it shares a disk with
whoever took the run up, and by its name of the copy, whether somebody else has had the run since.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from rayfed_hn.errors import TakenUp
from rayfed_hn.files import write_atomically, write_text
from rayfed_hn.saving import saving
from rayfed_hn.storage.remote import Remote, cache

CLAIM = ".held.json"
LOOK_SECONDS = 1.0  # between two looks, where it need not be certain
SET_ASIDE = "set-aside"  # in the cache


class Claim:
    """One process's right to send a remote folder.

    Args:
        remote: The folder.
        token: By which it is known; "": of nobody, and never lost.
    """

    def __init__(self, remote: Remote, token: str) -> None:
        self._remote, self._token, self._looked = remote, token, -LOOK_SECONDS

    def check(self, sure: bool = True) -> None:
        """See to it that the right is not lost.

        Args:
            sure: Look now; otherwise a look of the last second will do.

        Raises:
            TakenUp: It is.
            StorageError: That cannot be found out.
        """
        now = time.monotonic()
        if not self._token or (not sure and now - self._looked < LOOK_SECONDS):
            return
        found = _read(self._remote.read(CLAIM))
        if found and found.get("token") != self._token:
            by = f"process {found.get('process')} on {found.get('host')}"
            raise TakenUp(
                f"{self._remote.uri}: another process has taken this run up ({by}), and this one "
                "has ended; nothing more was sent from here"
            )
        self._looked = now


def take(remote: Remote, copy: Path) -> Claim:
    """Take a folder up, before anything of it is brought; whoever had it ends.

    Args:
        remote: The folder.
        copy: Where it is worked on.

    Raises:
        StorageError: It cannot be written.
    """
    name = _read(_local(copy)).get("copy", uuid.uuid4().hex)
    about = {"host": socket.gethostname(), "process": os.getpid(), "copy": name}
    about["token"] = uuid.uuid4().hex
    with saving(copy / CLAIM):
        write_text(copy / CLAIM, json.dumps(about))
    remote.write(CLAIM, json.dumps(about).encode())
    return Claim(remote, str(about["token"]))


def token_of(folder: Path) -> str:
    """By what whoever took a run up last on this disk is known; "": nobody has."""
    return str(_read(_local(folder)).get("token", ""))


def is_of_another(remote: Remote, copy: Path) -> bool:
    """Whether a run that was last taken up in this copy has been taken up elsewhere since.

    Raises:
        StorageError: That cannot be found out.
    """
    own, found = _read(_local(copy)), _read(remote.read(CLAIM))
    return bool(own and found) and own.get("copy") != found.get("copy")


def set_aside(folder: Path) -> Path:
    """Move a copy out of the way, so that what is in it is never mixed with another; where to.

    Its claim stays: what an actor that is being killed still writes has no other place either.

    Raises:
        StorageError: It cannot be moved.
    """
    now = time.strftime("%Y%m%d-%H%M%S")
    to = cache() / SET_ASIDE / f"{folder.name}-{now}-{uuid.uuid4().hex[:4]}"
    with saving(to):
        claim = _local(folder)
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.rename(to)
        if claim is not None:
            write_atomically(folder / CLAIM, lambda made: made.write_bytes(claim))
    return to


def lock_of(copy: Path) -> Path:
    """The lock of a copy, which stays where it is when the copy is set aside."""
    return copy.with_name(f".{copy.name}.lock")


def part(remote: Remote, copy: Path, changed: Callable[[], bool]) -> Path | None:
    """Part a copy from a run that went on elsewhere; where to, if it had anything to itself.

    Args:
        remote: The run.
        copy: Where it was worked on; nobody else may be at work there.
        changed: Whether there is anything in the copy that was never sent.

    Raises:
        StorageError: That cannot be found out, or the copy cannot be moved.
    """
    if not is_of_another(remote, copy):
        return None
    where = set_aside(copy) if changed() else None
    (copy / CLAIM).unlink(missing_ok=True)
    return where


def _local(folder: Path) -> bytes | None:
    try:
        return (folder / CLAIM).read_bytes()
    except OSError:
        return None


def _read(content: bytes | None) -> dict[str, object]:
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
