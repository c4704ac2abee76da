"""One cell of a comparison: a method trained in this process on one division of the cases."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rayfed_hn.bags.tile_filter import tile_filter
from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, SetAside
from rayfed_hn.federation.data import Folds
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.federation.record import metric_records
from rayfed_hn.federation.results import score_records, site_rows


@dataclass(frozen=True)
class Cell:
    """Which method, seed and fold."""

    method: str
    seed: int
    fold: int

    @property
    def name(self) -> str:
        """File-name friendly."""
        return f"{self.method}-seed{self.seed}-fold{self.fold}"

    def config(self, base: Config) -> Config:
        """The training configuration of this cell."""
        return replace(
            base,
            method=replace(base.method, name=self.method),
            run=replace(base.run, seed=self.seed),
            data=replace(base.data, folds=base.compare.folds, fold=self.fold),
        )


def cells(config: Config) -> list[Cell]:
    """All cells; methods innermost, so that an interrupted comparison is a balanced one.

    Raises:
        ConfigError: The order of one run is to be followed by many.
    """
    if config.rounds.replay is not None:
        raise ConfigError("rounds.replay: follows one run, and compare makes many; use train")
    return [
        Cell(method, config.run.seed + seed, fold)
        for seed in range(config.compare.seeds)
        for fold in range(config.compare.folds)
        for method in config.compare.methods
    ]


_RELEVANT = (
    *("task", "model", "training", "hypernetwork", "rounds", "simulation", "privacy"),
    "evaluation",
)


def fingerprint(config: Config, store_digest: str) -> str:
    """What a finished cell depends on besides itself: a cell with another one is not reused."""
    relevant = {section: value for section, value in asdict(config).items() if section in _RELEVANT}
    relevant |= {"positive_label": config.data.positive_label, "folds": config.compare.folds}
    relevant |= {"tables": Folds.of(config).digest, "tiles": tile_filter(config.data)}
    return hashlib.sha256(f"{sorted(relevant.items())} {store_digest}".encode()).hexdigest()


def run_cell(cell: Cell, config: Config, root: Path) -> dict[str, Any]:
    """Train and test one cell.

    Returns:
        JSON-ready ``rows``, ``scores``, ``metrics``, ``lost`` and ``set_aside``, each record
        naming method, seed and fold; and ``validation_metric``, of the last networks, mean over
        sites.
    """
    key = asdict(cell)
    plan = make_plan(cell.config(config), root)
    metrics: list[dict[str, Any]] = []
    outcome = run_in_process(plan, lambda report: metrics.extend(metric_records(report)))
    defined = [s.validation_metric for s in outcome.scores if s.validation_metric is not None]
    return {
        "cell": key,
        "rows": [{**key, **row} for row in site_rows(plan, outcome.scores)],
        "scores": [{**key, **row} for row in score_records(plan, outcome.scores)],
        "metrics": [{**key, **row} for row in metrics],
        "lost": [{**key, **asdict(loss)} for loss in outcome.lost],
        "set_aside": [{**key, "site": name, **_words(why)} for name, why in plan.set_aside],
        "classes": list(plan.task.names),
        "task": plan.task.kind,
        "validation_metric": sum(defined) / len(defined) if defined else None,
    }


def _words(why: SetAside) -> dict[str, str]:
    return {"reason": why.reason, "remedy": why.remedy}
