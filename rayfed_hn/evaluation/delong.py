"""The paired test of two AUCs on the same bags (DeLong et al. 1988), by case.

An AUC is a mean over positive bags of how many negatives they outrank, and likewise over negatives;
how these placements scatter over the bags says how sure it is. They come from mid-ranks (Sun and Xu
2014), in B log(B) time. Bags of one case are not independent: placements are summed within cases
(Obuchowski 1997), which for cases of one bag is DeLong's test itself.

Shapes: B bags, C cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from rayfed_hn.evaluation.bootstrap import MEAN, POOLED
from rayfed_hn.evaluation.cells import LEVEL, Arm, pairs_of
from rayfed_hn.evaluation.held_out import HeldOut, Reading

KIND = "DeLong by case"
SITE = "site"

__all__ = ["KIND", "MEAN", "POOLED", "SITE", "delong_tests", "paired", "placements"]


def placements(label_B: np.ndarray, score_B: np.ndarray) -> np.ndarray | None:
    """Return the share of the other class that every bag is on the right side of, a tie half.

    The mean over either class is the AUC.

    Args:
        label_B: 0 or 1.
        score_B: Without NaN.

    Returns:
        Shares, (B,); None where a class is missing.
    """
    positive_B = label_B == 1
    num_positive = int(positive_B.sum())
    num_negative = len(label_B) - num_positive
    if not num_positive or not num_negative:
        return None
    found_B = rankdata(score_B)
    found_B[positive_B] -= rankdata(score_B[positive_B])
    found_B[~positive_B] -= rankdata(score_B[~positive_B])
    found_B[positive_B] /= num_negative
    found_B[~positive_B] = 1 - found_B[~positive_B] / num_positive
    return found_B


def paired(
    label_B: np.ndarray, one_B: np.ndarray, other_B: np.ndarray, case_B: np.ndarray
) -> dict[str, Any] | None:
    """Return the difference of two AUCs with its interval and two-sided p-value.

    Args:
        label_B: 0 or 1.
        one_B: Placements of a method; means over seeds for the difference of the mean AUCs.
        other_B: Those of the other method.
        case_B: The case of every bag, from 0.

    Returns:
        difference, low, high and p, normal; where AUCs differ and nothing scatters (both orders are
        perfect, one of them upside down) bounds and p are None. None where a class has fewer than
        two cases: one case says nothing of others.
    """
    positive_B, gap_B = label_B == 1, one_B - other_B
    difference = float(gap_B[positive_B].mean())
    sums, sizes = [], []
    for chosen_B in (positive_B, ~positive_B):
        centred_B = np.where(chosen_B, gap_B - difference, 0.0) / chosen_B.sum()
        sums.append(np.bincount(case_B, weights=centred_B))
        sizes.append(len(np.unique(case_B[chosen_B])))
    if min(sizes) < 2:
        return None
    num_cases = len(sums[0])
    variance = sum(n / (n - 1) * (sum_C**2).sum() for n, sum_C in zip(sizes, sums, strict=True))
    variance += 2 * num_cases / (num_cases - 1) * (sums[0] * sums[1]).sum()
    return {"difference": difference, **_normal(difference, max(float(variance), 0.0))}


def _normal(difference: float, variance: float) -> dict[str, float | None]:
    error = float(np.sqrt(variance))
    if error < 1e-12:  # rounding: placements are at most 1
        agree = abs(difference) < 1e-12
        return {"low": 0.0, "high": 0.0, "p": 1.0} if agree else dict.fromkeys(("low", "high", "p"))
    reach = float(ndtri((1 + LEVEL) / 2)) * error
    p = float(2 * ndtr(-abs(difference) / error))
    return {"low": difference - reach, "high": difference + reach, "p": p}


def delong_tests(held_out: HeldOut) -> list[dict[str, Any]]:
    """Test every pair of methods pooled, and those of the first method at every site too.

    The first is the hypernetwork where it takes part: of all pairs at all sites there are too many
    to be told, and to be corrected for.

    Args:
        held_out: Out-of-fold scores of a binary task.

    Returns:
        As ``bootstrap_tests``; ``site`` is set where ``scope`` is "site".
    """
    records = []
    for readout in dict.fromkeys(readout for _, readout in held_out.scores.arms):
        methods = [method for method, r in held_out.scores.arms if r == readout]
        pairs = pairs_of(methods)
        for method, against in pairs:
            arms = (method, readout), (against, readout)
            places: list[str | None] = [None]
            places += held_out.sites if method == pairs[0][0] else []
            for site in places:
                found = _of_place(held_out, arms, site)
                if found is not None:
                    pair = {"method": method, "against": against, "readout": readout}
                    records.append({**pair, **found})
    return records


def _of_place(held_out: HeldOut, arms: tuple[Arm, Arm], site: str | None) -> dict[str, Any] | None:
    readings = [held_out.together(arm) if site is None else held_out.of(arm, site) for arm in arms]
    one, other = readings
    if one is None or other is None:
        return None
    mean_one_B, mean_other_B = _mean_placements(one), _mean_placements(other)
    if mean_one_B is None or mean_other_B is None:
        return None
    case_B = held_out.cases_together() if site is None else held_out.case_B[site]
    found = paired(one[0].truth.label_B, mean_one_B, mean_other_B, case_B)
    if found is None:
        return None
    about = {"metric": held_out.scores.judge.name, "scope": POOLED if site is None else SITE}
    sites = held_out.sites if site is None else [site]
    size = {"num_cases": held_out.num_cases(sites), "num_sites": len(sites)}
    return {**about, "site": site, "kind": KIND, **found, **size}


def _mean_placements(readings: Sequence[Reading]) -> np.ndarray | None:
    found = [placements(r.truth.label_B, r.predictions_BS[:, 0]) for r in readings]
    defined = [placement_B for placement_B in found if placement_B is not None]
    return np.mean(defined, axis=0) if len(defined) == len(found) else None
