"""The actors: hosts of sites, and the centre that holds the hypernetwork and runs the loop.

Both are plain classes of the federation behind Ray's calls; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from rayfed_hn.federation.centre import Centre, Progress, Result
from rayfed_hn.federation.messages import Request
from rayfed_hn.federation.meter import Metered, VersionCost
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.virtual_plan import VirtualPlan
from rayfed_hn.federation.virtual_test import score_sites
from rayfed_hn.kept_memory import keep_memory
from rayfed_hn.orchestration.executor import RayExecutor
from rayfed_hn.orchestration.hosts import Care, Home
from rayfed_hn.storage.elsewhere import Share


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
        calls = RayExecutor(hosts, plan.read, Care.of(plan.config, homes))
        self._share, self._resume = Share(folder, _is_of_centre, plan.holder), resume
        device = claim_device(gpus)
        self._make = partial(Centre, plan, folder, calls, calls.restarts, resume, device)

    def start(self) -> int:
        """Take up the last commit, if asked to; returns the version to go on from."""
        if self._resume:  # here, as what is raised while an actor is made comes through as a death
            self._share.pull()
        self._centre = self._make()
        return self._centre.start()

    @ray.method(num_returns="streaming")
    def run(self) -> Iterator[Progress | Result]:
        for news in self._centre.run():
            self._share.push()
            yield news


def _is_of_centre(name: str) -> bool:
    """Of a run directory: what sites keep is theirs, but for their scores."""
    return not name.startswith("sites/") or name.endswith("/scores.parquet")


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


# A retried call would run its body twice; what to ask again is the server's decision.
SiteActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(_Sites)
CentralActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(_Centre)
MeteredActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(_MeteredCentre)
