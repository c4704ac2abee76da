"""Methods side by side: means over sites and splits, what is certain about them, and differences.

A *cell* is the test metric of one method under one readout at one site in one *split* (seed, fold).
Undefined cells are left out and counted.

Standard errors are cluster-robust with the split as the cluster: the cells of a split share the
division of the cases and the training run. What they do not know is that splits re-divide the same
cases, so that train and test sets of different splits overlap: errors and intervals are optimistic
(Nadeau and Bengio 2003), and a difference near the edge of its interval has not been shown. Where
folds hold few bags, cells take few values: methods that agree in all of them get an interval of no
width, which says that the folds are too small, not that the methods are equal.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.markdown import markdown_table
from rayfed_hn.evaluation.out_of_fold import Scores, out_of_fold_values
from rayfed_hn.evaluation.subject import HYPERNETWORK

__all__ = ["Estimate", "compare_methods", "estimate", "markdown_table"]

LEVEL = 0.95  # of every interval

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A mean over sites of means over splits.

    Attributes:
        mean: None where no cell is defined.
        se: Cluster-robust standard error; None with fewer than two splits.
        low, high: Two-sided 95 % t interval with ``num_splits - 1`` degrees of freedom.
        num_splits: Splits with at least one defined cell.
        site_means: By index of the site; NaN where a site has no defined cell. Shape (S,).
    """

    mean: float | None
    se: float | None
    low: float | None
    high: float | None
    num_splits: int
    site_means: np.ndarray


def estimate(cells_SK: np.ndarray) -> Estimate:
    """Average cells over splits and then over sites.

    The influence of split k on the mean is z_k = sum_s (a_sk - mean_s) / (S n_s) over its defined
    cells, n_s being the defined cells of site s; se = sqrt(K / (K - 1) sum_k z_k^2). With all
    cells defined this is the standard deviation of the splits' means divided by sqrt(K).

    Args:
        cells_SK: Values by site and split; NaN where undefined.
    """
    defined_SK = ~np.isnan(cells_SK)
    n_S = defined_SK.sum(axis=1)
    sums_S = np.where(defined_SK, cells_SK, 0.0).sum(axis=1)
    means_S = np.divide(sums_S, n_S, out=np.full(len(n_S), np.nan), where=n_S > 0)
    num_sites, num_splits = int((n_S > 0).sum()), int(defined_SK.any(axis=0).sum())
    if num_sites == 0:
        return Estimate(None, None, None, None, 0, means_S)
    mean = float(means_S[n_S > 0].mean())
    if num_splits < 2:
        return Estimate(mean, None, None, None, num_splits, means_S)
    residuals_SK = np.where(defined_SK, cells_SK - means_S[:, None], 0.0)
    z_K = (residuals_SK / (num_sites * np.maximum(n_S, 1))[:, None]).sum(axis=0)
    se = float(np.sqrt(num_splits / (num_splits - 1) * np.square(z_K).sum()))
    reach = float(stdtrit(num_splits - 1, (1 + LEVEL) / 2)) * se
    return Estimate(mean, se, mean - reach, mean + reach, num_splits, means_S)


def compare_methods(
    rows: Sequence[Row], scores: Sequence[Mapping[str, Any]], *, judge: Judge, unit: str = "slide"
) -> dict[str, Any]:
    """Summarise a comparison.

    Args:
        rows: ``method, readout, site, seed, fold, value`` (None where undefined); where cases have
            several slides also ``by_slide, by_case, num_slides, num_cases``.
        scores: One per test bag: ``method, readout, seed, fold, site, unit, slide, case``, and
            what ``judge`` needs.
        judge: What judged the rows.
        unit: slide or case: what the rows' ``value`` is of.

    Returns:
        ``task``, ``unit``, ``metric``.
        ``table``: method, readout, mean_site, se, low, high, worst_mean, worst_site,
        pooled (out of fold; None where not complete), num_undefined, num_splits, num_sites; where
        cases have several slides also by_slide and by_case, one of which is mean_site.
        ``per_site``: method, readout, site, mean_value, se, out_of_fold, num_test,
        num_undefined.
        ``differences``: every pair of methods with the same readout, hypernetwork first: method,
        against, readout, difference, low, high, se, num_splits, num_cells.

    Raises:
        ValueError: A cell occurs twice, or a score is NaN.
    """
    cells = _Cells(rows)
    held_out = Scores(scores, judge, unit)
    table = _table(cells, held_out)
    if any(row.get("num_slides") != row.get("num_cases") for row in rows):
        _add_both_units(table, rows)
    return {
        "task": judge.kind,
        "unit": unit,
        "metric": judge.name,
        "table": table,
        "per_site": _per_site(cells, held_out),
        "differences": _differences(cells),
    }


