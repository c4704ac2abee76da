"""How much each key mattered: the share of the variance between trials that it explains alone.

Trials are put into groups by the value of one key: every value of a listed key is a group; drawn
numbers are divided by rank into groups of equal size. The share is that of a one-way analysis of
variance, adjusted for the number of groups (epsilon squared); on a full grid it is the main effect
of functional ANOVA. What two keys do only together is not in it. How often chance alone would
explain as much is found by permuting the metrics. Shapes: T trials, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from rayfed_hn.seeds import derive
from rayfed_hn.tuning.dimensions import Dimension

MOST_GROUPS = 4  # of drawn numbers
LEAST_TRIALS = 6  # below, nothing is said
PERMUTATIONS = 999

Record = Mapping[str, Any]


def importance(
    records: Sequence[Record], found: Sequence[Dimension], seed: int
) -> list[dict[str, Any]]:
    """Judge all trials at the last version that every one of them reached.

    Args:
        records: Of trials, with ``settings`` and ``curve``.
        found: What was searched.
        seed: Of the permutations.

    Returns:
        Of every key its ``share`` (0 to 1), ``chance`` (how often permuted metrics have as large a
        share), rank ``correlation`` (None where values have no order) and the ``version``, the
        largest share first; nothing if there are too few trials.
    """
    judged = [r for r in records if r["status"] != "failed" and r["curve"]]
    version = min((len(r["curve"]) for r in judged), default=0) - 1
    judged = [r for r in judged if r["curve"][version] is not None]
    if len(judged) < LEAST_TRIALS:
        return []
    metric_T = np.array([r["curve"][version] for r in judged], float)
    rows = []
    for dimension in found:
        values = [r["settings"][dimension.key] for r in judged]
        group_T = groups(dimension, values)
        if 1 < group_T.max() + 1 < len(judged):
            rng = np.random.default_rng(derive(seed, "importance", dimension.key))
            own = explained(metric_T, group_T)
            others = [explained(rng.permutation(metric_T), group_T) for _ in range(PERMUTATIONS)]
            rows.append(
                {
                    "key": dimension.key,
                    "share": max(0.0, own),
                    "chance": (1 + sum(o >= own - 1e-12 for o in others)) / (1 + PERMUTATIONS),
                    "correlation": _correlation(dimension, values, metric_T),
                    "version": version,
                }
            )
    return sorted(rows, key=lambda row: (-row["share"], row["key"]))


def groups(dimension: Dimension, values: Sequence[Any]) -> np.ndarray:
    """The group of every trial, int64 (T,)."""
    names = list(dict.fromkeys(map(repr, values)))
    if dimension.listed or len(names) <= MOST_GROUPS:
        return np.array([names.index(repr(value)) for value in values], np.int64)
    number = min(MOST_GROUPS, len(values) // 3)
    ranks_T = rankdata(values, method="average")  # equal values stay together
    return np.minimum(((ranks_T - 0.5) / len(values) * number).astype(np.int64), number - 1)


def explained(metric_T: np.ndarray, group_T: np.ndarray) -> float:
    """Adjusted share of the variance that lies between groups; at most 1, below 0 by chance."""
    total = float(np.square(metric_T - metric_T.mean()).sum())
    present = np.unique(group_T)
    if total <= 1e-15:
        return 0.0
    within = sum(
        float(np.square(metric_T[group_T == g] - metric_T[group_T == g].mean()).sum())
        for g in present
    )
    freedom = len(metric_T) - len(present)
    return 1 - within / total * (len(metric_T) - 1) / freedom if freedom > 0 else 0.0


def _correlation(dimension: Dimension, values: Sequence[Any], metric_T: np.ndarray) -> float | None:
    """Spearman's, of keys whose values are numbers."""
    if not dimension.numeric or np.ptp(metric_T) == 0:
        return None
    return float(np.corrcoef(rankdata(values), rankdata(metric_T))[0, 1])
