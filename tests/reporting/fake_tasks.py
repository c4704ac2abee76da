"""Run directories of every kind of task, two slides a case, with numbers that are made up."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fake_runs import READOUTS, SITES, make_compare_run, make_train_run
from scipy.special import softmax

from rayfed_hn.evaluation.comparison import compare_methods
from rayfed_hn.evaluation.judging import NAMES, Judge, Kind, Truth

KINDS: tuple[Kind, ...] = tuple(NAMES)
CLASSES: dict[Kind, list[str]] = {
    "binary": ["normal", "tumour"],
    "multiclass": ["adenocarcinoma", "squamous", "other"],
    "ordinal": ["0", "1", "2", "3"],
    "survival": ["0 to 10", "10 to 20", "from 20"],
}
NUM_CASES = 12


def judge_of(kind: Kind) -> Judge:
    return Judge(kind, len(CLASSES[kind]))


def _truth(rng: np.random.Generator, kind: Kind) -> Truth:
    label_B = rng.permutation(np.arange(NUM_CASES) % len(CLASSES[kind]))
    event_B = rng.uniform(size=NUM_CASES) < 0.7
    event_B[:2] = True
    return Truth(label_B, np.round(rng.exponential(14, NUM_CASES) + 1, 1), event_B)


def _predictions(rng: np.random.Generator, kind: Kind, truth: Truth, skill: float) -> np.ndarray:
    noise = rng.normal(0, 1, (len(truth), len(CLASSES[kind])))
    if kind == "survival":
        return -skill * np.log(truth.time_B)[:, None] + noise[:, :1]
    if kind == "ordinal":
        distance = np.abs(np.arange(len(CLASSES[kind])) - truth.label_B[:, None])
        return softmax(noise - skill * distance, axis=1)
    probabilities = softmax(noise + skill * np.eye(len(CLASSES[kind]))[truth.label_B], axis=1)
    return probabilities[:, 1:] if kind == "binary" else probabilities


def _site(
    rng: np.random.Generator, kind: Kind, unit: str, skill: float, first_case: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows and scores of one site, two slides a case."""
    judge, of_case = judge_of(kind), np.repeat(np.arange(NUM_CASES), 2)
    cases, rows, scores = _truth(rng, kind), [], []
    for readout in READOUTS:
        slides = cases[of_case]
        by_slide = _predictions(rng, kind, slides, skill)
        by_case = by_slide.reshape(NUM_CASES, 2, -1).mean(axis=1)
        units = {"slide": (slides, by_slide, of_case), "case": (cases, by_case, np.unique(of_case))}
        row: dict[str, Any] = {"readout": readout}
        for name, (truth, predictions, case_B) in units.items():
            row |= {f"by_{name}": judge.value(truth, predictions), f"num_{name}s": len(truth)}
            scores += [
                {
                    "readout": readout,
                    "unit": name,
                    "slide": 2 * first_case + i,
                    "case": first_case + int(case_B[i]),
                    **judge.record_of(truth, predictions, i),
                }
                for i in range(len(truth))
            ]
        rows.append(row | {"value": row[f"by_{unit}"], "num_test": row[f"num_{unit}s"]})
    return rows, scores


def _change(folder: Path, changes: dict[str, Any]) -> Path:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))
    return folder


def _about(kind: Kind, unit: str) -> dict[str, Any]:
    return {"task": kind, "unit": unit, "metric": NAMES[kind], "classes": CLASSES[kind]}


def make_task_train_run(folder: Path, kind: Kind, unit: str = "slide") -> Path:
    """A training run of a task in which the first site was lost."""
    make_train_run(folder)
    rng = np.random.default_rng(3)
    sites = json.loads((folder / "summary.json").read_text())["sites"]
    for summary in sites[1:]:
        rows, scores = _site(rng, kind, unit, 1.5)
        values = {row["readout"]: row for row in rows}
        chosen = values["mixture"]
        summary |= {f"test_{readout}": row["value"] for readout, row in values.items()}
        summary |= {name: chosen[name] for name in ("num_test", "by_slide", "by_case")}
        summary |= {"num_test_slides": chosen["num_slides"], "num_test_cases": chosen["num_cases"]}
        path = folder / "sites" / summary["site"] / "scores.parquet"
        pq.write_table(pa.Table.from_pylist(scores), path)
    sites[0] |= {"num_test_slides": 0, "num_test_cases": 0, "by_slide": None, "by_case": None}
    return _change(folder, {"sites": sites, **_about(kind, unit)})


def make_task_compare_run(folder: Path, kind: Kind, unit: str = "slide") -> Path:
    """A comparison of two methods over 1 seed x 4 folds."""
    methods = {"local": 1.0, "hypernetwork": 2.0}
    make_compare_run(folder, methods=tuple(methods))
    rows, scores = [], []
    for (method, skill), fold, site in itertools.product(methods.items(), range(4), SITES):
        key = {"method": method, "seed": 0, "fold": fold, "site": site}
        # Both methods are tested on the same cases.
        rng = np.random.default_rng([fold, SITES.index(site)])
        found = _site(rng, kind, unit, skill, first_case=NUM_CASES * fold)
        rows += [key | row for row in found[0]]
        scores += [key | score for score in found[1]]
    compared = compare_methods(rows, scores, judge=judge_of(kind), unit=unit)
    return _change(folder, {"rows": rows, **compared, **_about(kind, unit), "folds": 4, "seeds": 1})
