"""Out-of-fold scores of small federations with several methods, drawn from known distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rayfed_hn.evaluation.held_out import HeldOut
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.out_of_fold import Scores

BINARY = Judge("binary", 2)
SIZES = (20, 30, 40)


def binary_scores(
    rng: np.random.Generator,
    skill: Mapping[str, float],
    *,
    sizes: Sequence[int] = SIZES,
    slides: int = 1,
    seeds: int = 1,
    shared: float = 1.0,
) -> list[dict[str, Any]]:
    """Two of five cases are of class 1, whose scores are ``skill`` higher than the others.

    Args:
        rng: Draws.
        skill: Of every method; the true AUC is that of normal scores (``true_auc``).
        sizes: Cases of every site.
        slides: Of every case.
        seeds: How often networks are trained anew.
        shared: Deviation of what methods and slides of a case have in common; that of their own
            is 1.
    """
    records = []
    for number, size in enumerate(sizes):
        label_C = (rng.permutation(size) < round(0.4 * size)).astype(int)
        common_C = shared * rng.normal(size=size)
        for seed in range(seeds):
            for method, gap in skill.items():
                own_CS = rng.normal(size=(size, slides))
                for case, slide in np.ndindex(size, slides):
                    found = gap * label_C[case] + common_C[case] + own_CS[case, slide]
                    key = {"method": method, "readout": "last", "seed": seed, "fold": case % 3}
                    place = {"site": f"site-{number}", "slide": slides * case + slide, "case": case}
                    score = float(1 / (1 + np.exp(-found)))
                    records.append(key | place | {"label": int(label_C[case]), "score": score})
    return records


def held_out(records: Sequence[Mapping[str, Any]], judge: Judge = BINARY) -> HeldOut:
    return HeldOut(Scores(records, judge, "slide"))
