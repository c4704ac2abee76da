from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from rayfed_hn.evaluation.ordinal import quadratic_kappa

_C = 5
# Few distinct grades and scores make ties the rule.
_CALLS = st.lists(st.tuples(st.integers(0, _C - 1), st.integers(0, _C - 1)), max_size=25)
_BAGS = st.lists(st.tuples(st.integers(0, _C - 1), st.integers(-3, 3)), max_size=25)


def _split(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([a for a, _ in pairs], dtype=int), np.array([b for _, b in pairs], dtype=int)


def _oracle_kappa(labels: list[int], predicted: list[int]) -> float | None:
    observed = sum((a - b) ** 2 for a, b in zip(labels, predicted, strict=True))
    expected = 0
    for a in labels:
        for b in predicted:
            expected += (a - b) ** 2
    return 1 - observed * len(labels) / expected if expected else None


def _oracle_concordance(labels: list[int], scores: list[int]) -> float | None:
    pairs, won = 0, 0.0
    for label_i, score_i in zip(labels, scores, strict=True):
        for label_j, score_j in zip(labels, scores, strict=True):
            if label_i < label_j:
                pairs += 1
                won += (score_i < score_j) + (score_i == score_j) / 2
    return won / pairs if pairs else None


@given(_CALLS)
def test_kappa_is_what_its_definition_says(calls: list[tuple[int, int]]) -> None:
    labels, predicted = _split(calls)
    expected = _oracle_kappa(labels.tolist(), predicted.tolist())
    assert quadratic_kappa(labels, predicted, _C) == expected


@given(_CALLS)
def test_kappa_agrees_with_scikit_learn(calls: list[tuple[int, int]]) -> None:
    labels, predicted = _split(calls)
    found = quadratic_kappa(labels, predicted, _C)
    if found is None:
        assert len({*labels, *predicted}) < 2
        return
    expected = cohen_kappa_score(labels, predicted, labels=range(_C), weights="quadratic")
    assert found == pytest.approx(expected, abs=1e-12)


@given(_CALLS)
def test_kappa_is_symmetric_and_blind_to_direction_origin_and_unit(calls) -> None:
    labels, predicted = _split(calls)
    found = quadratic_kappa(labels, predicted, _C)
    assert quadratic_kappa(predicted, labels, _C) == found
    assert quadratic_kappa(_C - 1 - labels, _C - 1 - predicted, _C) == found
    assert quadratic_kappa(3 * labels + 2, 3 * predicted + 2, 3 * _C) == found


@given(st.lists(st.integers(0, _C - 1), min_size=1, max_size=25))
def test_kappa_of_the_best_is_1_and_of_a_constant_0(labels: list[int]) -> None:
    found = quadratic_kappa(labels, labels, _C)
    constant = quadratic_kappa(labels, [labels[0]] * len(labels), _C)
    if len(set(labels)) < 2:
        assert found is None
        assert constant is None
        return
    assert found == 1
    assert constant == 0


def test_kappa_punishes_far_misses_more_than_near_ones() -> None:
    labels = [0, 1, 2, 3]
    # Against these labels a prediction of 0 to 3 adds 14, 6, 6, 14 to the expected disagreement.
    assert quadratic_kappa(labels, [1, 1, 2, 3], 4) == pytest.approx(1 - 4 * 1 / (6 + 6 + 6 + 14))
    assert quadratic_kappa(labels, [3, 1, 2, 3], 4) == pytest.approx(1 - 4 * 9 / (14 + 6 + 6 + 14))


def test_kappa_of_opposites_is_minus_1() -> None:
    assert quadratic_kappa([0, 0, 4, 4], [4, 4, 0, 0], _C) == -1


def test_kappa_of_many_grades_does_not_overflow() -> None:
    grades = np.repeat([0, 99_999], 100_000)
    assert quadratic_kappa(grades.astype(np.int32), grades.astype(np.int32), 100_000) == 1


@pytest.mark.parametrize(
    ("labels", "predicted", "match"),
    [
        ([0, 5], [0, 1], "labels must be whole numbers from 0 to 4"),
        ([0, 1], [0, 1.5], "predicted grades must be"),
        ([0, 1], [-1, 1], "predicted grades must be"),
        ([0, math.nan], [0, 1], "labels must be"),
        ([0, 1], [0, 1, 2], "lists of one length"),
        ([[0], [1]], [[0], [1]], "lists of one length"),
    ],
)
def test_kappa_refuses_what_is_no_grade(labels, predicted, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        quadratic_kappa(labels, predicted, _C)
