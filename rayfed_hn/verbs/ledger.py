"""The verb that shows what the bags of every site have given away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rayfed_hn.bags.store import list_sites
from rayfed_hn.errors import DataError, LedgerError
from rayfed_hn.privacy.ledger import Charge
from rayfed_hn.privacy.release import ledger_of
from rayfed_hn.privacy.spending import MOST, Spending, room, spending

_ENDLESS = (
    "Where releases hide nothing (no noise, or the paper's), or not the same thing, no epsilon can "
    "be stated for all runs together, and a run with a privacy.budget is refused by the site. To "
    "begin anew is to promise nothing for what these bags have given away."
)


def ledger(bags: Path, sites: tuple[str, ...], delta: float, budget: float | None) -> int:
    """See ``rayfed-hn ledger --help``."""
    known = list_sites(bags)
    if missing := [site for site in sites if site not in known]:
        there = ", ".join(known) or "there is none (BAGS is a store that 'rayfed-hn embed' made)"
        raise DataError(f"--site: {bags} has no site {missing[0]}; sites: {there}")
    damaged, endless, size = False, False, max(4, *map(len, known))
    print(f"{'site':{size}}  {'run':32}  {'releases':>8}  {'hides each':10}  epsilon at {delta:g}")
    for site in sites or known:
        try:
            charges = ledger_of(bags / f"site={site}" / "privacy")
        except (LedgerError, OSError) as error:
            print(f"{site:{size}}  {error}")
            damaged = True
            continue
        lines = spending(charges, delta)
        for line in lines if len(lines) > 2 else lines[:1]:
            print(f"{site:{size}}  {_line(line)}")
            endless |= math.isinf(line.epsilon)
        if budget is not None:
            print(f"{site:{size}}  {_room(charges, budget, delta)}")
    if endless:
        print(f"\n{_ENDLESS}")
    return int(damaged)


def _line(line: Spending) -> str:
    run = "all runs" if line.run is None else line.run
    if not line.releases:
        return f"{'none yet':32}  {0:8}  {'–':10}  0"
    epsilon = f"{line.epsilon:.4g}" if math.isfinite(line.epsilon) else "without limit"
    kinds = {None if one is None else one[0] for one in line.hides}
    hides = "mixed" if len(line.hides) > 1 else (kinds.pop() or "nothing")
    return f"{run:32}  {line.releases:8}  {hides:10}  {epsilon}"


def _room(charges: Sequence[Charge], budget: float, delta: float) -> str:
    if not charges:
        return f"budget {budget:g}: all of it is left"
    versions = room(charges, budget, delta)
    if not versions:
        return f"budget {budget:g}: no room for a run"
    most = f"{versions} or more" if versions == MOST else f"up to {versions}"
    return f"budget {budget:g}: room for a run of {most} versions with the noise of the last one"
