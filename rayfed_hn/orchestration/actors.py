"""The actors: hosts of sites, and the centre that holds the hypernetwork and runs the loop.

Both are plain classes of the federation behind Ray's calls; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from rayfed_hn.federation.board import write_board
from rayfed_hn.federation.exchanges import FOLDER, ExchangeFiles, Overheard
from rayfed_hn.federation.experiment import Outcome, finish, prepare
from rayfed_hn.federation.loop import Executor, run_federation
from rayfed_hn.federation.messages import Refused, Request, SiteLost
from rayfed_hn.federation.meter import Metered, VersionCost
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.record import RunRecord
from rayfed_hn.federation.results import score_records, site_rows
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.site_map import write_site_map
from rayfed_hn.federation.virtual_plan import VirtualPlan
from rayfed_hn.federation.virtual_test import score_sites
from rayfed_hn.kept_memory import keep_memory
from rayfed_hn.orchestration.executor import RayExecutor
from rayfed_hn.orchestration.hosts import Care, Home


def claim_device(gpus: float) -> str:
    """The device of an actor with this GPU fraction, within which it is held."""
    # Ray sets CUDA_VISIBLE_DEVICES for faked GPUs too: torch knows what is really there.
    if gpus == 0 or not torch.cuda.is_available():
        return "cpu"
    if gpus < 1:
        # Ray's fraction is bookkeeping; this is what keeps an actor within its share.
        torch.cuda.set_per_process_memory_fraction(gpus)
    return "cuda"


class _Sites:
    """One site, or several of them, with their bags; the only actor that opens bags."""

    def __init__(
        self, plan: Plan, names: Sequence[str], folder: Path | None, gpus: float, resume: bool
    ) -> None:
        self._host = SiteHost(plan, names, folder, claim_device(gpus), resume)

    def ready(self) -> None:
        """Answers once the actor has a place."""

    @ray.method(num_returns="streaming")
    def answers(self, requests: Sequence[Request]) -> Iterator[list[np.ndarray]]:
        yield from self._host.answers(requests)


@dataclass(frozen=True)
class Progress:
    """What the driver is told after each version; the ratios are means over its updates.

    ``restarts`` says how often the actor of a site was started anew, ``centre_restarts`` how often
    the central one was, which only the driver knows.
    """

    version: int
    num_alive: int
    validation_metric: float | None
    signal_to_noise: float | None = None
    restarts: Mapping[str, int] = field(default_factory=dict)
    centre_restarts: int = 0


@dataclass(frozen=True)
class Result:
    """What the driver is told at the end."""

    rows: list[dict[str, Any]]
    best_versions: dict[str, int]
    lost: tuple[SiteLost, ...]
    digest: str
    num_versions: int
    num_updates: dict[str, int]
    num_refused: int
    refused: tuple[Refused, ...]
    absences: tuple[SiteLost, ...]
    seconds: float
    busy_share: float | None
    restarts: Mapping[str, int] = field(default_factory=dict)


class _Centre:
    """Holds the rule's state (the hypernetwork), runs the loop and commits every version."""

    def __init__(
        self,
        plan: Plan,
        hosts: Mapping[str, Any],
        homes: Sequence[Home],
        folder: Path,
        resume: bool,
        gpus: float,
    ) -> None:
        torch.set_num_threads(1)
        keep_memory()
        self._plan = plan
        self._record = RunRecord(folder, plan)
        self._server = plan.server(claim_device(gpus))
        self._resume = resume
        calls = RayExecutor(hosts, plan.read, Care.of(plan.config, homes))
        self._restarts = calls.restarts
        inner: Executor = calls
        if plan.config.run.keep_messages:
            inner = Overheard(inner, ExchangeFiles(folder / FOLDER).write)
        self._executor = plan.executor(inner)

    def start(self) -> int:
        """Take up the last commit, if asked to; returns the version to go on from."""
        if not self._resume or not self._record.resume(self._server, self._executor):
            self._record.begin(self._server, self._plan.begin_line())
        return self._server.version

    @ray.method(num_returns="streaming")
    def run(self) -> Iterator[Progress | Result]:
        prepare(self._plan, self._server, self._executor)
        for report in run_federation(self._server, self._executor):
            self._record.commit(self._server, report, self._executor)
            news = Progress(
                report.version,
                report.num_alive,
                report.mean_validation_metric,
                report.mean_signal_to_noise,
                dict(self._restarts),
            )
            del report  # with its updates, before the next version has its own
            yield news
        outcome = finish(self._plan, self._server, self._executor)
        self._record.scores(score_records(self._plan, outcome.scores))
        self._record.finish(self._server.version, outcome.scores)
        folder, rows = self._record.folder, site_rows(self._plan, outcome.scores)
        sites = write_site_map(folder, self._server)
        write_board(folder / "tensorboard", self._plan.config, rows, sites)
        yield replace(_result(self._plan, outcome), restarts=dict(self._restarts))


class _MeteredCentre:
    """Runs the loop on the clock, and tests what came of it; nothing is committed."""

    def __init__(
        self, plan: VirtualPlan, hosts: Mapping[str, Any], host_of: Mapping[str, int], gpus: float
    ) -> None:
        torch.set_num_threads(1)
        keep_memory()
        self._plan = plan
        self._run = Metered(
            plan, host_of, lambda read: RayExecutor(hosts, read), claim_device(gpus)
        )

    def start(self) -> None:
        """Answers once the actor has a place."""

    @ray.method(num_returns="streaming")
    def run(self) -> Iterator[VersionCost]:
        yield from self._run.versions()

    def test(self) -> dict[str, Any] | None:
        """How good the last networks are; asked for when memory has been looked at."""
        return score_sites(self._plan, self._run.server, self._run.executor)


def _result(plan: Plan, outcome: Outcome) -> Result:
    return Result(
        rows=site_rows(plan, outcome.scores),
        best_versions={
            hospital: int(version)
            for scores in outcome.scores
            for hospital, version in zip(
                plan.origins(scores.site), scores.best_version_O, strict=True
            )
        },
        lost=outcome.lost,
        digest=outcome.digest,
        num_versions=outcome.server.version,
        num_updates=outcome.server.num_updates,
        num_refused=outcome.server.num_refused,
        refused=outcome.server.refused,
        absences=outcome.absences,
        seconds=outcome.seconds,
        busy_share=outcome.busy_share,
    )


# A retried call would run its body twice; what to ask again is the server's decision.
SiteActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(_Sites)
CentralActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(_Centre)
MeteredActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(_MeteredCentre)
