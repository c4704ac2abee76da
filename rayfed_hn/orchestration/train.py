"""``train``: one actor per site (or a few that share them), and one central actor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rayfed_hn.bags.store import read_recipe, recipe_digest
from rayfed_hn.config import Config
from rayfed_hn.errors import FederationError, RayfedError
from rayfed_hn.federation.history import history
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.privacy_record import write_privacy
from rayfed_hn.federation.record import package_versions, write_summary
from rayfed_hn.federation.results import READOUTS
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import widths
from rayfed_hn.models.tasks import Survival, Task
from rayfed_hn.orchestration.actors import Progress, Result
from rayfed_hn.orchestration.crew import Crew
from rayfed_hn.orchestration.faults import Faults
from rayfed_hn.points import DRIVER_ENDED, DRIVER_STARTED, DRIVER_VERSION, reached
from rayfed_hn.run_directory import run_id


def train(
    config: Config, root: Path, folder: Path, on_version: Callable[[Progress], object]
) -> dict[str, Any]:
    """Train a federation on the joined cluster, write its run directory, return the summary.

    Args:
        config: Checked configuration.
        root: The bag store.
        folder: The run directory.
        on_version: Called after each version, for progress.

    Raises:
        DataError: The bag store or the checkpoint does not fit the configuration.
        FederationError: All sites were lost, or the actors did not start.
    """
    begun = time.monotonic()
    plan = replace(make_plan(config, root), run_id=run_id(folder))
    faults = Faults(folder)
    crew = Crew(plan, folder)
    try:
        reached(DRIVER_STARTED)
        result = _run(crew, faults, on_version)
        reached(DRIVER_ENDED)
    except RayfedError as error:
        write_summary(folder, _failure(plan, error, faults, time.monotonic() - begun))
        raise
    finally:
        crew.stop()
    summary = _summary(plan, result, faults, time.monotonic() - begun)
    summary |= history(folder, config.run.keep_commits)
    write_summary(folder, summary)
    write_privacy(folder, summary)
    return summary


def _run(crew: Crew, faults: Faults, on_version: Callable[[Progress], object]) -> Result:
    for news in crew.run():
        faults.note(crew)
        if isinstance(news, Result):
            return news
        on_version(replace(news, restarts=crew.restarts, centre_restarts=crew.centre_restarts))
        reached(DRIVER_VERSION)
    raise FederationError("the central actor ended without a result")


def _failure(plan: Plan, error: Exception, faults: Faults, seconds: float) -> dict[str, Any]:
    """Of a run that ended before its last version; what it has released is charged all the same."""
    return {
        "verb": "train",
        "status": "failed",
        "exit_code": 1,
        "reason": str(error),
        "method": plan.config.method.name,
        "privacy": plan.promise(),
        "released_without_noise": plan.released_without_noise(),
        "restarts": faults.restarts,
        "centre_restarts": faults.centre_restarts,
        "lost_sites": [],
        "seconds": round(seconds, 2),
        "versions": package_versions(),
    }


def _summary(plan: Plan, result: Result, faults: Faults, seconds: float) -> dict[str, Any]:
    config = plan.config
    real = not config.simulation.enabled  # simulated absences are as they were ordered
    missed = bool(result.lost or (real and result.absences))
    degraded = missed or bool(result.refused or plan.set_aside)
    layout = ParameterLayout.of(plan.model())
    hidden, attention = widths(plan.feature_dim, config.model)
    return {
        "verb": "train",
        "status": "degraded" if degraded else "complete",
        "exit_code": 3 if degraded else 0,
        "method": config.method.name,
        "readout": config.evaluation.readout,
        "sites": [_site_summary(plan, result, name) for name in plan.hospitals],
        "num_versions": result.num_versions,
        "clock": "simulated" if config.simulation.enabled else "real",
        "clock_seconds": round(result.seconds, 3),
        "busy_share": result.busy_share,
        "num_refused": result.num_refused,
        "refused": [asdict(refused) for refused in result.refused],
        "absences": len(result.absences),
        "absent": [asdict(loss) for loss in result.absences] if real else [],
        "restarts": faults.restarts,
        "centre_restarts": faults.centre_restarts,
        "num_parameters": layout.size,
        "feature_dim": plan.feature_dim,
        "hidden_dim": hidden,
        "attention_dim": attention,
        "learning_rate": plan.learning_rate,
        **_task_summary(plan.task),
        "recipe_sha256": recipe_digest(read_recipe(plan.root)),
        "privacy": plan.promise(),
        "released_without_noise": plan.released_without_noise(),
        "standardise": plan.standardise,
        "lost_sites": [asdict(loss) for loss in result.lost],
        "set_aside": [
            {"site": name, "reason": why.reason, "remedy": why.remedy}
            for name, why in plan.set_aside
        ],
        "digest": result.digest,
        "seconds": round(seconds, 2),
        "versions": package_versions(),
    }


def _task_summary(task: Task) -> dict[str, Any]:
    return {
        "task": task.kind,
        "unit": task.unit,
        "metric": task.judge.name,
        "classes": list(task.names),
        "cuts": list(task.cuts) if isinstance(task, Survival) else [],
    }


def _site_summary(plan: Plan, result: Result, name: str) -> dict[str, Any]:
    num_train, num_validation, num_test = plan.num_bags[name]
    rows = {row["readout"]: row for row in result.rows if row["site"] == name}
    values = {readout: row["value"] for readout, row in rows.items()}
    chosen = rows[plan.config.evaluation.readout]
    return {
        "site": name,
        "num_train": num_train,
        "num_training_cases": plan.num_cases.get(name),
        "num_validation": num_validation,
        "num_test": num_test,
        "num_updates": result.num_updates.get(name, 0),  # hospitals send none when pooled
        "num_test_slides": chosen["num_slides"],
        "num_test_cases": chosen["num_cases"],
        **{f"test_{readout}": values.get(readout) for readout in READOUTS},
        "by_slide": chosen["by_slide"],
        "by_case": chosen["by_case"],
        "best_version": result.best_versions.get(name),
    }
