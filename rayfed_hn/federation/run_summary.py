"""``summary.json`` of a training run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rayfed_hn.federation.centre import Result
from rayfed_hn.federation.faults import Faults
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.record import package_versions
from rayfed_hn.federation.results import READOUTS
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import widths
from rayfed_hn.models.tasks import Survival, Task


def failure_of(plan: Plan, error: Exception, faults: Faults, seconds: float) -> dict[str, Any]:
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


def summary_of(plan: Plan, result: Result, faults: Faults, seconds: float) -> dict[str, Any]:
    """Of a run that has made its last version."""
    config = plan.config
    real = not config.simulation.enabled  # simulated absences are as they were ordered
    missed = bool(result.lost or (real and result.absences))
    degraded = missed or bool(result.refused or plan.set_aside)
    return {
        "verb": "train",
        "status": "degraded" if degraded else "complete",
        "exit_code": 3 if degraded else 0,
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
        **plan_summary(plan),
        "lost_sites": [asdict(loss) for loss in result.lost],
        "set_aside": [
            {"site": name, "reason": why.reason, "remedy": why.remedy}
            for name, why in plan.set_aside
        ],
        "digest": result.digest,
        "seconds": round(seconds, 2),
        "versions": package_versions(),
    }


def plan_summary(plan: Plan) -> dict[str, Any]:
    """What is known of a run before it begins, and what its networks need to be used."""
    config, layout = plan.config, ParameterLayout.of(plan.model())
    hidden, attention = widths(plan.feature_dim, config.model)
    return {
        "method": config.method.name,
        "readout": config.evaluation.readout,
        "num_parameters": layout.size,
        "feature_dim": plan.feature_dim,
        "hidden_dim": hidden,
        "attention_dim": attention,
        "learning_rate": plan.learning_rate,
        **_task_summary(plan.task),
        "recipe_sha256": plan.recipe,
        "privacy": plan.promise(),
        "released_without_noise": plan.released_without_noise(),
        "standardise": plan.standardise,
    }


def bags_summary(plan: Plan, site: str) -> dict[str, Any]:
    """What a hospital has."""
    num_train, num_validation, num_test = plan.num_bags[site]
    return {
        "site": site,
        "num_train": num_train,
        "num_training_cases": plan.num_cases.get(site),
        "num_validation": num_validation,
        "num_test": num_test,
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
    rows = {row["readout"]: row for row in result.rows if row["site"] == name}
    values = {readout: row["value"] for readout, row in rows.items()}
    chosen = rows[plan.config.evaluation.readout]
    return {
        **bags_summary(plan, name),
        "num_updates": result.num_updates.get(name, 0),  # hospitals send none when pooled
        "num_test_slides": chosen["num_slides"],
        "num_test_cases": chosen["num_cases"],
        **{f"test_{readout}": values.get(readout) for readout in READOUTS},
        "by_slide": chosen["by_slide"],
        "by_case": chosen["by_case"],
        "best_version": result.best_versions.get(name),
    }
