"""Out-of-fold AUC: one curve through the test scores of all folds.

Where a site has six bags, the AUC of a fold is of two of them, or undefined; one AUC over all six
is steadier. Scores of different folds come from different networks, whose scales may differ, so
this tends to lie a little below the AUC of a fold.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rayfed_hn.evaluation.metrics import auc

Arm = tuple[str, str]  # method, readout


class Scores:
    """Scores of test bags, by arm, seed and site.

    Args:
        records: ``method, readout, seed, site, slide, label, score`` (others are ignored); a slide
            is known by its site and its opaque ``slide``.

    Attributes:
        num_bags: Different bags of every site that anybody scored.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]]) -> None:
        self._groups: dict[tuple[Arm, Any], dict[str, list[Mapping[str, Any]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        bags = set()
        for record in records:
            arm = record["method"], record["readout"]
            self._groups[arm, record["seed"]][record["site"]].append(record)
            bags.add((record["site"], record["slide"]))
        self.num_bags = Counter(site for site, _ in bags)
        self.arms = list(dict.fromkeys(arm for arm, _ in self._groups))
        self.seeds = list(dict.fromkeys(seed for _, seed in self._groups))

    def of(self, arm: Arm, seed: Any, site: str) -> list[Mapping[str, Any]] | None:
        """Return the scores of a site in one seed, or None unless every bag has exactly one."""
        found = self._groups.get((arm, seed), {}).get(site, [])
        slides = {record["slide"] for record in found}
        complete = len(found) == len(slides) == self.num_bags[site]
        return found if complete else None


def out_of_fold_values(scores: Scores, *, by_site: bool) -> dict[tuple[Arm, str | None], float]:
    """Return the out-of-fold AUC, averaged over seeds, by arm and site.

    Args:
        scores: All of a comparison.
        by_site: One AUC per site; otherwise one of all sites together, with None for the site.
            The latter mixes sites of different prevalence: it is not a mean of the former.

    Returns:
        Only what is complete: every bag of the group scored once in every seed of the comparison,
        and both classes present.
    """
    groups: dict[str | None, list[str]] = (
        {site: [site] for site in scores.num_bags} if by_site else {None: list(scores.num_bags)}
    )
    found: dict[tuple[Arm, str | None], float] = {}
    for arm in scores.arms:
        for name, sites in groups.items():
            aucs = [_one_seed(scores, arm, seed, sites) for seed in scores.seeds]
            defined = [value for value in aucs if value is not None]
            if defined and len(defined) == len(aucs):
                found[arm, name] = float(np.mean(defined))
    return found


def _one_seed(scores: Scores, arm: Arm, seed: Any, sites: Sequence[str]) -> float | None:
    parts = [scores.of(arm, seed, site) for site in sites]
    records = [record for part in parts if part is not None for record in part]
    if any(part is None for part in parts):
        return None
    return auc([record["label"] for record in records], [record["score"] for record in records])
