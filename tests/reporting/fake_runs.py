"""Run directories as train and compare leave them, with numbers that are made up."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayfed_hn.config import Config
from rayfed_hn.evaluation.comparison import ByCase, compare_methods
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.metrics import auc
from rayfed_hn.loading import to_yaml

SITES = ("Cedar Hospital", "Lakeside", "North Clinic", "<b>x", "St. Mary's & Sons")
METHODS = {"local": 0.9, "fedavg": 1.1, "hypernetwork": 1.5}
READOUTS = ("last", "best", "mixture")
VERSIONS = {"python": "3.11.9", "rayfed_hn": "0.1.0", "torch": "2.13.0"}


def fake_metrics(rng: np.random.Generator, sites: Sequence[str], strength: float) -> list[dict]:
    records = []
    for site, version in itertools.product(sites, range(12)):
        learned = 1 - np.exp(-version / 4)
        values: dict[str, Any] = {
            "train_loss": 0.7 - 0.3 * learned + rng.normal(0, 0.02),
            "validation_metric": float(np.clip(0.5 + 0.3 * strength * learned / 1.5, 0, 1)),
            "validation_loss": 0.7 - 0.2 * learned + rng.normal(0, 0.03),
            "update_norm": float(np.exp(-version / 5 + rng.normal(0, 0.1))),
        }
        values["validation_metric"] += rng.normal(0, 0.02)
        about = {"version": version, "made": version + 1, "turn": version, "staleness": 0}
        about |= {"site": site, "time": 2.0 * (version + 1)}
        records.append({**about, **values, "num_steps": 10, "seconds": 1})
    return records


def fake_scores(rng: np.random.Generator, num_bags: int, strength: float) -> list[dict]:
    return [
        {
            "slide": i,
            "case": i // 2,
            "label": i % 2,
            "readout": readout,
            "score": float(1 / (1 + np.exp(-rng.normal(strength * (i % 2 - 0.5))))),
        }
        for i in range(num_bags)
        for readout in READOUTS
    ]


def auc_of(scores: list[dict], readout: str) -> float | None:
    own = [s for s in scores if s["readout"] == readout]
    return auc([s["label"] for s in own], [s["score"] for s in own])


def _write(folder: Path, summary: dict[str, Any], metrics: list[dict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    lines = "".join(json.dumps(record) + "\n" for record in metrics)
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    (folder / "config.yaml").write_text(to_yaml(Config()), encoding="utf-8")
    return folder


def make_train_run(folder: Path, sites: Sequence[str] = SITES, num_bags: int = 14) -> Path:
    """A training run in which the first site was lost."""
    rng = np.random.default_rng(1)
    rows = []
    for i, site in enumerate(sites):
        scores = [] if i == 0 else fake_scores(rng, num_bags, 1.5 + 0.2 * i)
        rows.append(
            {
                "site": site,
                "num_train": 40 + i,
                "num_validation": 10,
                "num_test": num_bags,
                "num_updates": 12,
                **{f"test_{readout}": auc_of(scores, readout) for readout in READOUTS},
                "best_version": None if i == 0 else 9,
            }
        )
        if scores:
            path = folder / "sites" / site / "scores.parquet"
            path.parent.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(scores), path)
    summary = {
        "verb": "train",
        "status": "degraded",
        "exit_code": 3,
        "method": "hypernetwork",
        "readout": "mixture",
        "sites": rows,
        "num_versions": 12,
        "clock": "real",
        "clock_seconds": 24.0,
        "busy_share": None,
        "num_refused": 0,
        "absences": 0,
        "num_parameters": 788_739,
        "classes": ["normal", "tumour"],
        "privacy": {
            "mechanism": "paper",
            "noise_scale": 0.1,
            "noise_source": "seeded",
            "formal_guarantee": "none",
        },
        "released_without_noise": [
            "once, mean and variance of every feature",
            "at the end, scores",
        ],
        "lost_sites": [{"site": sites[0], "version": 5, "reason": "no answer in time"}],
        "set_aside": [],
        "seconds": 183.4,
        "versions": VERSIONS,
    }
    return _write(folder, summary, fake_metrics(rng, sites, 1.2))


def make_late_run(folder: Path) -> Path:
    """A training run by a simulated clock, in which later sites answer later and less often."""
    make_train_run(folder)
    path = folder / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept = []
    for record in records:
        lateness = SITES.index(record["site"])
        if record["version"] % (1 + lateness) == 0:
            kept.append(record | {"staleness": lateness * (record["version"] % 5)})
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    summary |= {"clock": "simulated", "clock_seconds": 11_000.0, "busy_share": 0.634}
    summary |= {"num_refused": 3, "absences": 2}
    return _write(folder, summary, kept)


def make_compare_run(
    folder: Path,
    sites: Sequence[str] = SITES,
    methods: Sequence[str] = tuple(METHODS),
    *,
    by_case: ByCase | None = None,
) -> Path:
    """A comparison of 2 seeds x 5 folds with one failed cell."""
    rng = np.random.default_rng(0)
    rows, scores, metrics = [], [], []
    for method, seed, fold in itertools.product(methods, range(2), range(5)):
        key = {"method": method, "seed": seed, "fold": fold}
        if method == "fedavg" and (seed, fold) == (1, 4):
            continue
        strength = METHODS.get(method, 1.0)
        metrics += [key | record for record in fake_metrics(rng, sites, strength)]
        for number, site in enumerate(sites):
            found = fake_scores(rng, 12, strength + 0.25 * number)
            scores += [key | s | {"site": site, "slide": 12 * fold + s["slide"]} for s in found]
            rows += [
                key | {"site": site, "readout": r, "value": auc_of(found, r), "num_test": 12}
                for r in READOUTS
            ]
    failed = [{"method": "fedavg", "seed": 1, "fold": 4, "reason": "its worker died"}]
    summary = {
        "verb": "compare",
        "status": "degraded" if "fedavg" in methods else "complete",
        "exit_code": 3,
        "methods": list(methods),
        "seeds": 2,
        "folds": 5,
        "classes": ["normal", "tumour"],
        "rows": rows,
        **compare_methods(rows, scores, judge=Judge("binary", 2), by_case=by_case),
        "failed_cells": failed if "fedavg" in methods else [],
        "lost_sites": [],
        "set_aside": [],
        "seconds": 2_613.0,
        "versions": VERSIONS,
    }
    return _write(folder, summary, metrics)
