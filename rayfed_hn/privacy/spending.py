"""What a ledger says was spent, run by run and over all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rayfed_hn.privacy.accounting import Spent, epsilon_of
from rayfed_hn.privacy.ledger import Charge

MOST = 1000  # releases: of more, nobody needs the number


@dataclass(frozen=True)
class Spending:
    """Releases and what they come to.

    Attributes:
        run: Its id (the file ``run_id`` of its directory); None: all runs together.
        releases: Charged.
        hides: Whose data they hide, and beside which others; several where they differ, and
            None in it where a release hides nothing.
        epsilon: Of them together; infinite if some hide nothing, or something else.
    """

    run: str | None
    releases: int
    hides: frozenset[tuple[str, str] | None]
    epsilon: float


def spending(charges: Sequence[Charge], delta: float) -> list[Spending]:
    """Every run in the order of its first release, and then all of them together."""
    runs = dict.fromkeys(charge.key.run for charge in charges)
    own = [_of(run, [c for c in charges if c.key.run == run], delta) for run in runs]
    return [*own, _of(None, charges, delta)]


def total_epsilon(charges: Sequence[Charge], delta: float) -> float:
    """Epsilon of all of them; infinite where releases hide nothing, or not the same thing."""
    spent = [charge.spent for charge in charges if charge.spent is not None]
    return math.inf if len(spent) < len(charges) else _together(spent, delta)


def _together(spent: Sequence[Spent], delta: float) -> float:
    if len({(one.unit, one.neighbouring) for one in spent}) > 1:
        return math.inf
    return epsilon_of(spent, delta)


def room(charges: Sequence[Charge], budget: float, delta: float) -> int:
    """How many more releases like the last one a budget allows, ``MOST`` at most.

    None without releases to go by.
    """
    spent = [charge.spent for charge in charges if charge.spent is not None]
    if not spent or len(spent) < len(charges):
        return 0
    return _room(tuple(spent), budget, delta)


@lru_cache  # sites of one federation have mostly spent the same
def _room(spent: tuple[Spent, ...], budget: float, delta: float) -> int:
    low, high = 0, 1

    def fits(more: int) -> bool:
        return _together([*spent, *[spent[-1]] * more], delta) <= budget * (1 + 1e-6)

    while high <= MOST and fits(high):
        low, high = high, 2 * high
    high = min(high, MOST + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _of(run: str | None, charges: Sequence[Charge], delta: float) -> Spending:
    spent = (charge.spent for charge in charges)
    hides = frozenset(None if one is None else (one.unit, one.neighbouring) for one in spent)
    return Spending(run, len(charges), hides, total_epsilon(charges, delta))
