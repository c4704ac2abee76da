"""``train``: one actor per site (or a few that share them), and one central actor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

from rayfed_hn.bags.store import SiteBags
from rayfed_hn.config import Config
from rayfed_hn.errors import FederationError
from rayfed_hn.federation.data import load_site
from rayfed_hn.federation.experiment import Plan, make_plan
from rayfed_hn.federation.record import package_versions, write_summary
from rayfed_hn.models.mil import widths
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.orchestration.actors import CentralActor, Progress, Result, SiteActor
from rayfed_hn.orchestration.resources import START_SECONDS, divide
from rayfed_hn.privacy.mechanisms import PaperNoise


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
    plan = make_plan(config, root)
    centre, actors = _start(plan, folder)
    try:
        result = _run(centre, on_version)
    finally:
        for actor in [centre, *actors]:
            ray.kill(actor)
    summary = _summary(plan, result, time.monotonic() - begun)
    write_summary(folder, summary)
    return summary


def _start(plan: Plan, folder: Path) -> tuple[Any, list[Any]]:
    config, sites = plan.config, plan.participants
    num_hosts, host_share, centre_share = divide(config, len(sites))
    resume = config.run.resume
    shares = [sites[i::num_hosts] for i in range(num_hosts)]
    actors = [
        SiteActor.options(**asdict(host_share)).remote(
            plan, names, folder, host_share.num_gpus, resume
        )
        for names in shares
    ]
    hosts = {name: actor for names, actor in zip(shares, actors, strict=True) for name in names}
    centre = CentralActor.options(**asdict(centre_share)).remote(plan, hosts, folder, resume)
    try:
        ray.get(centre.start.remote(), timeout=START_SECONDS)
    except GetTimeoutError:
        raise FederationError(
            f"the central actor did not start within {START_SECONDS:.0f} s: the cluster has no "
            f"room for {num_hosts} site actors with {host_share.num_cpus:g} CPU each; lower "
            "resources.num_hosts"
        ) from None
    return centre, actors


def _run(centre: Any, on_version: Callable[[Progress], object]) -> Result:
    for reference in centre.run.remote():
        news: Progress | Result = ray.get(reference)
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
        "num_parameters": layout.size,
        "feature_dim": plan.feature_dim,
        "hidden_dim": hidden,
        "attention_dim": attention,
        "classes": list(plan.classes),
        "noise_scale": config.privacy.noise_scale,
        "privacy": PaperNoise(config.privacy.noise_scale, config.privacy.noise_source).describe(),
        "lost_sites": [asdict(loss) for loss in result.lost],
        "set_aside": [
            {"site": name, "reason": why.reason, "remedy": why.remedy}
            for name, why in plan.set_aside
        ],
        "digest": result.digest,
        "seconds": round(seconds, 2),
        "versions": package_versions(),
    }


def _site_summary(plan: Plan, result: Result, name: str) -> dict[str, Any]:
    data = plan.config.data
    bags = load_site(
        SiteBags(plan.root, name), plan.classes, data.folds, data.fold, plan.config.run.seed
    )
    aucs = {row["readout"]: row["auc"] for row in result.rows if row["site"] == name}
    return {
        "site": name,
        "num_train": len(bags.train),
        "num_validation": len(bags.validation),
        "num_test": len(bags.test),
        "auc_last": aucs["last"],
        "auc_best": aucs["best"],
        "best_version": result.best_versions.get(name),
    }
