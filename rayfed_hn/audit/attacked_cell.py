"""One cell of a comparison, attacked while its messages are at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rayfed_hn.audit.membership import by_alignment
from rayfed_hn.audit.run import KEPT, Heard, audited
from rayfed_hn.config import RELEASE_NOTHING, Config
from rayfed_hn.federation.cell import Cell, run_cell
from rayfed_hn.federation.plan import make_plan


def attacked_cell(cell: Cell, config: Config, root: Path) -> dict[str, Any]:
    """Train and test one cell, and tell by its updates which slides it was trained on.

    Returns:
        What ``run_cell`` does, and ``membership_auc``; None where nothing is released, or no site
        has both slides that were trained on and others.
    """
    if not config.compare.attack or cell.method in RELEASE_NOTHING:
        return run_cell(cell, config, root)
    plan = make_plan(cell.config(config), root)
    heard = Heard(plan)
    found = run_cell(cell, config, root, heard.tell)
    measured = by_alignment(audited(plan, heard.chosen(), KEPT))
    return {**found, "membership_auc": None if measured is None else measured.auc}
