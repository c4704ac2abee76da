"""Metrics of times to an event under censoring, None where undefined: never a stand-in."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc

from rayfed_hn.evaluation.checks import as_classes, as_numbers, same_length
from rayfed_hn.evaluation.pairs import concordance


def concordance_index(times: ArrayLike, events: ArrayLike, risks: ArrayLike) -> float | None:
    """Return the chance that of two bags the one with the earlier event has the higher risk.

    Pairs count where it is known which event came first (Harrell et al. 1982): the earlier time is
    an event, or both times are equal and one alone is an event. A tie of risks counts half.

    Args:
        times: B times to the event or to the end of observation, at least 0.
        events: B marks, 1 (or True) for an event and 0 for censored.
        risks: B risks, higher for an earlier event; only their order matters.

    Returns:
        The chance, or None where no pair counts.

    Raises:
        ValueError: A risk is NaN, a time is not finite or below 0, a mark is neither 0 nor 1, or
            the lengths differ.
    """
    same_length(times=times, events=events, risks=risks)
    time_B, event_B = _checked(times, events)
    risk_B = as_numbers(risks, name="risks")
    # Censored at an event's time is known to outlast it, so it ranks just after.
    _, time_rank_B = np.unique(time_B, return_inverse=True)
    return concordance(2 * time_rank_B + ~event_B, -risk_B, event_B)


def kaplan_meier(times: ArrayLike, events: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return a survival curve (Kaplan and Meier 1958), for pictures.

    Args:
        times: B times, as for ``concordance_index``.
        events: B marks, likewise.

    Returns:
        The distinct times of events, ascending, and the survival from each of them up to the next:
        the curve is 1 before the first and continuous from the right, a picture's ``where="post"``.
        Both are empty where all bags are censored. A bag censored at an event's time was at risk.

    Raises:
        ValueError: As for ``concordance_index``, or there are no bags.
    """
    same_length(times=times, events=events)
    time_B, event_B = _checked(times, events)
    if not len(time_B):
        raise ValueError("a survival curve needs a bag")
    time_V, died_V = np.unique(time_B[event_B], return_counts=True)
    return time_V, np.cumprod(1 - died_V / _at_risk(time_B, time_V))


def logrank(times: ArrayLike, events: ArrayLike, groups: ArrayLike) -> float | None:
    """Return the two-sided p-value of equal survival in two groups (Mantel 1966).

    It is of the chi-squared statistic with one degree of freedom: large samples, no correction.

    Args:
        times: B times, as for ``concordance_index``.
        events: B marks, likewise.
        groups: B groups, 0 or 1.

    Returns:
        The p-value, or None where no time of an event has both groups at risk and a survivor.

    Raises:
        ValueError: As for ``concordance_index``, or a group is neither 0 nor 1.
    """
    same_length(times=times, events=events, groups=groups)
    time_B, event_B = _checked(times, events)
    is_one_B = as_classes(groups, 2, name="groups").astype(bool)
    time_V, died_V = np.unique(time_B[event_B], return_counts=True)
    at_risk_V, ones_V = _at_risk(time_B, time_V), _at_risk(time_B[is_one_B], time_V)
    share_V = ones_V / at_risk_V
    excess = np.count_nonzero(event_B & is_one_B) - (died_V * share_V).sum()
    # Hypergeometric; 0 where the last bag dies alone, where the usual divisor is 0 too.
    spare_V = (at_risk_V - died_V) / np.maximum(at_risk_V - 1, 1)
    variance = (died_V * spare_V * share_V * (1 - share_V)).sum()
    return float(chdtrc(1, excess**2 / variance)) if variance else None


def _at_risk(time_B: np.ndarray, time_V: np.ndarray) -> np.ndarray:
    """Return how many of the bags are still observed just before each time, (V,)."""
    return len(time_B) - np.searchsorted(np.sort(time_B), time_V, side="left")


def _checked(times: ArrayLike, events: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return times as float64 and events as bool, both (B,)."""
    time_B = as_numbers(times, name="times")
    if np.isinf(time_B).any() or time_B.min(initial=0) < 0:
        raise ValueError("times must be finite and at least 0")
    return time_B, as_classes(events, 2, name="events").astype(bool)
