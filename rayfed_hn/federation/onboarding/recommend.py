"""What a new site is told to use, decided on its labelled bags alone.

A handful of bags cannot tell which arm is best: choosing one by cross-validation loses more than
the choice is worth. So the trained arms are mixed, as in the mixture readout of sites that were
there from the start, with weights proportional to

    exp(n M_k / 4)

n being the labelled bags and M_k the metric of arm k on bags that were held out from it in
cross-validation by case. Without labelled bags it is the federation's base. Ours; the three arms
and the quarter were chosen on the sites of two federations (``docs/results.md``).

Shapes: B bags, E evidence, C arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rayfed_hn.bags.splits import assign_folds
from rayfed_hn.evaluation.judging import Truth
from rayfed_hn.federation import mixture
from rayfed_hn.federation.data import SiteBag
from rayfed_hn.federation.onboarding.arms import TRAINED, ZERO_SHOT, Arms, Fitted
from rayfed_hn.seeds import derive

TRUST = 0.25  # of a held-out bag: bags of a site are few and alike
MAX_FOLDS = 5


@dataclass(frozen=True)
class Recommendation:
    """Arms and how much each counts.

    Attributes:
        weights: Of each arm, adding up to 1.
        scales: What each arm's evidence is divided by before it is weighted.
        metrics: Of each arm on bags held out from it; None where undefined or not tried.
    """

    weights: Mapping[str, float]
    scales: Mapping[str, float]
    metrics: Mapping[str, float | None]

    def evidence(self, by_arm: Mapping[str, np.ndarray]) -> np.ndarray:
        """Evidence of the mixture, float32 (B, E), from that of every arm."""
        return mixture.combine(np.stack([by_arm[arm] for arm in self.weights]), self.shares)

    @property
    def shares(self) -> np.ndarray:
        """What the evidence of every arm is multiplied by, float64 (C,)."""
        weight_C = np.array([self.weights[arm] for arm in self.weights])
        return mixture.shares(weight_C, np.array([self.scales[arm] for arm in self.weights]))


def recommend(
    arms: Arms, fitted: Mapping[str, Fitted], bags: Sequence[SiteBag], draw: int
) -> Recommendation:
    """Weigh the arms that were fitted to these labelled bags.

    Args:
        arms: What fits them.
        fitted: Networks of all arms.
        bags: The labelled bags.
        draw: As in ``Arms.fit``.
    """
    if not bags:
        return Recommendation({ZERO_SHOT: 1.0}, {ZERO_SHOT: 1.0}, {ZERO_SHOT: None})
    names = [arm for arm in TRAINED if arm in fitted]
    evidence_CBE = np.stack([arms.evidence(fitted[arm], bags) for arm in names])
    scales = dict(zip(names, mixture.scales(evidence_CBE).tolist(), strict=True))
    metrics = _held_out(arms, names, bags, draw)
    known = [metrics[arm] for arm in names]
    defined = [value for value in known if value is not None]
    values_C = np.array(defined if len(defined) == len(names) else [0.0] * len(names))
    raised_C = np.exp(TRUST * len(bags) * (values_C - values_C.max()))
    weights = dict(zip(names, (raised_C / raised_C.sum()).tolist(), strict=True))
    return Recommendation(weights, scales, metrics)


def truth_of(bags: Sequence[SiteBag]) -> Truth:
    """What is true of bags."""
    return Truth(
        np.array([bag.label for bag in bags], np.int64),
        np.array([bag.time for bag in bags], float),
        np.array([bag.event for bag in bags], bool),
    )


def _held_out(
    arms: Arms, names: Sequence[str], bags: Sequence[SiteBag], draw: int
) -> dict[str, float | None]:
    """The metric of every arm on bags that it was not fitted to."""
    task = arms.origin.task
    strata = [task.stratum(bag) for bag in bags]
    folds = _folds(bags, strata, derive(arms.seed, "onboarding folds", arms.site, draw))
    if folds is None:
        return dict.fromkeys(names)
    evidence = {arm: np.zeros((len(bags), task.num_evidence), np.float32) for arm in names}
    for fold in np.unique(folds).tolist():
        inside = [bag for bag, own in zip(bags, folds, strict=True) if own != fold]
        outside = [bag for bag, own in zip(bags, folds, strict=True) if own == fold]
        for arm, fitted in arms.fit(inside, draw, only=names).items():
            evidence[arm][folds == fold] = arms.evidence(fitted, outside)
    truth = truth_of(bags)
    return {arm: task.judge.ranking(truth, task.predict(found)) for arm, found in evidence.items()}


@dataclass(frozen=True)
class _Unit:
    case_id: str
    site: str
    label: int


def _folds(bags: Sequence[SiteBag], strata: Sequence[int], seed: int) -> np.ndarray | None:
    """A fold for every bag, by case; None where there are fewer than three cases."""
    # Their hashes are salted, and so are others in every store: count them as they come.
    number = {case: f"{i:06}" for i, case in enumerate(dict.fromkeys(bag.case for bag in bags))}
    if len(number) < 3:
        return None
    units = [_Unit(number[b.case], "new", s) for b, s in zip(bags, strata, strict=True)]
    return np.array(assign_folds(units, min(MAX_FOLDS, len(number)), seed))
