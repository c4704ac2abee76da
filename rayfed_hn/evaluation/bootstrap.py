"""Differences of methods with an interval by case: what other patients would have made of them.

Networks are taken as they are. Cases are drawn anew within every site, with all their bags, and
their out-of-fold scores of all seeds with them; both methods of a pair see the same draws. The
interval is that of percentiles (Efron and Tibshirani 1993). It knows how few the patients are, and
nothing of training: that another division or seed would have made other networks is what the
intervals by split are about (``comparison``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rayfed_hn.evaluation.cells import LEVEL, Arm, pairs_of
from rayfed_hn.evaluation.held_out import HeldOut, Reading
from rayfed_hn.evaluation.measures import Measure, mean_of_defined
from rayfed_hn.seeds import derive

KIND = "bootstrap by case"
MEAN, POOLED = "mean of sites", "pooled"
_AT_ONCE = 2_000_000  # weights of bags in memory
_ENOUGH = 0.5  # of the samples must have a value

Weights = Mapping[str, np.ndarray]  # (B, R) of every site
Key = tuple[str, str, str, str]  # method, against, metric, scope


def bootstrap_tests(
    held_out: HeldOut, measures: Sequence[Measure], *, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Test every pair of methods under every readout, in the mean over sites and pooled.

    A site whose measure a sample leaves undefined, such as an AUC without positive cases, is left
    out of that sample's mean.

    Args:
        held_out: Out-of-fold scores.
        measures: In what; those that samples cannot judge are left out.
        resamples: Samples to draw.
        seed: Of the draws; those of a site depend on nothing else but its name.

    Returns:
        method, against, readout, metric, scope, site (None), kind, difference, low, high, p,
        num_cases, num_sites; only of pairs that are complete at some site, or, pooled, at all.
    """
    records = []
    by_name = {measure.name: measure for measure in measures if measure.resampled}
    for readout in dict.fromkeys(readout for _, readout in held_out.scores.arms):
        arms = [arm for arm in held_out.scores.arms if arm[1] == readout]
        ones = {site: np.ones((len(case_B), 1)) for site, case_B in held_out.case_B.items()}
        points = _differences(held_out, arms, by_name.values(), ones)
        drawn: dict[Key, list[np.ndarray]] = defaultdict(list)
        for weights in _samples(held_out, resamples, seed):
            for key, values_R in _differences(held_out, arms, by_name.values(), weights).items():
                drawn[key].append(values_R)
        for key, point in points.items():
            bounds = _bounds(float(point[0]), np.concatenate(drawn[key]))
            if bounds is not None:
                method, against, metric, scope = key
                pair = {"method": method, "against": against, "readout": readout}
                about = {"metric": metric, "scope": scope, "site": None, "kind": KIND}
                both = (method, readout), (against, readout)
                sites = held_out.sites
                if scope == MEAN:
                    sites = _counted(held_out, both, by_name[metric], ones)
                size = {"num_cases": held_out.num_cases(sites), "num_sites": len(sites)}
                records.append({**pair, **about, **bounds, **size})
    return records


def _samples(held_out: HeldOut, resamples: int, seed: int) -> Iterator[Weights]:
    """How often every bag is in each sample, so many samples at a time as fit into memory."""
    generators = {
        site: np.random.default_rng(derive(seed, "bootstrap by case", site))
        for site in held_out.case_B
    }
    num_bags = sum(len(case_B) for case_B in held_out.case_B.values())
    step = max(1, _AT_ONCE // max(num_bags, 1))
    for start in range(0, resamples, step):
        wanted = min(step, resamples - start)
        yield {
            site: _weights(generators[site], case_B, wanted)
            for site, case_B in held_out.case_B.items()
        }


def _weights(rng: np.random.Generator, case_B: np.ndarray, wanted: int) -> np.ndarray:
    """Draw as many cases as there are, with replacement, ``wanted`` times: (B, R)."""
    num_cases = int(case_B.max()) + 1
    chosen_RC = rng.integers(num_cases, size=(wanted, num_cases))  # one sample after the other
    flat = chosen_RC + num_cases * np.arange(wanted)[:, None]
    count_RC = np.bincount(flat.ravel(), minlength=wanted * num_cases).reshape(wanted, num_cases)
    return count_RC.T[case_B].astype(float)


def _differences(
    held_out: HeldOut, arms: Sequence[Arm], measures: Iterable[Measure], weights: Weights
) -> dict[Key, np.ndarray]:
    """One difference a sample (R,) of every pair, measure and scope."""
    found: dict[Key, np.ndarray] = {}
    bags = [weights[site] for site in held_out.sites if site in weights]
    together_BR = np.concatenate(bags) if bags else np.zeros((0, 1))
    for measure in measures:
        by_site = {arm: _by_site(held_out, arm, measure, weights) for arm in arms}
        pooled = {
            arm: _mean_of_seeds(held_out, measure, readings, together_BR)
            for arm in arms
            if (readings := held_out.together(arm)) is not None
        }
        by_method = {arm[0]: arm for arm in arms}
        for method, against in pairs_of(by_method):
            one, other = by_method[method], by_method[against]
            common = [site for site in by_site[one] if site in by_site[other]]
            if common:
                parts = [by_site[one][site] - by_site[other][site] for site in common]
                found[method, against, measure.name, MEAN] = mean_of_defined(np.array(parts))
            if one in pooled and other in pooled:
                found[method, against, measure.name, POOLED] = pooled[one] - pooled[other]
    return found


def _by_site(
    held_out: HeldOut, arm: Arm, measure: Measure, weights: Weights
) -> dict[str, np.ndarray]:
    return {
        site: _mean_of_seeds(held_out, measure, readings, weights[site])
        for site in held_out.sites
        if (readings := held_out.of(arm, site)) is not None
    }


def _mean_of_seeds(
    held_out: HeldOut, measure: Measure, readings: Sequence[Reading], weight_BR: np.ndarray
) -> np.ndarray:
    judge = held_out.scores.judge
    values = [measure.of(judge, r.truth, r.predictions_BS, weight_BR) for r in readings]
    return np.mean(values, axis=0)


def _counted(
    held_out: HeldOut, arms: tuple[Arm, Arm], measure: Measure, ones: Weights
) -> list[str]:
    """The sites that a mean difference is made of: complete for both, and with a value."""
    one, other = (_by_site(held_out, arm, measure, ones) for arm in arms)
    return [site for site in one if site in other and not np.isnan(one[site] - other[site])[0]]


def _bounds(point: float, values_R: np.ndarray) -> dict[str, Any] | None:
    """Difference, interval and two-sided p-value; None where too few samples have a value.

    The p-value is the smallest level at which the interval leaves out zero; with R samples it is
    never below 2 / (R + 1).
    """
    defined = values_R[~np.isnan(values_R)]
    if np.isnan(point) or len(defined) < _ENOUGH * len(values_R):
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    least = 1 + min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p = min(1.0, 2 * least / (len(defined) + 1))
    return {"difference": point, "low": float(low), "high": float(high), "p": p}
