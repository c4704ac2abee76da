"""Comparisons with several amounts of noise, with numbers that are made up."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fake_runs import METHODS, READOUTS, SITES, auc_of, fake_metrics, fake_scores, make_compare_run

from rayfed_hn.config import RELEASE_NOTHING
from rayfed_hn.evaluation.comparison import ByCase
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.trade_off import compare_amounts, membership
from rayfed_hn.loading import load, to_yaml

AMOUNTS = (0.0, 0.03, 0.1, 0.3, 1.0)
PAPER: tuple[str, ...] = ()
FORMAL = ("privacy.mechanism=site_ldp",)


def make_sweep_run(
    folder: Path,
    amounts: Sequence[float] = AMOUNTS,
    methods: Sequence[str] = tuple(METHODS),
    *,
    words: Sequence[str] = PAPER,
    attacked: bool = False,
    by_case: ByCase | None = None,
) -> Path:
    """One seed, 4 folds; the paper's noise makes scores weaker, epsilon makes them stronger."""
    make_compare_run(folder, methods=methods)
    config = load(None, [*words, f"compare.noise={','.join(map(str, amounts))}"])
    formal = config.privacy.amount == "target_epsilon"
    rows, scores, metrics, attacks = [], [], [], []
    for method, fold in itertools.product(methods, range(4)):
        for noise in [None] if method in RELEASE_NOTHING else amounts:
            rng = np.random.default_rng([fold, len(rows)])
            kept = 1.0
            if noise is not None:
                kept = 1 - np.exp(-noise / 4) if formal else np.exp(-3 * noise)
            strength = METHODS.get(method, 1.0) * kept
            key: dict[str, Any] = {"method": method, "seed": 0, "fold": fold, "noise": noise}
            metrics += [key | record for record in fake_metrics(rng, SITES, strength)]
            for number, site in enumerate(SITES):
                found = fake_scores(rng, 12, strength + 0.2 * number)
                scores += [key | s | {"site": site, "slide": 12 * fold + s["slide"]} for s in found]
                rows += [
                    key | {"site": site, "readout": r, "value": auc_of(found, r), "num_test": 12}
                    for r in READOUTS
                ]
            attacks.append(key | {"membership_auc": float(0.5 + 0.2 * kept + rng.normal(0, 0.02))})
    compared = compare_amounts(
        rows,
        scores,
        amounts,
        least=config.privacy.least_noise,
        judge=Judge("binary", 2),
        by_case=by_case,
    )
    summary = json.loads((folder / "summary.json").read_text()) | {
        **compared,
        "rows": rows,
        "seeds": 1,
        "folds": 4,
        "failed_cells": [],
        "noise": list(amounts),
        "noise_of": config.privacy.amount,
        "membership": membership(attacks if attacked else []),
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in metrics))
    (folder / "config.yaml").write_text(to_yaml(config))
    return folder
