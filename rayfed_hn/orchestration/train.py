"""``train``: one actor per site (or a few that share them), and one central actor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

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
from rayfed_hn.orchestration.actors import CentralActor, Progress, Result, SiteActor
from rayfed_hn.orchestration.packing import Cluster, Packing, pack
from rayfed_hn.orchestration.resources import START_SECONDS
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
    centre, actors = _start(plan, folder)
    try:
        result = _run(centre, on_version)
    finally:
        for actor in [centre, *actors]:
            ray.kill(actor)
    summary = _summary(plan, result, time.monotonic() - begun)
    summary |= history(folder, config.run.keep_commits)
    write_summary(folder, summary)
    write_privacy(folder, summary)
    return summary


def _start(plan: Plan, folder: Path) -> tuple[Any, list[Any]]:
    packing = pack(plan.config, plan.participants, Cluster.joined(plan.config))
    resume = plan.config.run.resume
    actors = start_hosts(plan, packing, folder, resume)
    handles = {site: actors[number] for site, number in packing.host_of.items()}
    gpus = packing.centre.gpus
    centre = CentralActor.options(**packing.centre.options).remote(
        plan, handles, folder, resume, gpus
    )
    begun = centre.start.remote()
    wait_for_start(packing, [begun, *(actor.ready.remote() for actor in actors)])
    get(begun)  # a site actor that failed is lost at its first request, and said to be
    return centre, actors


def start_hosts(
    plan: Plan, packing: Packing, folder: Path | None, resume: bool = False
) -> list[Any]:
    """Start the actors of all sites, without waiting for them."""
    return [
        SiteActor.options(**place.options).remote(plan, place.sites, folder, place.gpus, resume)
        for place in packing.hosts
    ]


def wait_for_start(packing: Packing, starting: list[Any]) -> None:
    """Wait for what actors answer once they are there.

    Raises:
        FederationError: They have no room.
    """
    _, waiting = ray.wait(starting, num_returns=len(starting), timeout=START_SECONDS)
    if waiting:
        options = packing.hosts[0].options
        raise FederationError(
            f"{len(waiting)} of {len(starting)} actors did not start within {START_SECONDS:.0f} s: "
            f"the cluster has no room for {len(packing.hosts)} site actors with "
            f"{options['num_cpus']:g} CPU and {options['num_gpus']:g} GPU each; raise "
            "resources.sites_per_actor, or wait for others"
        )


def get(reference: Any) -> Any:
    """The central actor's answer, or its error as it was raised there, without Ray's traceback."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, RayfedError):
            raise error.cause from None
        raise FederationError(f"the central actor failed: {error.cause!r}") from error
    except RayError as error:
        raise FederationError(
            f"the central actor died ({type(error).__name__}); run.resume=true goes on from the "
            "last commit"
        ) from error


def _run(centre: Any, on_version: Callable[[Progress], object]) -> Result:
    for reference in centre.run.remote():
        news: Progress | Result = get(reference)
        if isinstance(news, Result):
            return news
        on_version(news)
    raise FederationError("the central actor ended without a result")


def _summary(plan: Plan, result: Result, seconds: float) -> dict[str, Any]:
    config = plan.config
    degraded = bool(result.lost or plan.set_aside)
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
        "absences": result.num_absences,
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
