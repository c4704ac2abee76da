"""Federations in which one site does not send what it trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tiny_bags import make_bag

from rayfed_hn.bags import store
from rayfed_hn.federation.experiment import Outcome, finish, prepare
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.messages import Request, TrainRequest, Update
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.results import site_rows
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.versions import VersionReport
from rayfed_hn.federation.wire import Message

SITES = ("a", "b", "c", "d", "e")
Forge = Callable[[TrainRequest, Update], Message]  # from what a site would send to what it does


def bags_of_five(root: Path, seed: int = 7, bags: int = 16) -> Path:
    """Five sites that agree on what is positive."""
    rng = np.random.default_rng(seed)
    store.create(root, {"encoder": "test", "feature_dim": 12})
    for number, site in enumerate(SITES):
        for i in range(bags):
            store.write(root, make_bag(rng, site, i, number))
    return root


@dataclass
class Hostile:
    """Hosts sites of which one forges its updates.

    Attributes:
        inner: Hosts them all, as they are.
        site: Which one.
        forge: What it sends.
    """

    inner: SiteHost
    site: str
    forge: Forge

    def answer(self, request: Request) -> Message:
        message = self.inner.answer(request)
        if not isinstance(request, TrainRequest) or request.site != self.site:
            return message
        honest = Update.from_bytes(message, self.site, request.parameters.size)
        return self.forge(request, honest)


@dataclass(frozen=True)
class Attacked:
    """What became of a federation."""

    outcome: Outcome
    reports: list[VersionReport]
    values: dict[str, float]

    def mean_of_others(self, site: str = "e") -> float:
        """Mean AUC of the sites that were honest."""
        return float(np.mean([value for name, value in self.values.items() if name != site]))


def attacked(plan: Plan, forge: Forge, site: str = "e") -> Attacked:
    """Train and test with one hostile site."""
    torch.set_num_threads(1)
    server = plan.server()
    host = Hostile(SiteHost(plan, plan.participants), site, forge)
    executor = plan.executor(InProcessExecutor(host, plan.read))
    prepare(plan, server, executor)
    reports = list(run_federation(server, executor))
    outcome = finish(plan, server, executor)
    rows = site_rows(plan, outcome.scores)
    values = {row["site"]: row["value"] for row in rows if row["readout"] == "last"}
    return Attacked(outcome, reports, values)
