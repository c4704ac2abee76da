"""Labelled bags of a new site: nested, balanced, never under test; and the curve over them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joining import NEW, arms_for, bags_of, everything, origin, task_origin, two_slides_a_case
from tiny_federations import TASK_WORDS, federation

from rayfed_hn.federation.cards import card_of
from rayfed_hn.federation.data import Folds, SiteBag
from rayfed_hn.federation.onboarding.arms import ZERO_SHOT
from rayfed_hn.federation.onboarding.trial import (
    RECOMMENDED,
    Labelled,
    attempt,
    curve,
    divide,
    draw,
    summarise,
)
from rayfed_hn.federation.survey import task_of_cards
from rayfed_hn.loading import load
from rayfed_hn.models.tasks import Binary, Multiclass, Survival, Task
from rayfed_hn.seeds import derive


def _slides(bags: tuple[SiteBag, ...]) -> set[int]:
    return {bag.slide for bag in bags}


def _task(root: Path, *words: str) -> Task:
    bags = bags_of(root, Binary(("0", "1")))
    config = load(None, list(words))
    folds, shapes = Folds.of(config), Binary(("0", "1"))
    return task_of_cards(config, [card_of(config, bags, folds, shapes, "")])


@pytest.fixture(scope="module")
def cases_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_slides_a_case(tmp_path_factory.mktemp("cases"))


def _bag(number: int, label: int, *, event: bool = True) -> SiteBag:
    features = np.zeros((1, 2), np.float32)
    return SiteBag(features, label, event=event, slide=number, case=number)


STRATA: list[Task] = [Multiclass(("x", "y", "z")), Survival(("0 to 1", "1 to 2", "from 2"))]


@given(
    st.sampled_from(STRATA),
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=30),
    st.integers(0, 2**62),
)
def test_draws_are_nested_and_balanced(task: Task, rows: list[tuple[int, bool]], seed: int) -> None:
    bags = tuple(_bag(i, label, event=event) for i, (label, event) in enumerate(rows))
    test = (_bag(99, 0),)
    smallest = min(np.unique([task.stratum(bag) for bag in bags], return_counts=True)[1], default=0)
    before: tuple[SiteBag, ...] = ()
    for count in range(int(smallest) + 1):
        found = draw(Labelled(bags, test), task, count, seed)
        assert found is not None
        assert found.test is test
        strata, counts = np.unique([task.stratum(bag) for bag in found.bags], return_counts=True)
        assert (counts == count).all()
        if count:
            assert set(strata.tolist()) == {task.stratum(bag) for bag in bags}
        assert _slides(before) <= _slides(found.bags) <= _slides(bags)
        before = found.bags
    assert draw(Labelled(bags, test), task, int(smallest) + 1, seed) is None


def test_another_seed_draws_other_bags(tasks_root: Path) -> None:
    task = Binary(("0", "1"))
    whole = everything(tasks_root, task)
    found = [draw(whole, task, 2, seed) for seed in range(20)]
    drawn = {frozenset(_slides(one.bags)) for one in found if one is not None}
    assert len(drawn) > 5
    again = draw(whole, task, 2, 3)
    assert again is not None
    assert found[3] is not None
    assert _slides(again.bags) == _slides(found[3].bags)


@pytest.mark.parametrize("unit", ["slide", "case"])
@pytest.mark.parametrize("num_folds", [3, 5])
def test_no_case_under_test_is_labelled_and_repeats_test_all_in_turn(
    cases_root: Path, unit: str, num_folds: int
) -> None:
    task, bags = Binary(("0", "1"), unit), bags_of(cases_root, Binary(("0", "1")))
    tested: list[set[int]] = []
    folds = Folds(num_folds, 1, 4)
    for repeat in range(2 * num_folds):
        whole = divide(bags, task, folds.shifted(repeat))
        cases = {bag.case for bag in whole.test}
        assert not cases & {bag.case for bag in whole.bags}
        assert len(whole.bags) + len(whole.test) == (8 if unit == "case" else 16)
        for count in (1, 2):
            found = draw(whole, task, count, repeat)
            assert found is not None
            assert not cases & {bag.case for bag in found.bags}
        tested.append(cases)
    assert tested[:num_folds] == tested[num_folds:]
    assert sum(map(len, tested[:num_folds])) == len(set().union(*tested)) == 8
    assert _slides(divide(bags, task, folds.shifted(0)).test) == _slides(
        divide(bags, task, folds).test
    )


def test_the_curve_is_made_of_single_attempts(tasks_root: Path) -> None:
    arms = arms_for(task_origin(tasks_root, "binary"), labelled=[0, 2, 50, 1], repeats=2)
    task, bags, done = arms.origin.task, bags_of(tasks_root, arms.origin.task), []
    folds = Folds(5, 3, 0)
    records = list(curve(arms, bags, folds, done.append))
    assert done == list(range(1, 9))
    assert {(r["labelled"], r["repeat"]) for r in records} == {
        (count, repeat) for count in (0, 1, 2) for repeat in (0, 1)
    }
    for repeat in (0, 1):
        whole = divide(bags, task, folds.shifted(repeat))
        few = draw(whole, task, 2, derive(0, "onboarding draw", NEW, repeat))
        assert few is not None
        hand = attempt(arms, few, repeat).values
        own = [r for r in records if (r["labelled"], r["repeat"]) == (2, repeat)]
        assert {r["arm"]: r["value"] for r in own} == hand
    assert list(curve(arms, bags, folds)) == records


def test_a_summary_is_of_the_values_that_there_are() -> None:
    rows = [(4, "x", 0.5), (4, "x", None), (4, "x", 0.8), (4, "x", 0.5), (0, "x", 0.25)]
    rows += [(0, "y", None)]
    records = [{"labelled": n, "arm": arm, "value": v, "repeat": 0} for n, arm, v in rows]
    assert summarise(records) == [
        {"labelled": 0, "arm": "x", "mean": 0.25, "se": None, "num": 1},
        {"labelled": 0, "arm": "y", "mean": None, "se": None, "num": 0},
        {
            "labelled": 4,
            "arm": "x",
            "mean": pytest.approx(0.6),
            "se": pytest.approx(0.1),  # sqrt(.03) / sqrt(3)
            "num": 3,
        },
    ]
    assert summarise([]) == []


@pytest.mark.parametrize("unit", ["slide", "case"])
@pytest.mark.parametrize("kind", TASK_WORDS)
def test_every_task_and_unit_joins(cases_root: Path, kind: str, unit: str) -> None:
    words = [word for word in TASK_WORDS[kind] if "num_bins" not in word]
    own = origin(cases_root, *words, f"task.unit={unit}", "data.folds=3")
    arms = arms_for(own, labelled=[0, 1, 2], repeats=3)
    task, bags = own.task, bags_of(cases_root, own.task)
    assert (task.kind, task.unit) == (kind, unit)
    records = list(curve(arms, bags, Folds(3, 0, 0)))
    lowest, highest = task.judge.bounds
    values = [r["value"] for r in records if r["value"] is not None]
    assert values
    assert all(lowest <= value <= highest for value in values)
    zero = {r["arm"] for r in records if r["labelled"] == 0}
    assert zero == {"zero-shot", RECOMMENDED}
    assert {r["labelled"] for r in records} >= {0, 1}
    tried = attempt(arms, divide(bags, task, Folds(3, 0, 0)), 0)
    assert RECOMMENDED in tried.values
    assert sum(tried.recommendation.weights.values()) == pytest.approx(1)


@cache
def _odd_store(root: Path) -> Path:
    labels = {"a": tuple("01" * 4), "b": tuple("01" * 4), "c": ("1",) * 5, "d": ("0",)}
    return federation(root, labels)


@pytest.mark.parametrize(("site", "num"), [("c", 5), ("d", 1)])
def test_a_site_with_one_class_or_one_bag(
    tmp_path_factory: pytest.TempPathFactory, site: str, num: int
) -> None:
    """Its metric is never defined, its networks are made all the same."""
    root = _odd_store(tmp_path_factory.getbasetemp() / "odd")
    arms = arms_for(origin(root, "data.leave_out=c,d"), labelled=[0, 1, 4], repeats=5)
    bags, folds = bags_of(root, arms.origin.task, site), Folds(5, 0, 0)
    records = list(curve(arms, bags, folds))
    assert {r["value"] for r in records} == {None}
    assert {r["labelled"] for r in records} >= {0}
    for repeat in range(5):
        tried = attempt(arms, divide(bags, arms.origin.task, folds.shifted(repeat)), 0)
        assert len(set(tried.recommendation.weights.values())) == 1
        labelled = divide(bags, arms.origin.task, folds.shifted(repeat))
        assert len(labelled.bags) + len(labelled.test) == num


def test_a_sites_own_scale_needs_no_labels(tasks_root: Path) -> None:
    own = task_origin(tasks_root, "binary", "model.standardise=site")
    arms, pool = arms_for(own), everything(tasks_root, own.task)
    nothing, some = (draw(pool, own.task, count, 0) for count in (0, 2))
    assert nothing is not None
    assert some is not None
    scales = [attempt(arms, chosen, 0).fitted[ZERO_SHOT].scale for chosen in (nothing, some, pool)]
    assert scales[0] is not None
    for scale in scales[1:]:
        assert scale is not None
        np.testing.assert_array_equal(scale.centre_D, scales[0].centre_D)
        np.testing.assert_array_equal(scale.deviation_D, scales[0].deviation_D)
