"""A run that is made again in this process, to be looked at: on the ground of no site.

Noise comes from the seed, nothing is charged to a ledger and nothing is written beside the bags:
what is made here leaves nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from rayfed_hn.federation.data import SiteData
from rayfed_hn.federation.exchanges import Exchange, Overheard
from rayfed_hn.federation.experiment import prepare
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.site_releases import SiteReleases
from rayfed_hn.federation.versions import VersionReport


@dataclass(frozen=True)
class ReplayPlan(Plan):
    """A plan whose sites may have other bags than those in the store.

    Attributes:
        bags: Of every participant, on the scale that its network sees; None: as in the store.
    """

    bags: Mapping[str, SiteData] | None = field(default=None, kw_only=True)

    @property
    def standardise(self) -> Literal["shared", "site", "none"]:
        return super().standardise if self.bags is None else "none"

    def site_data(self, name: str) -> SiteData:
        return super().site_data(name) if self.bags is None else self.bags[name]

    def log(self, participant: str) -> Path | None:
        return None

    def _releases(self, name: str, folder: Path | None) -> SiteReleases:
        return SiteReleases(name, "", self.config.privacy, None, None)


def replay_of(
    plan: Plan, bags: Mapping[str, SiteData] | None = None, seed: int | None = None
) -> ReplayPlan:
    """The plan of a run that is made again.

    Args:
        plan: Of the run.
        bags: Of every participant, on the scale that its network sees; None: the run's own.
        seed: Of everything random; None: the run's own.
    """
    config = plan.config
    config = replace(
        config,
        run=replace(config.run, seed=config.run.seed if seed is None else seed),
        privacy=replace(config.privacy, noise_source="seeded"),
        rounds=replace(config.rounds, replay=None),
    )
    known = dict(vars(plan)) | {"config": config, "run_id": "", "bags": bags}
    if bags is not None and not plan.pooled:
        known["num_bags"] = {
            name: (len(own.train), len(own.validation), len(own.test)) for name, own in bags.items()
        }
    return ReplayPlan(**known)


def replay(
    plan: ReplayPlan,
    tell: Callable[[Exchange], object],
    on_version: Callable[[VersionReport], object] = lambda report: None,
) -> Server:
    """Train without a cluster, and without the scores at the end.

    Args:
        plan: From ``replay_of``.
        tell: Called with everything that passes between the server and its sites.
        on_version: Called after every version.

    Returns:
        The server at its last version.
    """
    torch.set_num_threads(1)  # before the server computes anything
    server = plan.server()
    sites = InProcessExecutor(SiteHost(plan, plan.participants), plan.read)
    executor = plan.executor(Overheard(sites, tell))
    prepare(plan, server, executor)
    for report in run_federation(server, executor):
        on_version(report)
    return server
