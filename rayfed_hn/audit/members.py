"""Who was trained on, and who could have been: the truth that attacks are judged by.

Shapes: B bags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rayfed_hn.audit.run import AuditedSite
from rayfed_hn.federation.data import SiteBag
from rayfed_hn.federation.exchanges import Exchange
from rayfed_hn.federation.messages import TrainRequest
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.site_memory import SiteMemory
from rayfed_hn.federation.site_trainer import SiteTrainer
from rayfed_hn.models.training import Draws

DRAWN = "training bags that a step was taken on, as the draws follow from the seed"
ALL = "all training bags, since who takes part in a private step is not written down"


@dataclass(frozen=True, eq=False)
class Candidates:
    """Bags of a site whose membership is known.

    Attributes:
        bags: Members and others of the same site; training bags that were never drawn are neither.
        member_B: bool (B,).
        case_B: Opaque cases, int64 (B,).
    """

    bags: tuple[SiteBag, ...]
    member_B: np.ndarray
    case_B: np.ndarray

    @property
    def tells(self) -> bool:
        """Whether there are members and others."""
        return bool(self.member_B.any() and not self.member_B.all())


def candidates(plan: Plan, site: AuditedSite, exchanges: Sequence[Exchange]) -> Candidates:
    """Members of what was sent in these exchanges, and bags that were never trained on.

    Others are validation and test bags; the test bags alone where validation decides when to stop.
    """
    members = [bag for bag in site.data.train if bag.slide in trained_on(plan, site, exchanges)]
    others = [*site.data.test]
    if plan.config.training.patience is None:
        others += site.data.validation
    bags = (*members, *others)
    member_B = np.arange(len(bags)) < len(members)
    return Candidates(bags, member_B, np.array([bag.case for bag in bags], np.int64))


def trained_on(plan: Plan, site: AuditedSite, exchanges: Sequence[Exchange]) -> frozenset[int]:
    """The slides that at least one step of these exchanges was taken on."""
    trainer = SiteTrainer(site.data, plan.setup(site.name), SiteMemory(None))
    found: set[int] = set()
    for exchange in exchanges:
        request = TrainRequest(site.name, exchange.version, exchange.received, exchange.turn)
        job = trainer.job(request, torch.tensor(exchange.received), {})
        if job.private is not None:
            return frozenset(bag.slide for bag in site.data.train)
        draws = Draws(
            job.bags,
            plan.config.training,
            task=plan.task,
            num_steps=job.num_steps,
            seed=job.seed,
            device="cpu",
        )
        bags = [bag for bag in job.bags if isinstance(bag, SiteBag)]
        found |= {bags[index].slide for index in draws.order[: exchange.num_steps]}
    return frozenset(found)


def told(plan: Plan) -> str:
    """Who counts as a member, in words."""
    private = plan.config.privacy.mechanism == "slide_dpsgd" and plan.shares
    return ALL if private else DRAWN
