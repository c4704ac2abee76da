"""What a site has spent, written down by the site itself.

The ledger is append-only and at the site: a server that crashes, goes back or asks again cannot
give anything back. Every line carries the digest of the line before, so that a line that was
changed, or taken out of the middle, is noticed; that the end is missing, the outbox tells.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from rayfed_hn.errors import LedgerError
from rayfed_hn.files import sync
from rayfed_hn.privacy.accounting import Spent

_FIRST = "0" * 64


@dataclass(frozen=True)
class ReleaseKey:
    """Which release: the same key is the same release, however often it is asked for.

    Attributes:
        run: The run.
        site: The site.
        version, turn: What was asked.
        received: SHA-256 of the parameters that were received.
    """

    run: str
    site: str
    version: int
    turn: int
    received: str

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Charge:
    """One line: a release and what it cost.

    Attributes:
        key: Which.
        content: SHA-256 of what is released: other noise for the same key is another charge.
        spent: None without formal guarantee.
    """

    key: ReleaseKey
    content: str
    spent: Spent | None


Allow = Callable[[Sequence[Charge]], object]  # raises if a charge may not be added to these


class Ledger(Protocol):
    """Charges in the order in which they were made."""

    def charges(self) -> Sequence[Charge]: ...

    def charge(self, charge: Charge, allow: Allow = lambda known: None) -> None:
        """Write a charge down for good, if that is allowed; one that is there is not made again."""
        ...


class MemoryLedger:
    """For simulations, whose noise can be drawn again anyway."""

    def __init__(self) -> None:
        self._charges: list[Charge] = []

    def charges(self) -> Sequence[Charge]:
        return tuple(self._charges)

    def charge(self, charge: Charge, allow: Allow = lambda known: None) -> None:
        if charge not in self._charges:
            allow(self.charges())
            self._charges.append(charge)


class FileLedger:
    """A file that only grows, on the site's own ground.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def charges(self) -> Sequence[Charge]:
        """All charges.

        Raises:
            LedgerError: A line was changed or taken out.
        """
        if not self._path.exists():
            return []
        with self._locked(os.O_RDONLY, fcntl.LOCK_SH) as file:
            return [charge for charge, _ in _read(file)]

    def charge(self, charge: Charge, allow: Allow = lambda known: None) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Two runs at once see each other's charges.
        with self._locked(os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) as file:
            known = list(_read(file))
            if charge in (one for one, _ in known):
                return
            allow([one for one, _ in known])
            # A line that a crash has torn was never followed by a release.
            os.ftruncate(file, sum(size for _, size in known))
            last = _digest_of_last(file)
            line = json.dumps({**_to_json(charge), "previous": last}) + "\n"
            os.lseek(file, 0, os.SEEK_END)
            _write_all(file, line.encode())
            os.fsync(file)
        sync(self._path.parent)

    @contextmanager
    def _locked(self, flags: int, lock: int) -> Iterator[int]:
        file = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(file, lock)
            yield file
        finally:
            os.close(file)


def _lines(file: int) -> list[bytes]:
    size = os.fstat(file).st_size
    return [line + b"\n" for line in os.pread(file, size, 0).split(b"\n")[:-1]]


def _read(file: int) -> Iterator[tuple[Charge, int]]:
    """Every whole line as a charge, and its length in bytes."""
    previous = _FIRST
    for number, line in enumerate(_lines(file), 1):
        try:
            values = json.loads(line)
            charge, stated = _from_json(values), values["previous"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _damaged(number) from error
        if stated != previous:
            raise _damaged(number)
        previous = hashlib.sha256(line).hexdigest()
        yield charge, len(line)


def _damaged(number: int) -> LedgerError:
    return LedgerError(
        f"the privacy ledger is damaged at line {number}: what was spent is not known any more. "
        "Restore it from a backup; to begin anew is to promise nothing for what was released"
    )


def _digest_of_last(file: int) -> str:
    lines = _lines(file)
    return hashlib.sha256(lines[-1]).hexdigest() if lines else _FIRST


def _to_json(charge: Charge) -> dict[str, object]:
    spent = None if charge.spent is None else asdict(charge.spent)
    return {"key": asdict(charge.key), "content": charge.content, "spent": spent}


def _from_json(values: dict) -> Charge:
    spent = values["spent"]
    key, content = ReleaseKey(**values["key"]), str(values["content"])
    return Charge(key, content, None if spent is None else Spent(**spent))


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
