"""One cell of a comparison: a method trained in this process on one division of the cases."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rayfed_hn.bags.tile_filter import tile_filter
from rayfed_hn.config import RELEASE_NOTHING, Config
from rayfed_hn.errors import ConfigError, SetAside
from rayfed_hn.federation.curves import metric_records
from rayfed_hn.federation.data import Folds
from rayfed_hn.federation.exchanges import Exchange
from rayfed_hn.federation.experiment import Outcome, run_in_process
from rayfed_hn.federation.meter import Meter
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.results import score_records, site_rows
from rayfed_hn.federation.versions import VersionReport


@dataclass(frozen=True)
class Cell:
    """Which method, seed and fold, and how much noise.

    Attributes:
        noise: Of ``compare.noise``; None: as ``privacy`` says, or nothing is released.
    """

    method: str
    seed: int
    fold: int
    noise: float | None = None

    @property
    def name(self) -> str:
        """File-name friendly; of every number its shortest exact form."""
        noise = "" if self.noise is None else f"-noise{self.noise!r}"
        return f"{self.method}-seed{self.seed}-fold{self.fold}{noise}"

    @property
    def key(self) -> dict[str, Any]:
        """What its records are known by, JSON-ready."""
        found = asdict(self)
        return found if self.noise is not None else {k: found[k] for k in found if k != "noise"}

    def config(self, base: Config) -> Config:
        """The training configuration of this cell."""
        return replace(
            base,
            method=replace(base.method, name=self.method),
            privacy=base.privacy if self.noise is None else base.privacy.at(self.noise),
            run=replace(base.run, seed=self.seed),
            data=replace(base.data, folds=base.compare.folds, fold=self.fold),
        )


def cells(config: Config) -> list[Cell]:
    """All cells; methods and noise innermost, so that an interrupted comparison is a balanced one.

    Raises:
        ConfigError: The order of one run is to be followed by many, or sites are to charge for what
            is only tried.
    """
    if config.rounds.replay is not None:
        raise ConfigError("rounds.replay: follows one run, and compare makes many; use train")
    if config.privacy.noise_source == "os":
        raise ConfigError(
            "privacy.noise_source: os charges the ledgers of the sites, and the cells of compare "
            "are simulations; leave it unset, or use train"
        )
    return [
        Cell(method, config.run.seed + seed, fold, noise)
        for seed in range(config.compare.seeds)
        for fold in range(config.compare.folds)
        for method in config.compare.methods
        for noise in _amounts(config, method)
    ]


def _amounts(config: Config, method: str) -> list[float | None]:
    """How much noise a method is tried with: one that releases nothing, with none."""
    return [None] if method in RELEASE_NOTHING else [*config.compare.noise] or [None]


def check_cells(config: Config, root: Path) -> Plan:
    """Refuse what cannot work before all cells find out; returns the plan of one of them.

    Raises:
        ConfigError, DataError: As ``make_plan`` says.
    """
    todo = cells(config)
    noised = [cell for cell in todo if cell.method not in RELEASE_NOTHING]
    return make_plan((noised or todo)[-1].config(config), root)


def promises(config: Config, root: Path) -> list[dict[str, Any]]:
    """What a run of ``train`` would promise with every amount of noise, if its noise were secret.

    Returns:
        Of every amount its ``noise`` (None where it is not varied), ``promise`` and what would
        leave a site ``without_noise``; nothing if no method releases anything.

    Raises:
        ConfigError, DataError: As ``check_cells`` does.
    """
    plan, found = check_cells(config, root), []
    if not plan.shares:
        return []
    for noise in [*config.compare.noise] or [None]:
        cell = Cell(plan.config.method.name, config.run.seed, 0, noise)
        plan = make_plan(cell.config(config), root)
        told = {"promise": plan.promise(), "without_noise": plan.released_without_noise()}
        found.append({"noise": noise, **told})
    return found


_RELEVANT = (
    *("task", "model", "training", "hypernetwork", "rounds", "simulation", "privacy"),
    "evaluation",
)


def fingerprint(config: Config, store_digest: str) -> str:
    """What a finished cell depends on besides itself: a cell with another one is not reused."""
    relevant = {section: value for section, value in asdict(config).items() if section in _RELEVANT}
    relevant["evaluation"].pop("attention_maps")  # cells draw none
    relevant |= {"positive_label": config.data.positive_label, "folds": config.compare.folds}
    relevant |= {"tables": Folds.of(config).digest, "tiles": tile_filter(config.data)}
    if config.compare.attack:
        relevant["attacked"] = config.audit.exchanges
    return hashlib.sha256(f"{sorted(relevant.items())} {store_digest}".encode()).hexdigest()


def run_cell(
    cell: Cell,
    config: Config,
    root: Path,
    tell: Callable[[Exchange], object] | None = None,
) -> dict[str, Any]:
    """Train and test one cell.

    Args:
        cell: Which.
        config: Of the comparison.
        root: The bag store.
        tell: Called with everything that passes between the server and its sites.

    Returns:
        JSON-ready ``rows``, ``scores``, ``metrics``, ``lost``, ``refused`` and ``set_aside``, each
        record naming method, seed and fold (and noise, if asked for); ``validation_metric``, of
        the last networks, mean over sites; and ``costs``: of every version the bytes that the
        server sent and received for it (the first includes what sites agree on before), likewise
        ``scoring``, ``seconds`` that the cell took, and ``time``, simulated or None.
    """
    key, begun = cell.key, time.perf_counter()
    plan = make_plan(cell.config(config), root)
    outcome, metrics, costs = _trained(plan, tell)
    defined = [s.validation_metric for s in outcome.scores if s.validation_metric is not None]
    return {
        "cell": key,
        "rows": [{**key, **row} for row in site_rows(plan, outcome.scores)],
        "scores": [{**key, **row} for row in score_records(plan, outcome.scores)],
        "metrics": [{**key, **row} for row in metrics],
        "lost": [{**key, **asdict(loss)} for loss in outcome.lost],
        "refused": [{**key, **asdict(refused)} for refused in outcome.server.refused],
        "set_aside": [{**key, "site": name, **_words(why)} for name, why in plan.set_aside],
        "classes": list(plan.task.names),
        "task": plan.task.kind,
        "validation_metric": sum(defined) / len(defined) if defined else None,
        "costs": {**costs, "seconds": time.perf_counter() - begun},
    }


def _trained(
    plan: Plan, tell: Callable[[Exchange], object] | None
) -> tuple[Outcome, list[dict[str, Any]], dict[str, Any]]:
    """Train and score; what came of it, records of all updates, and bytes with simulated time."""
    metrics: list[dict[str, Any]] = []
    versions: list[dict[str, int]] = []
    meter = Meter({name: number for number, name in enumerate(plan.participants)}, plan.read)

    def hear(report: VersionReport) -> None:
        metrics.extend(metric_records(report))
        versions.append({"version": report.version, **_moved(meter)})

    outcome = run_in_process(plan, hear, tell, meter)
    costs = {"versions": versions, "scoring": _moved(meter)}
    simulated = outcome.busy_share is not None
    return outcome, metrics, {**costs, "time": outcome.seconds if simulated else None}


def _moved(meter: Meter) -> dict[str, int]:
    """Bytes since the last call."""
    sums = meter.take()
    return {name: int(sums.get(name, 0)) for name in ("bytes_down", "bytes_up")}


def _words(why: SetAside) -> dict[str, str]:
    return {"reason": why.reason, "remedy": why.remedy}
