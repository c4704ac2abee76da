"""Comparisons of every kind of task against hand computations."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from rayfed_hn.evaluation.comparison import ByCase, compare_methods, markdown_table
from rayfed_hn.evaluation.judging import NAMES, Judge, Kind, Truth
from rayfed_hn.evaluation.markdown import unit_column

KINDS: tuple[Kind, ...] = tuple(NAMES)
NUM_CASES, NUM_CLASSES = 9, 3


def _judge(kind: Kind) -> Judge:
    return Judge(kind, 2 if kind == "binary" else NUM_CLASSES)


def _scores(kind: Kind) -> list[dict[str, Any]]:
    """Two seeds, three folds, two sites; nine cases of two slides each, slides noisier."""
    rng, judge, records = np.random.default_rng(4), _judge(kind), []
    for site in ("a", "b"):
        label_B = rng.permutation(np.arange(NUM_CASES) % judge.num_classes)
        truth = Truth(label_B, rng.exponential(5, NUM_CASES) + 1, rng.uniform(size=NUM_CASES) < 0.8)
        for seed in (0, 1):
            slides = truth[np.repeat(np.arange(NUM_CASES), 2)]
            for unit, of in (("slide", slides), ("case", truth)):
                width = 1 if kind in ("binary", "survival") else NUM_CLASSES
                logits = rng.normal(0, 1, (len(of), width))
                logits += np.eye(3)[of.label_B] if width > 1 else of.label_B[:, None]
                rows = logits if kind == "survival" else softmax(logits, axis=1)
                rows = 1 / (1 + np.exp(-logits)) if kind == "binary" else rows
                for i in range(len(of)):
                    case = i if unit == "case" else i // 2
                    key = {"method": "local", "readout": "last", "seed": seed, "fold": case % 3}
                    key |= {"site": site, "unit": unit, "slide": i, "case": case}
                    records.append(key | judge.record_of(of, rows, i))
    return records


def _rows(unit: str = "slide", **changes: Any) -> list[dict[str, Any]]:
    """Cells whose values are different by slide and by case."""
    rows = []
    for s, (site, seed, fold) in enumerate(itertools.product("ab", range(2), range(3))):
        values = {"by_slide": 0.6 + 0.01 * s, "by_case": 0.7 + 0.02 * s}
        counts = {"num_slides": 6, "num_cases": 3} | changes
        row = {"method": "local", "readout": "last", "site": site, "seed": seed, "fold": fold}
        rows.append(row | values | counts | {"value": values[f"by_{unit}"]})
    return rows


def _by_hand(kind: Kind, records: list[dict[str, Any]]) -> float:
    labels = [record["label"] for record in records]
    if kind == "binary":
        return float(roc_auc_score(labels, [record["score"] for record in records]))
    if kind == "survival":
        return _concordance(records)
    probabilities = np.array([record["probabilities"] for record in records])
    if kind == "multiclass":
        return float(roc_auc_score(labels, probabilities, multi_class="ovr"))
    grades = np.rint(probabilities @ [0, 1, 2]).astype(int)
    return float(cohen_kappa_score(labels, grades, weights="quadratic"))


def _concordance(records: list[dict[str, Any]]) -> float:
    """By all pairs; equal times are of slides of one case, which are no pairs."""
    won, pairs = 0.0, 0
    for first, second in itertools.permutations(records, 2):
        if first["event"] and first["time"] < second["time"]:
            pairs += 1
            won += (first["score"] > second["score"]) + 0.5 * (first["score"] == second["score"])
    return won / pairs


@pytest.mark.parametrize("unit", ["slide", "case"])
@pytest.mark.parametrize("kind", KINDS)
def test_out_of_fold_is_of_the_bags_of_all_folds_of_the_task_s_unit(kind: Kind, unit: str) -> None:
    scores = _scores(kind)
    found = compare_methods(_rows(unit), scores, judge=_judge(kind), unit=unit)
    own = [record for record in scores if record["unit"] == unit]

    def by_hand(sites: str) -> float:
        parts = [[r for r in own if r["seed"] == seed and r["site"] in sites] for seed in (0, 1)]
        return float(np.mean([_by_hand(kind, part) for part in parts]))

    (row,) = found["table"]
    assert row["pooled"] == pytest.approx(by_hand("ab"))
    for site in found["per_site"]:
        assert site["out_of_fold"] == pytest.approx(by_hand(site["site"]))
        assert site["num_test"] == (2 * NUM_CASES if unit == "slide" else NUM_CASES)
    assert (found["task"], found["unit"], found["metric"]) == (kind, unit, NAMES[kind])


@pytest.mark.parametrize("unit", ["slide", "case"])
def test_means_by_slide_and_by_case_are_given_where_they_differ(unit: str) -> None:
    found = compare_methods(_rows(unit), [], judge=_judge("ordinal"), unit=unit)
    (row,) = found["table"]
    assert row["by_slide"] == pytest.approx(0.6 + 0.01 * 5.5)
    assert row["by_case"] == pytest.approx(0.7 + 0.02 * 5.5)
    assert row["mean_site"] == row[f"by_{unit}"]
    other = "case" if unit == "slide" else "slide"
    text = markdown_table(found)
    assert f"| mean site quadratic kappa ± s.e. | {unit_column(other)} | worst site |" in text
    assert f" | {row[f'by_{other}']:.3f} | " in text
    widths = {line.count("|") for line in text.splitlines() if "|" in line}
    assert widths == {8}


def test_a_mean_of_few_cells_says_of_how_many() -> None:
    rows = [{**row, "by_case": None if s else 1.0} for s, row in enumerate(_rows())]
    found = compare_methods(rows, [], judge=_judge("binary"))
    (row,) = found["table"]
    assert (row["by_case"], row["cells_by_case"], row["num_cells"]) == (1.0, 1, 12)
    assert " | 1.000 (1 of 12 cells) | " in markdown_table(found)


@pytest.mark.parametrize("unit", ["slide", "case"])
def test_nothing_is_added_where_every_case_has_one_slide(unit: str) -> None:
    rows = _rows(unit, num_slides=3, num_cases=3)
    found = compare_methods(rows, [], judge=_judge("binary"), unit=unit)
    assert not {"by_slide", "by_case"} & set(found["table"][0])
    assert "| mean site AUC ± s.e. | worst site |" in markdown_table(found)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interval_is_cut_at_the_metric_s_bounds_only(kind: Kind) -> None:
    def interval(values: list[float]) -> tuple[float, float]:
        rows = [
            {"method": "local", "readout": "last", "site": "a", "seed": 0, "fold": k, "value": v}
            for k, v in enumerate(values)
        ]
        (row,) = compare_methods(rows, [], judge=_judge(kind))["table"]
        return row["low"], row["high"]

    low, high = interval([0.1, 0.0, 0.3])
    by_hand = 0.1333 - 4.3027 * 0.0882  # Student's t with two degrees of freedom
    assert low == pytest.approx(by_hand if kind == "ordinal" else 0, abs=1e-3)
    assert high < 1
    assert interval([0.9, 1.0, 0.7])[1] == 1
    if kind == "ordinal":
        assert interval([-0.9, -1.0, -0.7])[0] == -1


def test_the_markdown_of_a_comparison_without_a_metric_is_of_aucs() -> None:
    found = compare_methods(_rows(), [], judge=_judge("binary"))
    text = markdown_table(found)
    older = {k: v for k, v in found.items() if k not in ("task", "unit", "metric")}
    assert markdown_table(older) == text


@pytest.mark.parametrize("unit", ["slide", "case"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_task_is_tested_by_case(kind: Kind, unit: str) -> None:
    scores = _scores(kind)
    predicted = [
        {name: record[name] for name in ("score", "probabilities") if name in record}
        for record in scores
    ]
    # The rival predicts of every bag what the first method does of the next one.
    rival = [
        record | found | {"method": "fedavg"}
        for record, found in zip(scores, [*predicted[1:], predicted[0]], strict=True)
    ]
    rows = [*_rows(unit), *(row | {"method": "fedavg"} for row in _rows(unit))]
    how: dict[str, Any] = {"judge": _judge(kind), "unit": unit, "by_case": ByCase(100, 0)}
    found = compare_methods(rows, [*scores, *rival], **how)
    tests = [test for test in found["tests"] if test["metric"] == found["metric"]]
    pooled = {row["method"]: row["pooled"] for row in found["table"]}
    means = {
        method: np.mean([r["out_of_fold"] for r in found["per_site"] if r["method"] == method])
        for method in pooled
    }
    for scope, values in (("pooled", pooled), ("mean of sites", means)):
        own = [test for test in tests if test["scope"] == scope]
        assert own
        for test in own:
            assert test["difference"] == pytest.approx(values["local"] - values["fedavg"])
            assert test["low"] <= test["difference"] <= test["high"]
            assert test["num_cases"] == 2 * NUM_CASES
    names = {measure["metric"] for measure in found["measures"]}
    assert bool(names) == (kind in ("binary", "multiclass"))
    assert ("DeLong by case" in {test["kind"] for test in tests}) == (kind == "binary")
