"""A made-up search on a grid of noise and embedding length, with a trial that failed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fake_runs import VERSIONS

from rayfed_hn.config import Config
from rayfed_hn.evaluation.comparison import compare_methods
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.loading import to_yaml
from rayfed_hn.tuning.dimensions import Dimension
from rayfed_hn.tuning.front import best, front
from rayfed_hn.tuning.importance import importance

NOISE, SIZE, KIND = "privacy.noise_scale", "hypernetwork.embedding_dim", "training.optimiser"
GRID = {NOISE: (0.01, 0.1, 1.0), SIZE: (2, 16)}
OBJECTIVES = ("validation_metric", "noise_scale")


def make_tune_run(
    folder: Path,
    objectives: Sequence[str] = OBJECTIVES,
    *,
    stopped: bool = False,
    tested: bool = True,
) -> Path:
    """Six trials; trial 5 failed, and with ``stopped`` the fourth was stopped at version 2."""
    records = [
        _record(n, {NOISE: noise, SIZE: size, KIND: "adam" if n % 2 else "sgd"})
        for n, (noise, size) in enumerate(itertools.product(*GRID.values()))
    ]
    records[5] |= {"status": "failed", "validation_metric": None, "curve": [], "version": -1}
    records[5] |= {"reason": "its process <b>died</b>", "seconds": None}
    if stopped:
        short = records[4]["curve"][:3]
        records[4] |= {"status": "stopped", "curve": short, "version": 2}
        records[4]["validation_metric"] = short[-1]
    found = [Dimension(key, "grid", values) for key, values in GRID.items()]
    chosen = best(records)
    assert chosen is not None
    summary = {
        "verb": "tune",
        "status": "degraded",
        "exit_code": 3,
        "task": "binary",
        "classes": ["normal", "tumour"],
        "unit": "slide",
        "metric": "AUC",
        "objectives": list(objectives),
        "space": {NOISE: "grid(0.01, 0.1, 1)", SIZE: "grid(2, 16)", KIND: "choice(adam, sgd)"},
        "search": "grid",
        "scheduler": "asha" if stopped else "none",
        "trials": [{k: v for k, v in r.items() if k != "curve"} for r in records],
        "best": chosen["trial"],
        "front": front(records, objectives) if len(objectives) > 1 else [],
        "importance": importance([*records, *records[:5]], found, 0),
        "idle": [{"key": "training.proximal_mu", "because": "it has an effect only with fedprox"}],
        "alike": {"key": SIZE, "from": 4, "trials": [1, 3, 5]},
        "final": _final(chosen["settings"]) if tested else None,
        "failed_trials": [{k: records[5][k] for k in ("trial", "settings", "reason")}],
        "failed_cells": [],
        "lost_sites": [],
        "refused": [],
        "set_aside": [],
        "seconds": 812.0,
        "versions": VERSIONS,
    }
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "trials.jsonl").write_text(lines, encoding="utf-8")
    (folder / "config.yaml").write_text(to_yaml(Config()), encoding="utf-8")
    return folder


def _record(number: int, settings: dict[str, Any]) -> dict[str, Any]:
    top = 0.9 - 0.12 * np.log10(settings[NOISE] / 0.01) - 0.004 * number
    curve = [float(0.5 + (top - 0.5) * (1 - np.exp(-v / 3))) for v in range(10)]
    return {
        "trial": number,
        "settings": settings,
        "status": "finished",
        "version": 9,
        "validation_metric": curve[-1],
        "by_division": [{"seed": 0, "fold": 0, "validation_metric": curve[-1]}],
        "curve": curve,
        "epsilon": None,
        "noise_scale": settings[NOISE],
        "seconds": 30.0 + number,
        "reason": None,
    }


def _final(settings: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    rows = []
    for seed, fold, site in itertools.product((1, 2, 3), (0, 1), ("a", "b")):
        value = float(rng.uniform(0.6, 0.8))
        for method, more in (("tuned", 0.05), ("configured", 0.0)):
            at = {"method": method, "readout": "mixture", "site": site, "seed": seed, "fold": fold}
            rows.append(at | {"value": value + more + float(rng.normal(0, 0.01)), "num_test": 9})
    return {
        **compare_methods(rows, [], judge=Judge("binary", 2)),
        "settings": {"tuned": settings, "configured": settings | {SIZE: None, KIND: "adam"}},
        "seeds": [1, 2, 3],
        "folds": 2,
        "readout": "mixture",
        "unseen": False,
        "rows": rows,
        "lost_sites": [],
        "refused": [],
    }
