"""How well scores tell those who were there from those who were not, with intervals.

Shapes: B candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from rayfed_hn.evaluation.metrics import auc, auc_interval

FALSE_POSITIVES = 0.01  # the rate at which true positives are reported (Carlini et al. 2022)


@dataclass(frozen=True)
class Measured:
    """What an attack achieves.

    Attributes:
        num_members, num_others: Bags that were there, and that were not.
        member_cases, other_cases: Their cases, which the intervals count once each.
        auc, auc_low, auc_high: The chance that a member scores higher than another; .5 is chance.
        tpr, tpr_low, tpr_high: Share of the members above a threshold that at most 1 % of the
            others pass (Clopper and Pearson's interval, at that threshold).
        fpr, fpr_high: Share of the others above it, and the upper end of its interval: of few
            others, none above it is as far as one can see.
    """

    num_members: int
    num_others: int
    member_cases: int
    other_cases: int
    auc: float
    auc_low: float
    auc_high: float
    tpr: float
    tpr_low: float
    tpr_high: float
    fpr: float
    fpr_high: float


def measure(
    member_B: np.ndarray, score_B: np.ndarray, case_B: np.ndarray, *, level: float
) -> Measured | None:
    """Judge an attack whose scores are higher for members, if it is any good.

    Args:
        member_B: Who was there, bool (B,).
        score_B: float (B,).
        case_B: Whose bags they are; those of one case are alike, and count once.
        level: Of the intervals.

    Returns:
        None where there are no members, or nobody else.
    """
    area = auc(member_B.astype(int), score_B)
    if area is None:
        return None
    cases = [len(np.unique(case_B[member_B == there])) for there in (True, False)]
    low, high = auc_interval(area, *cases, level=level)
    inside, outside = score_B[member_B], np.sort(score_B[~member_B])[::-1]
    allowed = math.floor(FALSE_POSITIVES * len(outside))
    threshold = outside[allowed]
    found, wrong = int((inside > threshold).sum()), int((outside > threshold).sum())
    rate, wrong_rate = found / len(inside), wrong / len(outside)
    tpr_low, tpr_high = share_interval(rate, cases[0], level=level)
    _, fpr_high = share_interval(wrong_rate, cases[1], level=level)
    return Measured(
        num_members=len(inside),
        num_others=len(outside),
        member_cases=cases[0],
        other_cases=cases[1],
        auc=area,
        auc_low=low,
        auc_high=high,
        tpr=rate,
        tpr_low=tpr_low,
        tpr_high=tpr_high,
        fpr=wrong_rate,
        fpr_high=fpr_high,
    )


def share_interval(share: float, num: int, *, level: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share of ``num`` independent units.

    Args:
        share: Observed; times ``num`` it need not be whole, where units have several bags.
        num: At least 1.
        level: Such as .95.
    """
    found, tail = share * num, (1 - level) / 2
    low = 0.0 if found == 0 else float(betaincinv(found, num - found + 1, tail))
    high = 1.0 if found == num else float(betaincinv(found + 1, num - found, 1 - tail))
    return low, high


def upper_share(found: int, num: int, *, confidence: float) -> float:
    """Clopper and Pearson's one-sided upper limit of a share; 1 of nothing."""
    return 1.0 if found == num else float(betaincinv(found + 1, num - found, confidence))


def standardised(score_B: np.ndarray) -> np.ndarray:
    """Scores of one site with mean 0 and deviation 1, so that sites can be pooled.

    Who was there is not looked at. Scores that are all the same become 0.
    """
    spread = score_B.std()
    centred = score_B - score_B.mean()
    return centred / spread if spread > 0 else np.zeros_like(centred)
