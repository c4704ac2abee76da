"""Out-of-fold values: the task's metric of the test predictions of all folds at once.

Where a site has six bags, the metric of a fold is of two of them, or undefined; one over all six
is steadier. Predictions of different folds come from different networks, whose scales may differ,
so this tends to lie a little below the metric of a fold.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rayfed_hn.evaluation.cells import Arm
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.measures import Measure


class Scores:
    """Scores of test bags, by arm, seed and site.

    Args:
        records: ``method, readout, seed, site, unit, slide, case`` and what ``judge`` needs. A
            bag is known by its site and its opaque ``slide`` or, of the unit case, ``case``.
        judge: What judges them.
        unit: slide or case; records of the other are left out. Without a ``unit`` of its own, a
            record is of this one.

    Attributes:
        num_bags: Different bags of every site that anybody scored.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]], judge: Judge, unit: str) -> None:
        self.judge, self.unit = judge, unit
        self._groups: dict[tuple[Arm, Any], dict[str, list[Mapping[str, Any]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        bags = set()
        for record in records:
            if record.get("unit", unit) != unit:
                continue
            arm = record["method"], record["readout"]
            self._groups[arm, record["seed"]][record["site"]].append(record)
            bags.add((record["site"], record[unit]))
        self.num_bags = Counter(site for site, _ in bags)
        self.arms = list(dict.fromkeys(arm for arm, _ in self._groups))
        self.seeds = list(dict.fromkeys(seed for _, seed in self._groups))

    def of(self, arm: Arm, seed: Any, site: str) -> list[Mapping[str, Any]] | None:
        """Return the scores of a site in one seed, or None unless every bag has exactly one."""
        found = self._groups.get((arm, seed), {}).get(site, [])
        bags = {record[self.unit] for record in found}
        complete = len(found) == len(bags) == self.num_bags[site]
        return found if complete else None


def out_of_fold_values(
    scores: Scores, *, by_site: bool, measure: Measure | None = None
) -> dict[tuple[Arm, str | None], float]:
    """Return an out-of-fold measure, averaged over seeds, by arm and site.

    Args:
        scores: All of a comparison.
        by_site: One value per site; otherwise one of all sites together, with None for the site.
            The latter mixes sites of different prevalence: it is not a mean of the former.
        measure: Which; None: the task's metric.

    Returns:
        Only what is complete: every bag of the group scored once in every seed of the comparison,
        and the measure defined.
    """
    groups: dict[str | None, list[str]] = (
        {site: [site] for site in scores.num_bags} if by_site else {None: list(scores.num_bags)}
    )
    found: dict[tuple[Arm, str | None], float] = {}
    for arm in scores.arms:
        for name, sites in groups.items():
            values = [_one_seed(scores, arm, seed, sites, measure) for seed in scores.seeds]
            defined = [value for value in values if value is not None]
            if defined and len(defined) == len(values):
                found[arm, name] = float(np.mean(defined))
    return found


def _one_seed(
    scores: Scores, arm: Arm, seed: Any, sites: Sequence[str], measure: Measure | None
) -> float | None:
    parts = [scores.of(arm, seed, site) for site in sites]
    records = [record for part in parts if part is not None for record in part]
    if any(part is None for part in parts) or not records:
        return None
    if measure is None:
        return scores.judge.of_records(records)
    return measure.value(scores.judge, *scores.judge.read(records))
