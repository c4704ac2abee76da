"""What a ledger says was spent, run by run and over all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rayfed_hn.privacy.accounting import epsilon_of
from rayfed_hn.privacy.ledger import Charge

_MOST = 1_000_000  # releases: of more, nobody needs the number


@dataclass(frozen=True)
class Spending:
    """Releases and what they come to.

    Attributes:
        run: Its id (the file ``run_id`` of its directory); None: all runs together.
        releases: Charged.
        unit: Whose data they hide; None: nobody's, or not the same in all.
        epsilon: Of them together; infinite if some hide nothing, or something else.
    """

    run: str | None
    releases: int
    unit: str | None
    epsilon: float


def spending(charges: Sequence[Charge], delta: float) -> list[Spending]:
    """Every run in the order of its first release, and then all of them together."""
    runs = dict.fromkeys(charge.key.run for charge in charges)
    own = [_of(run, [c for c in charges if c.key.run == run], delta) for run in runs]
    return [*own, _of(None, charges, delta)]


def total_epsilon(charges: Sequence[Charge], delta: float) -> float:
    """Epsilon of all of them; infinite where releases hide nothing, or not the same thing."""
    spent = [charge.spent for charge in charges if charge.spent is not None]
    if len(spent) < len(charges) or len({(s.unit, s.neighbouring) for s in spent}) > 1:
        return math.inf
    return epsilon_of(spent, delta)


def room(charges: Sequence[Charge], budget: float, delta: float) -> int:
    """How many more releases like the last one a budget allows; none without releases to go by."""
    last = charges[-1:]

    def fits(more: int) -> bool:
        return total_epsilon([*charges, *(list(last) * more)], delta) <= budget * (1 + 1e-6)

    if not last or not fits(1):
        return 0
    enough = 1
    while fits(2 * enough) and enough < _MOST:
        enough *= 2
    low, high = enough, 2 * enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _of(run: str | None, charges: Sequence[Charge], delta: float) -> Spending:
    units = {None if charge.spent is None else charge.spent.unit for charge in charges}
    unit = units.pop() if len(units) == 1 else None
    return Spending(run, len(charges), unit, total_epsilon(charges, delta))