def differences(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the ``differences`` of ``compare_methods`` alone."""
    return _differences(_Cells(rows))


class _Cells:
    """Rows as one (sites, splits) array for every method and readout."""

    def __init__(self, rows: Sequence[Row], name: str = "value") -> None:
        self.sites = sorted({row["site"] for row in rows})
        splits = sorted({(row["seed"], row["fold"]) for row in rows})
        site_at = {site: s for s, site in enumerate(self.sites)}
        split_at = {split: k for k, split in enumerate(splits)}
        shape = (len(self.sites), len(splits))
        self.values: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.full(shape, np.nan))
        self.present: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros(shape, bool))
        for row in rows:
            arm = row["method"], row["readout"]
            at = site_at[row["site"]], split_at[row["seed"], row["fold"]]
            if self.present[arm][at]:
                raise ValueError(f"the cell {arm}, site and split {at} occurs twice in rows")
            self.present[arm][at] = True
            self.values[arm][at] = np.nan if row[name] is None else row[name]

    def num_undefined(self, arm: tuple[str, str]) -> np.ndarray:
        """Return how many rows of each site have no value, shape (S,)."""
        return (self.present[arm] & np.isnan(self.values[arm])).sum(axis=1)


def _table(cells: _Cells, scores: Scores) -> list[dict[str, Any]]:
    pooled = {arm: value for (arm, _), value in out_of_fold_values(scores, by_site=False).items()}
    lowest, highest = scores.judge.bounds
    table = []
    for arm, values_SK in cells.values.items():
        found = estimate(values_SK)
        worst = None if found.mean is None else int(np.nanargmin(found.site_means))
        table.append(
            {
                "method": arm[0],
                "readout": arm[1],
                "mean_site": found.mean,
                "se": found.se,
                "low": None if found.low is None else max(found.low, lowest),
                "high": None if found.high is None else min(found.high, highest),
                "worst_mean": None if worst is None else float(found.site_means[worst]),
                "worst_site": None if worst is None else cells.sites[worst],
                "pooled": pooled.get(arm),
                "num_undefined": int(cells.num_undefined(arm).sum()),
                "num_splits": found.num_splits,
                "num_sites": int((~np.isnan(found.site_means)).sum()),
            }
        )
    return table


def _add_both_units(table: list[dict[str, Any]], rows: Sequence[Row]) -> None:
    for name in ("by_slide", "by_case"):
        values = _Cells(rows, name).values
        for line in table:
            line[name] = estimate(values[line["method"], line["readout"]]).mean


def _per_site(cells: _Cells, scores: Scores) -> list[dict[str, Any]]:
    held_out = out_of_fold_values(scores, by_site=True)
    records = []
    for arm, values_SK in cells.values.items():
        undefined_S = cells.num_undefined(arm)
        for s, site in enumerate(cells.sites):
            found = estimate(values_SK[s : s + 1])
            records.append(
                {
                    "method": arm[0],
                    "readout": arm[1],
                    "site": site,
                    "mean_value": found.mean,
                    "se": found.se,
                    "out_of_fold": held_out.get((arm, site)),
                    "num_test": scores.num_bags.get(site, 0),
                    "num_undefined": int(undefined_S[s]),
                }
            )
    return records


def _differences(cells: _Cells) -> list[dict[str, Any]]:
    records = []
    for readout in dict.fromkeys(readout for _, readout in cells.values):
        methods = [method for method, r in cells.values if r == readout]
        for method, against in _pairs(methods):
            paired_SK = cells.values[method, readout] - cells.values[against, readout]
            found = estimate(paired_SK)
            records.append(
                {
                    "method": method,
                    "against": against,
                    "readout": readout,
                    "difference": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "se": found.se,
                    "num_splits": found.num_splits,
                    "num_cells": int((~np.isnan(paired_SK)).sum()),
                }
            )
    return records


def _pairs(methods: Iterable[str]) -> list[tuple[str, str]]:
    """Return every pair once: the hypernetwork against each other method, then the others."""
    ordered = sorted(methods, key=lambda method: method != HYPERNETWORK)
    return list(itertools.combinations(ordered, 2))
