"""Was a slide trained on? By what the site's released network says of it.

Shapes: B bags, K shadow trainings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from rayfed_hn.audit.probes import Probe
from rayfed_hn.audit.run import AuditedRun, AuditedSite
from rayfed_hn.federation.data import SiteBag, halves
from rayfed_hn.federation.exchanges import Exchange
from rayfed_hn.federation.messages import TrainRequest
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.site_memory import SiteMemory
from rayfed_hn.federation.site_trainer import SiteTrainer
from rayfed_hn.seeds import derive

SMALLEST = 1e-6  # variance of confidences, below which they are all the same
FEWEST = 4  # bags that halves can be made of


def likelihood_ratios(
    run: AuditedRun,
    site: AuditedSite,
    exchange: Exchange,
    bags: tuple[SiteBag, ...],
    on_shadow: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """Of every bag, log p(confidence | trained on) - log p(confidence | not), float64 (B,).

    Online LiRA on one exchange: shadows are trained from the very network that the site received,
    under the run's own mechanism, on class-stratified random halves of these bags; every half has
    its complement, so that each bag is in half of the shadows. Normal distributions are fitted to a
    bag's confidence with and without it (``log_ratios``). That the network was trained on members
    before shifts both alike.

    Source: Carlini et al. 2022 (Membership inference attacks from first principles), algorithm 1.

    Args:
        run: What is attacked.
        site: Whose message.
        exchange: Which.
        bags: Of the site, members and others, at least ``FEWEST``.
        on_shadow: Called after each shadow.
    """
    confidence_KB, inside_KB = [], []
    for half, released_P in _shadows(run.plan, site, exchange, bags):
        members = {bag.slide for bag in half}
        confidence_KB.append(Probe(run.plan, released_P).confidences(bags))
        inside_KB.append([bag.slide in members for bag in bags])
        on_shadow()
    target_B = Probe(run.plan, exchange.released).confidences(bags)
    return log_ratios(target_B, np.array(confidence_KB), np.array(inside_KB))


def log_ratios(
    target_B: np.ndarray, confidence_KB: np.ndarray, inside_KB: np.ndarray
) -> np.ndarray:
    """Of normal distributions: a centre of every bag's own; one shift and variance for all bags.

    Confidence ~ N(centre_b +- shift / 2, variance), + where it was trained on. A shift of every
    bag's own would take many more shadows: with sixteen, its error is as large as itself.

    Args:
        target_B: Confidences of the network under attack.
        confidence_KB: Of the shadows.
        inside_KB: Which shadows were trained on which bags; each bag in at least one, and not in
            all.
    """
    mean_inside_B, mean_outside_B = (
        (confidence_KB * there_KB).sum(axis=0) / there_KB.sum(axis=0)
        for there_KB in (inside_KB, ~inside_KB)
    )
    expected_KB = np.where(inside_KB, mean_inside_B, mean_outside_B)
    # Two means take two degrees of freedom of every bag.
    freedom = max(1, confidence_KB.size - 2 * len(target_B))
    variance = max(SMALLEST, float(np.square(confidence_KB - expected_KB).sum()) / freedom)
    shift = float((mean_inside_B - mean_outside_B).mean())
    return (target_B - (mean_inside_B + mean_outside_B) / 2) * shift / variance


def _shadows(
    plan: Plan, site: AuditedSite, exchange: Exchange, bags: tuple[SiteBag, ...]
) -> Iterator[tuple[tuple[SiteBag, ...], np.ndarray]]:
    """Halves of the bags, and the networks that were trained on them as released."""
    knobs, seed = plan.config.audit, plan.config.run.seed
    strata = [plan.task.stratum(bag) for bag in bags]
    key = knobs.seed, site.name, exchange.turn
    for pair in range(knobs.shadows // 2):
        parts = halves(bags, strata, derive(seed, "shadow halves", *key, pair))
        for number, half in enumerate(parts):
            own = derive(seed, "shadow training", *key, pair, number)
            yield half, train_again(plan, site, exchange, half, own)


def train_again(
    plan: Plan, site: AuditedSite, exchange: Exchange, bags: tuple[SiteBag, ...], seed: int
) -> np.ndarray:
    """What the site would have released, had it had these bags, and other draws: float32 (P,)."""
    setup = plan.setup(site.name)
    config = replace(setup.config, run=replace(setup.config.run, seed=seed))
    setup = replace(setup, config=config, noise_source="seeded")
    trainer = SiteTrainer(replace(site.data, train=bags), setup, SiteMemory(None))
    request = TrainRequest(site.name, exchange.version, exchange.received, exchange.turn)
    received = torch.tensor(exchange.received)
    job = trainer.job(request, received, {})
    released = trainer.release(request, job, trainer.train(job), {})
    return (received - trainer.whole(released.update)).numpy()
