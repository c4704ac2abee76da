"""``train``: one actor per site (or a few that share them), and one central actor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rayfed_hn.config import Config
from rayfed_hn.errors import FederationError, RayfedError
from rayfed_hn.federation.centre import Progress, Result
from rayfed_hn.federation.faults import Faults
from rayfed_hn.federation.history import history
from rayfed_hn.federation.privacy_record import write_privacy
from rayfed_hn.federation.record import write_summary
from rayfed_hn.federation.run_summary import failure_of, summary_of
from rayfed_hn.orchestration.crew import Crew
from rayfed_hn.orchestration.metrics import TrainMetrics
from rayfed_hn.orchestration.surveyed import plan_where_bags_are
from rayfed_hn.points import DRIVER_ENDED, DRIVER_STARTED, DRIVER_VERSION, reached
from rayfed_hn.run_directory import run_id
from rayfed_hn.storage.claim import token_of
from rayfed_hn.storage.mirror import Mirror
from rayfed_hn.storage.remote import origin_of


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
    plan = plan_where_bags_are(config, root)
    plan = replace(plan, run_id=run_id(folder), holder=token_of(folder))
    faults = Faults(folder)
    crew = Crew(plan, folder)
    try:
        reached(DRIVER_STARTED)
        metrics = TrainMetrics(folder.name, config.method.name, config.rounds.num_versions)
        result = _run(crew, faults, metrics, on_version)
        reached(DRIVER_ENDED)
    except RayfedError as error:
        write_summary(folder, failure_of(plan, error, faults, time.monotonic() - begun))
        raise
    finally:
        crew.stop()
    _bring(folder)
    summary = summary_of(plan, result, faults, time.monotonic() - begun)
    summary |= history(folder, config.run.keep_commits)
    write_summary(folder, summary)
    write_privacy(folder, summary)
    return summary


def _bring(folder: Path) -> None:
    """What central actor and sites have kept on nodes that share no disk with this one."""
    remote = origin_of(folder)
    if remote is not None:
        Mirror(folder, remote).pull()


def _run(
    crew: Crew, faults: Faults, metrics: TrainMetrics, on_version: Callable[[Progress], object]
) -> Result:
    for news in crew.run():
        faults.note(crew.restarts, crew.centre_restarts)
        if isinstance(news, Result):
            return news
        news = replace(news, restarts=crew.restarts, centre_restarts=crew.centre_restarts)
        metrics.tell(news)
        on_version(news)
        reached(DRIVER_VERSION)
    raise FederationError("the central actor ended without a result")
