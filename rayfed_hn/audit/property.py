"""Which site is a slide from that nobody trained on? What messages tell of a population.

Slides of a hospital share stain, scanner and patients. The first layer of its updates holds a mean
of its tiles' features, and its network may know its own slides better than those of others.

Shapes: B bags, K sites, D features, P parameters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rayfed_hn.audit.measures import Measured, measure, share_interval, standardised
from rayfed_hn.audit.probes import Probe
from rayfed_hn.audit.run import AuditedRun, spread
from rayfed_hn.evaluation.metrics import auc
from rayfed_hn.federation.data import SiteBag
from rayfed_hn.federation.plan import Plan
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.standardise import FIRST_LAYER

EXCHANGES = 3  # of every site, spread evenly
ORDERS = 720  # of sites, at most; six have no more
UPDATES = "updates"  # mean features read off them
NETWORKS = "networks"  # confidence of those that were sent last


@dataclass(frozen=True)
class Attributed:
    """How well slides are put to their sites.

    Attributes:
        pairs: Of a slide with its own site against slides with others' sites.
        right, right_low, right_high: Share of slides whose own site scores highest; 1 / K is
            chance.
        chance: 1 / K.
        as_well: Share of all ways to deal the sites' messages out to the sites that put slides as
            well as the true one: what to expect if messages said nothing. Intervals are about
            slides; of few sites, this cannot be small.
    """

    pairs: Measured
    right: float
    right_low: float
    right_high: float
    chance: float
    as_well: float


def attribute(
    run: AuditedRun, on_exchange: Callable[[], object] = lambda: None
) -> dict[str, Attributed | None]:
    """Put validation and test slides to sites by two attacks; None where there is one site.

    Args:
        run: What is attacked.
        on_exchange: Called after every exchange that is looked at.
    """
    unseen = [
        (bag, number)
        for number, site in enumerate(run.sites.values())
        for bag in (*site.data.validation, *site.data.test)
    ]
    bags, own_B = [bag for bag, _ in unseen], np.array([number for _, number in unseen])
    if len(run.sites) < 2 or len(bags) == 0:
        return {UPDATES: None, NETWORKS: None}
    slide_BD = torch.stack([bag.tensor().mean(dim=0) for bag in bags])
    by_update, by_network = [], []
    for site in run.sites.values():
        some = [site.exchanges[i] for i in spread(EXCHANGES, len(site.exchanges))]
        fit_B = np.zeros(len(bags))
        for exchange in some:
            site_D = mean_features(run.plan, torch.tensor(exchange.update))
            fit_B += F.cosine_similarity(slide_BD, site_D[None], dim=1).numpy()
            on_exchange()
        by_update.append(standardised(fit_B))
        by_network.append(Probe(run.plan, some[-1].received).confidences(bags))
    level = run.plan.config.audit.level
    return {
        name: judge(np.stack(columns, axis=1), own_B, bags, level=level)
        for name, columns in ((UPDATES, by_update), (NETWORKS, by_network))
    }


def mean_features(plan: Plan, update_P: Tensor) -> Tensor:
    """The features x for which bias x^T is nearest to the weights, in the first layer of u, (D,).

    Every row is a weighted mean of the features of tiles (``inversion``); this is the mean of the
    rows that moved most.
    """
    tensors = ParameterLayout.of(plan.model()).unflatten(update_P)
    weight_HD, bias_H = (tensors[f"{FIRST_LAYER}.{name}"] for name in ("weight", "bias"))
    return bias_H @ weight_HD / bias_H.square().sum().clamp(min=1e-30)


def judge(
    score_BK: np.ndarray, own_B: np.ndarray, bags: list[SiteBag], *, level: float
) -> Attributed | None:
    """Judge scores of every slide with every site.

    Args:
        score_BK: Higher where a slide fits a site.
        own_B: Number of its own site.
        bags: Whose cases count once each.
        level: Of the intervals.
    """
    num_bags, num_sites = score_BK.shape
    score_BK = score_BK - score_BK.mean(axis=1, keepdims=True)  # some slides fit everywhere
    own_BK = np.arange(num_sites) == own_B[:, None]
    case_B = np.array([bag.case for bag in bags], np.int64)
    pairs = measure(own_BK.ravel(), score_BK.ravel(), np.repeat(case_B, num_sites), level=level)
    if pairs is None:
        return None
    top_BK = score_BK >= score_BK.max(axis=1, keepdims=True)
    right = float((top_BK[np.arange(num_bags), own_B] / top_BK.sum(axis=1)).mean())
    interval = share_interval(right, len(np.unique(case_B)), level=level)
    as_well = _as_well(score_BK, own_B, pairs.auc)
    return Attributed(pairs, right, *interval, 1 / num_sites, as_well)


def _as_well(score_BK: np.ndarray, own_B: np.ndarray, found: float) -> float:
    """A permutation test over sites: all orders of them, or many drawn ones."""
    num_sites = score_BK.shape[1]
    if math.factorial(num_sites) <= ORDERS:
        orders = [np.array(order) for order in itertools.permutations(range(num_sites))]
    else:
        rng = np.random.Generator(np.random.Philox(num_sites))
        orders = [np.arange(num_sites), *(rng.permutation(num_sites) for _ in range(ORDERS - 1))]
    good = 0
    for order in orders:
        own_BK = np.arange(num_sites) == order[own_B][:, None]
        good += (auc(own_BK.ravel().astype(int), score_BK.ravel()) or 0.0) >= found - 1e-12
    return good / len(orders)


def num_pieces(run: AuditedRun) -> int:
    """How often ``attribute`` says that it is getting on."""
    return sum(len(spread(EXCHANGES, len(site.exchanges))) for site in run.sites.values())
