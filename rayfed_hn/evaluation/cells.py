"""Values of methods by site and split, and the mean that is taken of them with its error."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from rayfed_hn.evaluation.subject import HYPERNETWORK

LEVEL = 0.95  # of every interval

Row = Mapping[str, Any]
Arm = tuple[str, str]  # method, readout


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


class Cells:
    """Rows as one (sites, splits) array for every method and readout.

    Args:
        rows: ``method, readout, site, seed, fold`` and a value, None where undefined.
        name: Of the value.

    Raises:
        ValueError: A cell occurs twice.
    """

    def __init__(self, rows: Sequence[Row], name: str = "value") -> None:
        self.sites = sorted({row["site"] for row in rows})
        splits = sorted({(row["seed"], row["fold"]) for row in rows})
        site_at = {site: s for s, site in enumerate(self.sites)}
        split_at = {split: k for k, split in enumerate(splits)}
        shape = (len(self.sites), len(splits))
        self.values: dict[Arm, np.ndarray] = defaultdict(lambda: np.full(shape, np.nan))
        self.present: dict[Arm, np.ndarray] = defaultdict(lambda: np.zeros(shape, bool))
        for row in rows:
            arm = row["method"], row["readout"]
            at = site_at[row["site"]], split_at[row["seed"], row["fold"]]
            if self.present[arm][at]:
                raise ValueError(f"the cell {arm}, site and split {at} occurs twice in rows")
            self.present[arm][at] = True
            self.values[arm][at] = np.nan if row[name] is None else row[name]

    def num_undefined(self, arm: Arm) -> np.ndarray:
        """Return how many rows of each site have no value, shape (S,)."""
        return (self.present[arm] & np.isnan(self.values[arm])).sum(axis=1)


def pairs_of(methods: Iterable[str]) -> list[tuple[str, str]]:
    """Return every pair once: the hypernetwork against each other method, then the others."""
    ordered = sorted(methods, key=lambda method: method != HYPERNETWORK)
    return list(itertools.combinations(ordered, 2))
