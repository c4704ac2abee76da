"""What a run promises, beside what attacks on its mechanism have found."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rayfed_hn.audit.bound import Bound, bound_of_scores, gaussian_bound
from rayfed_hn.audit.canaries import Guessed, guess_canaries
from rayfed_hn.audit.coins import play_sites
from rayfed_hn.audit.measures import Measured, measure
from rayfed_hn.audit.progress import Progress, counted
from rayfed_hn.federation.plan import Plan
from rayfed_hn.privacy.accounting import gaussian_epsilon
from rayfed_hn.privacy.mechanisms import SiteGaussian, promised

BAGS = "bags"  # made-up ones, in one run
SITES = "sites"  # whole ones, by the number of right guesses
GAUSSIAN = "sites_gaussian"  # the same, as Gaussian noise


@dataclass(frozen=True)
class PromiseCheck:
    """One lower bound beside the promise that it is about.

    Attributes:
        by: Which canaries.
        bound: What was found.
        promised: Epsilon of the run towards such canaries; None without a formal guarantee.
        guessing: How well scores tell canaries that were there from those that were not.
    """

    by: str
    bound: Bound
    promised: float | None
    guessing: Measured | None

    @property
    def broken(self) -> bool:
        """Whether more was found than is promised."""
        return self.promised is not None and self.bound.epsilon > self.promised


def bounds(plan: Plan, progress: Progress) -> list[PromiseCheck]:
    """Bound epsilon from below by canaries.

    The confidence is divided among the bounds, so that a promise that holds is called broken with
    the chance 1 - ``audit.level`` at most.
    """
    mechanism, knobs = plan.mechanism(), plan.config.audit
    delta = plan.config.privacy.target_delta
    of_sites = isinstance(mechanism, SiteGaussian)
    confidence = 1 - (1 - knobs.level) / (3 if of_sites else 1)
    total = knobs.repeats * plan.config.rounds.num_versions
    guessed = guess_canaries(plan, counted(progress, "runs with canaries", total))
    at = {"delta": delta, "confidence": confidence}
    bound = bound_of_scores(guessed.included_M, guessed.score_M, **at)
    found = [PromiseCheck(BAGS, bound, towards_bag(plan), _told(guessed, knobs.level))]
    if isinstance(mechanism, SiteGaussian):
        played = play_sites(plan, mechanism, counted(progress, "sites played", knobs.coins))
        told, epsilon = _told(played, knobs.level), promised_epsilon(plan)
        bound = bound_of_scores(played.included_M, played.score_M, **at)
        found.append(PromiseCheck(SITES, bound, epsilon, told))
        bound = gaussian_bound(played.included_M, played.score_M > 0, **at)
        found.append(PromiseCheck(GAUSSIAN, bound, epsilon, told))
    return found


def promised_epsilon(plan: Plan) -> float | None:
    """Of a site after the whole run; None without a formal guarantee."""
    epsilon = promised(
        plan.mechanism(),
        releases=plan.config.rounds.num_versions,
        steps=plan.config.training.steps,
        delta=plan.config.privacy.target_delta,
    )
    return epsilon if math.isfinite(epsilon) else None


def towards_bag(plan: Plan) -> float | None:
    """What the run promises of the presence of a single bag.

    ``neighbouring=zero_out`` speaks of a site's data against an update of zero: two sets of data
    that differ in a bag are twice as far apart.
    """
    mechanism = plan.mechanism()
    if isinstance(mechanism, SiteGaussian) and mechanism.neighbouring == "zero_out":
        mu = 2 * math.sqrt(plan.config.rounds.num_versions) / mechanism.multiplier
        epsilon = gaussian_epsilon(mu, plan.config.privacy.target_delta)
        return epsilon if math.isfinite(epsilon) else None
    return promised_epsilon(plan)


def _told(guessed: Guessed, level: float) -> Measured | None:
    each_M = np.arange(len(guessed.score_M))
    return measure(guessed.included_M, guessed.score_M, each_M, level=level)
