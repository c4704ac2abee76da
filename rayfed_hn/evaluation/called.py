"""Metrics of what bags are called, of many samples of the same bags at once.

Shapes: B bags, K classes, R samples; a sample says how often it holds every bag.
"""

from __future__ import annotations

import numpy as np


def balanced_accuracy(
    label_B: np.ndarray, called_B: np.ndarray, num_classes: int, weight_BR: np.ndarray
) -> np.ndarray:
    """Return the mean over the classes that a sample has of the share of their bags called right.

    With two classes it is the mean of sensitivity and specificity.

    Returns:
        The means, (R,); NaN where a sample has fewer than two classes.
    """
    true_KR, _, right_KR = _counts(label_B, called_B, num_classes, weight_BR)
    return _mean_of_present(right_KR, true_KR, true_KR)


def f1_of_class(label_B: np.ndarray, called_B: np.ndarray, weight_BR: np.ndarray) -> np.ndarray:
    """Return F1 of class 1 of two: twice those called right over those that are plus those called.

    Returns:
        F1, (R,); NaN where a sample has no bag of class 1.
    """
    true_KR, called_KR, right_KR = _counts(label_B, called_B, 2, weight_BR)
    both_R = true_KR[1] + called_KR[1]
    undefined_R = np.full_like(both_R, np.nan)
    return np.divide(2 * right_KR[1], both_R, out=undefined_R, where=true_KR[1] > 0)


def macro_f1(
    label_B: np.ndarray, called_B: np.ndarray, num_classes: int, weight_BR: np.ndarray
) -> np.ndarray:
    """Return the mean over the classes that a sample has of their F1.

    A class that no bag is of has no F1, however many bags are called so: these count as misses of
    their own classes.

    Returns:
        The means, (R,); NaN where a sample has fewer than two classes.
    """
    true_KR, called_KR, right_KR = _counts(label_B, called_B, num_classes, weight_BR)
    return _mean_of_present(2 * right_KR, true_KR + called_KR, true_KR)


def _counts(
    label_B: np.ndarray, called_B: np.ndarray, num_classes: int, weight_BR: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bags of every class, called so, and both, each (K, R)."""
    classes_K1 = np.arange(num_classes)[:, None]
    true_KB, called_KB = label_B == classes_K1, called_B == classes_K1
    return (
        true_KB.astype(float) @ weight_BR,
        called_KB.astype(float) @ weight_BR,
        (true_KB & called_KB).astype(float) @ weight_BR,
    )


def _mean_of_present(part_KR: np.ndarray, whole_KR: np.ndarray, true_KR: np.ndarray) -> np.ndarray:
    present_KR = true_KR > 0
    shares_KR = np.divide(part_KR, whole_KR, out=np.zeros_like(part_KR), where=present_KR)
    num_R = present_KR.sum(axis=0)
    undefined_R = np.full(num_R.shape, np.nan)
    return np.divide(shares_KR.sum(axis=0), num_R, out=undefined_R, where=num_R > 1)
