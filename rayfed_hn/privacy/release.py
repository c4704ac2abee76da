"""The only way out of a site for what it learned: seal, charge, send.

1. The message is sealed: written to the outbox, whole, on disk.
2. It is charged to the ledger, on disk.
3. Only then it is sent.

Who asks again is sent the sealed bytes. A crash between 1 and 2 leaves bytes that nobody has seen;
they are charged before they are sent. So nothing that was sent is missing from the ledger, and no
noise is drawn twice for free. The same version with another network is another release, with noise
and a charge of its own; and so is a request whose sealed answer is not kept any more.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rayfed_hn.errors import BudgetSpent, LedgerError
from rayfed_hn.files import write_atomically
from rayfed_hn.privacy.accounting import Spent
from rayfed_hn.privacy.ledger import Charge, FileLedger, Ledger, MemoryLedger, ReleaseKey
from rayfed_hn.privacy.spending import total_epsilon

Message = bytes | memoryview
LEDGER, OUTBOX = "ledger.jsonl", "outbox"  # in a site's folder of privacy
KEPT = 4  # messages in an outbox, unless a site may be asked again for more


class Outbox:
    """Sealed messages: ``<run>.<number>.<digest of the key>.sealed``.

    Numbers are lengths of the ledger at the time, so that they rise, and tell whether the ledger
    has lost its end.

    Args:
        folder: On the site's own ground.
        kept: Messages of a run that are kept: as many as a site may be asked for again.
    """

    def __init__(self, folder: Path, kept: int = KEPT) -> None:
        self._folder, self._kept = folder, kept

    def find(self, key: ReleaseKey) -> bytes | None:
        """The message of a release that was sealed last, if it is still kept."""
        paths = self._of(key.run, key.digest)
        return paths[-1].read_bytes() if paths else None

    def seal(self, key: ReleaseKey, message: Message, number: int) -> None:
        """Keep a message, and the last few before it of the same run."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{key.run}.{number:09}.{key.digest}.sealed"
        write_atomically(path, lambda temporary: temporary.write_bytes(message))
        for old in self._of(key.run)[: -self._kept]:
            old.unlink(missing_ok=True)

    @property
    def last_number(self) -> int:
        """The largest number of all runs; -1 without any."""
        numbers = [int(path.name.split(".")[1]) for path in self._folder.glob("*.sealed")]
        return max(numbers, default=-1)

    def _of(self, run: str, digest: str = "*") -> list[Path]:
        return sorted(self._folder.glob(f"{run}.*.{digest}.sealed"))


@dataclass(frozen=True)
class Account:
    """What a site has spent.

    Attributes:
        releases: Charged, in the run.
        epsilon: Of these releases; infinite without a formal guarantee.
        epsilon_to_come: Of all releases in the ledger, over all runs, and of those that this run
            still needs; infinite if some of them hid nothing, or something else.
    """

    releases: int
    epsilon: float
    epsilon_to_come: float


def _beyond(epsilon: float, budget: float | None) -> bool:
    """Whether it is more than allowed; what is calibrated to a budget meets it up to rounding."""
    return budget is not None and epsilon > budget * (1 + 1e-6)


def _remedy(epsilon: float) -> str:
    return _FEWER if math.isfinite(epsilon) else _ENDLESS


_FEWER = (
    ". Ask for fewer versions (rounds.num_versions) or for more noise (privacy.target_epsilon), or "
    "raise the budget, if those who answer for the data allow it"
)
_ENDLESS = (
    ": the ledger holds releases that hide nothing (spent: null), or such that hide something else "
    "(unit, neighbouring), and no epsilon can be stated for all of them together. With these bags "
    "only a run without privacy.budget, or with the mechanism of before, can go on"
)


