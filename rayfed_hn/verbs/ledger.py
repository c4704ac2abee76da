"""The verb that shows what the bags of every site have given away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rayfed_hn.bags.store import list_sites
from rayfed_hn.errors import DataError, LedgerError
from rayfed_hn.privacy.ledger import Charge, FileLedger
from rayfed_hn.privacy.spending import Spending, room, spending


def ledger(bags: Path, sites: tuple[str, ...], delta: float, budget: float | None) -> int:
    """See ``rayfed-hn ledger --help``."""
    known = list_sites(bags)
    if missing := [site for site in sites if site not in known]:
        there = ", ".join(known) or "there is none (BAGS is a store that 'rayfed-hn embed' made)"
        raise DataError(f"--site: {bags} has no site {missing[0]}; sites: {there}")
    damaged, size = 0, max(4, *map(len, known))
    print(f"{'site':{size}}  {'run':32}  {'releases':>8}  {'hides each':10}  epsilon at {delta:g}")
    for site in sites or known:
        try:
            charges = FileLedger(bags / f"site={site}" / "privacy" / "ledger.jsonl").charges()
        except (LedgerError, OSError) as error:
            print(f"{site:{size}}  {error}")
            damaged += 1
            continue
        lines = spending(charges, delta)
        for line in lines if len(lines) > 2 else lines[:1]:
            print(f"{site:{size}}  {_line(line)}")
        if budget is not None:
            print(f"{site:{size}}  {_room(charges, budget, delta)}")
    print(
        "\nWhere releases hide nothing (no noise, or the paper's), or not the same thing, no "
        "epsilon can be stated for all runs together, and no privacy.budget has room for more."
    )
    return 1 if damaged else 0


def _line(line: Spending) -> str:
    run = "all runs" if line.run is None else line.run
    if not line.releases:
        return f"{'none yet':32}  {0:8}  {'–':10}  0"
    epsilon = f"{line.epsilon:.4g}" if math.isfinite(line.epsilon) else "without limit"
    unit = line.unit or ("mixed" if line.run is None else "nothing")
    return f"{run:32}  {line.releases:8}  {unit:10}  {epsilon}"


def _room(charges: Sequence[Charge], budget: float, delta: float) -> str:
    if not charges:
        return f"budget {budget:g}: all of it is left"
    more = room(charges, budget, delta)
    return f"budget {budget:g}: room for {more:,} more releases like the last one"
