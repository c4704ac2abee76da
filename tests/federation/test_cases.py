"""Slides and cases as what is trained on and judged, against counting by hand."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_federations import DIM, TASK_WORDS, create, plan_of, write

from rayfed_hn.bags import store
from rayfed_hn.errors import DataError
from rayfed_hn.federation.data import SiteBag
from rayfed_hn.federation.experiment import Outcome, run_in_process
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.results import score_records, site_rows
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.scoring import score_bags

RAW = ("model.standardise=none", "data.folds=3")
CASE = "task.unit=case"


def several_slides(root: Path, *, mixed: bool = False, num: int = 12) -> Path:
    """Cases of one to three slides; in a mixed one the last slide has a higher label."""
    create(root)
    rng = np.random.default_rng(5)
    for site in "abc":
        for i in range(num):
            follow_up: dict[str, Any] = {"time": float(rng.exponential(9)), "event": bool(i % 3)}
            num_slides = 1 + i % 3
            for s in range(num_slides):
                label = min(2, i % 2 + (mixed and s == num_slides - 1 > 0))
                write(root, site, f"{site}{i}-{s}", str(label), case=f"{site}{i}", **follow_up)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return several_slides(tmp_path_factory.mktemp("cases") / "bags")


@pytest.fixture(scope="module")
def mixed_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return several_slides(tmp_path_factory.mktemp("mixed") / "bags", mixed=True)


def value_of(rows: list[dict[str, Any]], site: str, key: str) -> Any:
    (row,) = (r for r in rows if (r["site"], r["readout"]) == (site, "last"))
    return row[key]


def share_in_order(pairs: list[tuple[float, float]]) -> float | None:
    """Of pairs of scores, the lower one first as it should be."""
    won = [1.0 if a < b else 0.5 if a == b else 0.0 for a, b in pairs]
    return float(np.mean(won)) if won else None


def auc_by_hand(scored: list[tuple[SiteBag, float]]) -> float | None:
    known = [(bag.label, score) for bag, score in scored]
    return share_in_order([(a, b) for i, a in known if i == 0 for j, b in known if j == 1])


def concordance_by_hand(scored: list[tuple[SiteBag, float]]) -> float | None:
    pairs = []
    for (one, a), (other, b) in combinations(scored, 2):
        early, late = ((one, a), (other, b))[:: 1 if one.time <= other.time else -1]
        if early[0].event and early[0].time < late[0].time:
            pairs.append((late[1], early[1]))
        elif one.time == other.time and one.event != other.event:
            pairs.append((b, a) if one.event else (a, b))
    return share_in_order(pairs)


def scored_by_hand(
    plan: Plan, outcome: Outcome, site: str
) -> dict[str, list[tuple[SiteBag, float]]]:
    """Evidence of every test slide, and of every test case as its unit has it."""
    theta = torch.tensor(outcome.server.parameters_for(site))
    data = plan.site(site).data
    slides = data.test_slides or data.test

    def score(features_ND: np.ndarray) -> float:
        bag = [LabelledBag(features_ND, 0)]
        return float(score_bags(plan.model(), theta, bag, plan.task).evidence_BE[0, 0])

    of_slides = [(bag, score(bag.features_ND)) for bag in slides]
    assert all(not bag.more for bag in slides)
    of_cases = []
    for case in dict.fromkeys(bag.case for bag in slides):
        own = [(bag, value) for bag, value in of_slides if bag.case == case]
        whole = score(np.concatenate([bag.features_ND for bag, _ in own]))
        united = whole if plan.task.unit == "case" else float(np.mean([v for _, v in own]))
        of_cases.append((own[0][0], united))
    return {"by_slide": of_slides, "by_case": of_cases}


@pytest.mark.parametrize("unit", ["slide", "case"])
@pytest.mark.parametrize("task", ["binary", "survival"])
def test_both_metrics_are_counted_by_hand(root: Path, task: str, unit: str) -> None:
    plan = plan_of(root, *TASK_WORDS[task], f"task.unit={unit}", *RAW)
    outcome = run_in_process(plan)
    rows = site_rows(plan, outcome.scores)
    metric = auc_by_hand if task == "binary" else concordance_by_hand
    differ = 0
    for site in plan.hospitals:
        by_hand = scored_by_hand(plan, outcome, site)
        expected = {key: metric(scored) for key, scored in by_hand.items()}
        for key, value in expected.items():
            assert value_of(rows, site, key) == pytest.approx(value)
        assert value_of(rows, site, "value") == value_of(rows, site, f"by_{unit}")
        assert value_of(rows, site, "num_cases") == len(by_hand["by_case"])
        assert value_of(rows, site, "num_test") == len(by_hand[f"by_{unit}"])
        assert len(by_hand["by_case"]) < len(by_hand["by_slide"])
        differ += expected["by_slide"] != expected["by_case"]
    assert differ  # or the two could have been exchanged


@pytest.mark.parametrize("task", TASK_WORDS)
def test_cases_of_one_slide_make_no_difference(tasks_root: Path, task: str) -> None:
    found = []
    for unit in ("slide", "case"):
        plan = plan_of(tasks_root, *TASK_WORDS[task], f"task.unit={unit}")
        outcome = run_in_process(plan)
        rows = site_rows(plan, outcome.scores)
        assert all(row["by_slide"] == row["by_case"] == row["value"] for row in rows)
        found.append((outcome.digest, rows))
    assert found[0] == found[1]


@pytest.mark.parametrize("unit", ["slide", "case"])
@pytest.mark.parametrize("task", TASK_WORDS)
def test_records_say_all_that_a_metric_needs(root: Path, task: str, unit: str) -> None:
    words = TASK_WORDS[task] if task == "survival" else [f"task.kind={task}"]
    plan = plan_of(root, *words, f"task.unit={unit}", *RAW)
    outcome = run_in_process(plan)
    judge, records = plan.task.judge, score_records(plan, outcome.scores)
    for row in site_rows(plan, outcome.scores):
        for of in ("slide", "case"):
            own = [
                r
                for r in records
                if (r["site"], r["readout"], r["unit"]) == (row["site"], row["readout"], of)
            ]
            assert judge.of_records(json.loads(json.dumps(own))) == row[f"by_{of}"]
    assert judge.of_records([]) is None


def test_bags_are_whole_cases_and_test_slides_come_besides(root: Path) -> None:
    plan = plan_of(root, CASE, *RAW)
    for site in plan.hospitals:
        data, entries = plan.site(site).data, store.SiteBags(root, site).entries
        parts = (data.train, data.validation, data.test)
        assert tuple(map(len, parts)) == plan.num_bags[site]
        assert sum(map(len, parts)) == len({entry.case_id for entry in entries}) == 12
        tiles = sum(len(bag) for part in parts for bag in part)
        assert tiles == sum(entry.num_tiles for entry in entries)
        assert len({bag.case for part in parts for bag in part}) == 12
        assert {bag.case for bag in data.test_slides} == {bag.case for bag in data.test}
        of_slides = sum(len(bag) for bag in data.test_slides)
        assert of_slides == sum(len(bag) for bag in data.test)
        assert max(len(bag.parts()) for bag in data.train) > 1


@pytest.mark.parametrize("task", TASK_WORDS)
def test_pooled_training_on_cases(root: Path, task: str) -> None:
    words = [w for w in TASK_WORDS[task] if task != "binary"]
    plan = plan_of(root, *words, CASE, "method.name=pooled", "data.folds=3")
    outcome = run_in_process(plan)
    assert not outcome.lost
    rows = site_rows(plan, outcome.scores)
    for site in plan.hospitals:
        assert value_of(rows, site, "num_test") == plan.num_bags[site][2]
        assert value_of(rows, site, "by_slide") is not None
    records = score_records(plan, outcome.scores)
    cases = {r["case"] for r in records if r["unit"] == "case"}
    assert cases == {r["case"] for r in records if r["unit"] == "slide"}
    assert len(cases) == sum(num_test for _, _, num_test in plan.num_bags.values())


# -- slides of one case that disagree ------------------------------------------------------------


@pytest.mark.parametrize("unit", ["slide", "case"])
@pytest.mark.parametrize("task", ["binary", "ordinal"])
def test_a_case_has_the_highest_label_of_its_slides(mixed_root: Path, task: str, unit: str) -> None:
    words = {"binary": "task.classes=0,1", "ordinal": "task.kind=ordinal"}[task]
    plan = plan_of(mixed_root, words, f"task.unit={unit}", *RAW)
    outcome = run_in_process(plan)
    records = score_records(plan, outcome.scores)
    assert not outcome.lost
    slides: dict[int, set[int]] = {}
    for record in records:
        if record["unit"] == "slide":
            slides.setdefault(record["case"], set()).add(record["label"])
    cases = {r["case"]: r["label"] for r in records if r["unit"] == "case"}
    assert cases == {case: max(labels) for case, labels in slides.items()}
    assert any(len(labels) > 1 for labels in slides.values())


def test_classes_without_an_order_cannot_be_joined(mixed_root: Path) -> None:
    with pytest.raises(DataError, match=r"task\.unit=case: 24 case\(s\) have slides of diff"):
        plan_of(mixed_root, "task.kind=multiclass", CASE)


def test_cases_whose_class_is_not_decided_are_judged_by_slide_alone(mixed_root: Path) -> None:
    plan = plan_of(mixed_root, "task.kind=multiclass", *RAW)
    outcome = run_in_process(plan)
    records = score_records(plan, outcome.scores)
    labels: dict[int, set[int]] = {}
    for record in records:
        if record["unit"] == "slide":
            labels.setdefault(record["case"], set()).add(record["label"])
    cases = {r["case"] for r in records if r["unit"] == "case"}
    assert cases == {case for case, found in labels.items() if len(found) == 1}
    assert 0 < len(cases) < len(labels)


def test_features_are_measured_over_all_slides_of_a_case(root: Path) -> None:
    plan = plan_of(root, CASE)
    site = plan.site("a")
    mean_D, variance_D = site._measure()
    tiles = [np.concatenate(bag.parts()) for bag in site.data.train]
    expected = np.mean([bag.mean(axis=0) for bag in tiles], axis=0)
    assert mean_D.shape == variance_D.shape == (DIM,)
    np.testing.assert_allclose(mean_D, expected, atol=1e-6)