class Gate:
    """Charges releases of a site in one run, and refuses what is beyond its budget.

    Args:
        ledger: The site's.
        outbox: The site's; None where noise repeats, so that asking again reveals nothing.
        delta: Of every epsilon.
        budget: Largest epsilon over all runs; None: no limit.
        run_budget: Largest epsilon of this run; None: no limit.
        num_versions: Of the run, if a site is asked in each: where the budget has no room for all
            that are left, none is begun, since half a run is paid for nothing. 0: nothing is known.
    """

    def __init__(
        self,
        ledger: Ledger,
        outbox: Outbox | None,
        *,
        delta: float,
        budget: float | None = None,
        run_budget: float | None = None,
        num_versions: int = 0,
    ) -> None:
        self._ledger, self._outbox = ledger, outbox
        self._delta, self._budget, self._run_budget = delta, budget, run_budget
        self._num_versions = num_versions

    def again(self, key: ReleaseKey, spent: Spent | None) -> bytes | None:
        """The bytes of a release that was made before; charged, if a crash has prevented that.

        Raises:
            BudgetSpent: It was not charged, and may not be.
            LedgerError: The ledger has lost its end.
        """
        if self._outbox is None:
            return None
        check_end(self._ledger.charges(), self._outbox)
        message = self._outbox.find(key)
        if message is not None:
            self._charge(Charge(key, content_of(message), spent))
        return message

    def check(self, key: ReleaseKey, spent: Spent | None) -> Account:
        """What the site will have spent with one more release.

        Raises:
            BudgetSpent: That would be more than it may.
        """
        known = self._ledger.charges()
        if self._outbox is None:  # made again, it is the same release, with what was before it
            places = [place for place, charge in enumerate(known) if charge.key == key]
            known = known[: places[0]] if places else known
        return self._allow(Charge(key, "", spent), known)

    def release(self, key: ReleaseKey, spent: Spent | None, message: Message) -> Message:
        """Seal and charge a message; what comes back may be sent.

        Raises:
            BudgetSpent: It may not be charged.
        """
        charge = Charge(key, content_of(message), spent)
        if self._outbox is not None:
            self._outbox.seal(key, message, len(self._ledger.charges()))
        elif any(one.key == key for one in self._ledger.charges()):
            return message
        self._charge(charge)
        return message

    def _charge(self, charge: Charge) -> None:
        self._ledger.charge(charge, lambda known: self._allow(charge, known))

    def _allow(self, charge: Charge, known: Sequence[Charge]) -> Account:
        charges = [*known, charge]
        own = [one for one in charges if one.key.run == charge.key.run]
        to_come = max(0, self._num_versions - charge.key.version - 1)
        account = Account(
            len(own), self._epsilon(own), self._epsilon([*charges, *[charge] * to_come])
        )
        if _beyond(account.epsilon, self._run_budget):
            raise BudgetSpent(
                f"one more release would bring epsilon to {account.epsilon:.3f}, beyond the "
                f"{self._run_budget:g} of what this run promises"
            )
        if _beyond(account.epsilon_to_come, self._budget):
            more = f"{1 + to_come} more release{'s' if to_come else ''}"
            raise BudgetSpent(
                f"{more} would bring epsilon from {self._epsilon(known):.3f} to "
                f"{account.epsilon_to_come:.3f}, beyond the {self._budget:g} of privacy.budget of "
                f"all runs on these bags{_remedy(account.epsilon_to_come)}"
            )
        return account

    def _epsilon(self, charges: Sequence[Charge]) -> float:
        return total_epsilon(charges, self._delta)


def check_end(charges: Sequence[Charge], outbox: Outbox) -> None:
    """Look whether a ledger is whole.

    Raises:
        LedgerError: There was more.
    """
    if outbox.last_number > len(charges):
        raise LedgerError(
            "the privacy ledger has lost its end: releases lie in the outbox that it does not "
            "know of. Restore it from a backup; to begin anew is to promise nothing"
        )


def ledger_of(folder: Path) -> Sequence[Charge]:
    """What the ledger in a site's folder of privacy says; nothing is made if there is none.

    Raises:
        LedgerError: It is damaged, or its end is missing.
    """
    charges = FileLedger(folder / LEDGER).charges()
    check_end(charges, Outbox(folder / OUTBOX))
    return charges


def content_of(message: Message) -> str:
    """SHA-256 of a message."""
    return hashlib.sha256(message).hexdigest()


def make_gate(
    folder: Path | None,
    *,
    secret: bool,
    delta: float,
    budget: float | None,
    run_budget: float | None,
    num_versions: int = 0,
    kept: int = KEPT,
) -> Gate:
    """A gate whose ledger lies in a folder, or in memory; an outbox only where noise is secret."""
    ledger: Ledger = MemoryLedger() if folder is None else FileLedger(folder / LEDGER)
    outbox = Outbox(folder / OUTBOX, kept) if secret and folder is not None else None
    return Gate(
        ledger, outbox, delta=delta, budget=budget, run_budget=run_budget, num_versions=num_versions
    )
