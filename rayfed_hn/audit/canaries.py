"""A run with canaries: made-up bags, each there or not by a fair coin, and then to be guessed.

One run with many canaries does for a lower bound on epsilon what would else take hundreds of runs:
whatever the mechanism is, (epsilon, delta)-DP with respect to one bag bounds how many coins can be
guessed right (Steinke, Nasr and Jagielski 2023). The run is made in this process, under the run's
own mechanism, method and settings; the bags of the sites are there too.

Shapes: M canaries, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from rayfed_hn.audit.alignment import cosine
from rayfed_hn.audit.measures import standardised
from rayfed_hn.audit.probes import Probe
from rayfed_hn.audit.run import measured, on_scale
from rayfed_hn.federation.data import SiteBag, SiteData
from rayfed_hn.federation.exchanges import Exchange
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.replay import replay, replay_of
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.standardise import FIRST_LAYER, agree
from rayfed_hn.models.tasks import Task
from rayfed_hn.seeds import derive

# How long a canary's features are, in lengths of usual ones: far from all tissue, so that it leaves
# a trace of its own. Clipping is what has to hold it.
REACH = 3.0


@dataclass(frozen=True, eq=False)
class Canary:
    """A made-up bag of one tile.

    Attributes:
        site: Where it is, or is not.
        bag: What it is.
        included: Its coin.
    """

    site: str
    bag: SiteBag
    included: bool


@dataclass(frozen=True, eq=False)
class Guessed:
    """Canaries of all runs: coins and scores, both (M,)."""

    included_M: np.ndarray
    score_M: np.ndarray


def guess_canaries(plan: Plan, on_version: Callable[[], object] = lambda: None) -> Guessed:
    """Make ``audit.repeats`` runs with ``audit.canaries`` each, and score all canaries.

    Args:
        plan: Of the run under audit.
        on_version: Called after every version.
    """
    knobs, data = plan.config.audit, on_scale(plan)
    names = tuple(knobs.sites) or plan.participants
    included, scores = [], []
    for repeat in range(knobs.repeats):
        seed = derive(plan.config.run.seed, "run with canaries", knobs.seed, repeat)
        own = {name: data[name] for name in names}
        canaries = make_canaries(own, plan.task, knobs.canaries, seed)
        bags = data | with_canaries(own, canaries)
        scorer = CanaryScores(plan, canaries)
        replay(replay_of(plan, bags, seed), scorer.hear, lambda _: on_version())
        included.append([canary.included for canary in canaries])
        scores.append(scorer.pooled())
    return Guessed(np.concatenate(included), np.concatenate(scores))


def make_canaries(
    sites: Mapping[str, SiteData], task: Task, num: int, seed: int
) -> tuple[Canary, ...]:
    """Canaries of all sites in turn: orthogonal directions at a site as far as D allows.

    Args:
        sites: Whose bags they shall resemble in scale only.
        task: Gives labels, which are drawn evenly.
        num: M.
        seed: Of directions, labels and coins.
    """
    found: list[Canary] = []
    for place, (name, data) in enumerate(sorted(sites.items())):
        rng = np.random.Generator(np.random.Philox(derive(seed, "canaries", name)))
        number = len(range(place, num, len(sites)))
        template = data.train[0]
        scale = template.standardisation or agree([measured(data.train)])
        dim = template.features_ND.shape[1]
        for i, direction_D in enumerate(_directions(rng, number, dim)):
            ahead_D = REACH * np.sqrt(dim) * direction_D
            bag = replace(
                template,
                features_ND=(scale.centre_D + scale.deviation_D * ahead_D)[None].astype(np.float32),
                more=(),
                label=int(rng.integers(len(task.names))),
                event=True,
                slide=derive(seed, "canary slide", name, i),
                case=derive(seed, "canary case", name, i),
            )
            found.append(Canary(name, bag, bool(rng.integers(2))))
    return tuple(found)


def _directions(rng: np.random.Generator, number: int, dim: int) -> np.ndarray:
    """Unit vectors (number, dim)."""
    drawn = rng.normal(size=(number, dim))
    if number <= dim:
        return np.linalg.qr(drawn.T)[0].T
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def with_canaries(sites: Mapping[str, SiteData], canaries: Sequence[Canary]) -> dict[str, SiteData]:
    """The sites' data with those canaries to train on whose coin says so."""
    own: dict[str, list[SiteBag]] = {name: [] for name in sites}
    for canary in canaries:
        if canary.included:
            own[canary.site].append(canary.bag)
    return {name: replace(data, train=(*data.train, *own[name])) for name, data in sites.items()}


class CanaryScores:
    """Sums, message by message, how well every canary's gradient aligns with its site's update.

    In the weights of the first layer only: there, gradients of canaries are at right angles to each
    other, since their features are.

    Args:
        plan: Of the run.
        canaries: Whose coins are not looked at.
    """

    def __init__(self, plan: Plan, canaries: Sequence[Canary]) -> None:
        self._plan = plan
        self._bags: dict[str, list[tuple[int, SiteBag]]] = {}
        for i, canary in enumerate(canaries):
            self._bags.setdefault(canary.site, []).append((i, canary.bag))
        self._score_M = np.zeros(len(canaries))
        places = dict(ParameterLayout.of(plan.model()).places())
        self._first = places[f"{FIRST_LAYER}.weight"]

    def hear(self, exchange: Exchange) -> None:
        """Take a message."""
        own = self._bags.get(exchange.site, [])
        if own:
            probe, update_P = Probe(self._plan, exchange.received), torch.tensor(exchange.update)
            for i, bag in own:
                gradient_P = probe.gradient(bag)
                self._score_M[i] += cosine(update_P[self._first], gradient_P[self._first])

    def pooled(self) -> np.ndarray:
        """Scores of all canaries, on one scale for all sites, float64 (M,)."""
        pooled_M = np.zeros_like(self._score_M)
        for own in self._bags.values():
            places = [i for i, _ in own]
            pooled_M[places] = standardised(self._score_M[places])
        return pooled_M
