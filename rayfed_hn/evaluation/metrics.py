"""Metrics of scores against labels (0 or 1), None where they are undefined: never a stand-in."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri


def auc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Return the area under the ROC curve.

    It is the chance that a positive bag scores higher than a negative one, a tie counting half
    (Hanley and McNeil 1982), computed from mid-ranks.

    Args:
        labels: B labels, 0 or 1.
        scores: B scores; only their order matters.

    Returns:
        The area, or None where a class is missing.

    Raises:
        ValueError: A score is NaN, a label is neither 0 nor 1, or the lengths differ.
    """
    label_B, score_B = _checked(labels, scores)
    num_positive = int(label_B.sum())
    num_negative = len(label_B) - num_positive
    if num_positive == 0 or num_negative == 0:
        return None
    _, inverse_B, count_V = np.unique(score_B, return_inverse=True, return_counts=True)
    # Mid-ranks are multiples of one half, so the sum below is exact.
    midrank_V = np.cumsum(count_V) - (count_V - 1) / 2
    rank_sum = midrank_V[inverse_B][label_B].sum()
    won = rank_sum - num_positive * (num_positive + 1) / 2
    return float(won / (num_positive * num_negative))


def auc_interval(
    value: float, num_positive: int, num_negative: int, *, level: float
) -> tuple[float, float]:
    """Return a score-type interval of an AUC (Newcombe 2006, method 5).

    It inverts the variance of Hanley and McNeil with both class sizes in its numerator replaced by
    their mean, so that it is asymmetric and has a width even where every pair is in order. Give
    numbers of cases rather than of bags where cases have several: bags of a case are alike.

    Args:
        value: The AUC.
        num_positive: Independent units of class 1, at least 1.
        num_negative: Independent units of class 0, at least 1.
        level: Such as 0.95.

    Raises:
        ValueError: A number is below 1, or ``value`` or ``level`` is outside 0 to 1.
    """
    if min(num_positive, num_negative) < 1 or not 0 <= value <= 1 or not 0 < level < 1:
        raise ValueError(f"no interval for an AUC of {value} from {num_positive}, {num_negative}")
    pairs, mean_size = num_positive * num_negative, (num_positive + num_negative) / 2
    z = float(ndtri((1 + level) / 2))

    def lowest(found: float) -> float:
        inside, outside = found, 0.0
        while (middle := (inside + outside) / 2) not in (inside, outside):
            inflation = 1 + (mean_size - 1) * ((1 - middle) / (2 - middle) + middle / (1 + middle))
            reach = z * math.sqrt(middle * (1 - middle) * inflation / pairs)
            inside, outside = (middle, outside) if found - middle <= reach else (inside, middle)
        return inside

    return lowest(value), 1 - lowest(1 - value)  # the variance is the same at 1 - AUC


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates from (0, 0) to (1, 1), one point per distinct score.

    Raises:
        ValueError: As for ``auc``, or a class is missing.
    """
    label_B, score_B = _checked(labels, scores)
    if label_B.all() or not label_B.any():
        raise ValueError("a ROC curve needs both classes")
    distinct_V, inverse_B = np.unique(-score_B, return_inverse=True)
    positive_V = np.bincount(inverse_B, weights=label_B, minlength=len(distinct_V))
    negative_V = np.bincount(inverse_B, weights=~label_B, minlength=len(distinct_V))
    false_rate, true_rate = (
        np.concatenate([[0.0], np.cumsum(count_V) / count_V.sum()])
        for count_V in (negative_V, positive_V)
    )
    return false_rate, true_rate


def balanced_accuracy(labels: ArrayLike, scores: ArrayLike, *, threshold: float) -> float | None:
    """Return the mean of sensitivity and specificity; None where a class is missing.

    Args:
        labels: B labels, 0 or 1.
        scores: B scores.
        threshold: A bag that scores at least this is called positive.

    Raises:
        ValueError: As for ``auc``.
    """
    label_B, score_B = _checked(labels, scores)
    if label_B.all() or not label_B.any():
        return None
    called_B = score_B >= threshold
    return float((called_B[label_B].mean() + (~called_B[~label_B]).mean()) / 2)


def brier(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the mean squared difference of probability and label; None without bags.

    Args:
        labels: B labels, 0 or 1.
        probabilities: B probabilities of class 1.

    Raises:
        ValueError: As for ``auc``, or a probability is outside 0 to 1.
    """
    label_B, probability_B = _checked(labels, probabilities)
    if not len(label_B):
        return None
    if probability_B.min() < 0 or probability_B.max() > 1:
        raise ValueError("the Brier score needs probabilities, but some are outside 0 to 1")
    return float(np.mean((probability_B - label_B) ** 2))


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as bool and scores as float64, both (B,)."""
    label_B = np.asarray(labels)
    score_B = np.asarray(scores, dtype=np.float64)
    if label_B.ndim != 1 or label_B.shape != score_B.shape:
        raise ValueError(f"labels {label_B.shape} and scores {score_B.shape} must be two lists")
    if not np.isin(label_B, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if np.isnan(score_B).any():
        raise ValueError(
            f"{np.isnan(score_B).sum()} of {len(score_B)} scores are NaN: the network diverged"
        )
    return label_B.astype(bool), score_B
