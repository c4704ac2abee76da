from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rayfed_hn.evaluation.multiclass import macro_auc

_C = 4
# Eighths are exact and few, so ties are the rule.
_EIGHTHS = st.integers(0, 8).map(lambda count: count / 8)
_BAGS = st.lists(st.tuples(st.integers(0, _C - 1), st.tuples(*[_EIGHTHS] * _C)), max_size=20)
_CALLS = st.lists(st.tuples(st.integers(0, _C - 1), st.integers(0, _C - 1)), max_size=20)


def _split(bags: list) -> tuple[np.ndarray, np.ndarray]:
    labels_B = np.array([label for label, _ in bags], dtype=int)
    return labels_B, np.array([row for _, row in bags], dtype=float).reshape(-1, _C)


def _oracle_macro_auc(labels: list[int], rows: list[list[float]]) -> float | None:
    areas = []
    for number in range(_C):
        inside = [row[number] for label, row in zip(labels, rows, strict=True) if label == number]
        others = [row[number] for label, row in zip(labels, rows, strict=True) if label != number]
        won = [(a > b) + (a == b) / 2 for a in inside for b in others]
        areas += [sum(won) / len(won)] if won else []
    return sum(areas) / len(areas) if areas else None


@given(_BAGS)
def test_macro_auc_is_the_mean_share_of_pairs_in_the_right_order(bags: list) -> None:
    labels_B, probabilities_BC = _split(bags)
    expected = _oracle_macro_auc(labels_B.tolist(), probabilities_BC.tolist())
    found = macro_auc(labels_B, probabilities_BC)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found == pytest.approx(expected, abs=1e-12)


@given(st.integers(3, 5), st.integers(0, 25), st.integers(0, 2**32 - 1))
def test_macro_auc_agrees_with_scikit_learn_on_complete_classes(
    num_classes: int, extra: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels_B = np.concatenate([np.arange(num_classes), rng.integers(num_classes, size=extra)])
    counts_BC = rng.integers(1, 4, size=(len(labels_B), num_classes))
    probabilities_BC = counts_BC / counts_BC.sum(axis=1, keepdims=True)
    expected = roc_auc_score(labels_B, probabilities_BC, multi_class="ovr")
    assert macro_auc(labels_B, probabilities_BC) == pytest.approx(expected, abs=1e-12)


@given(_BAGS)
def test_macro_auc_is_of_the_order_of_each_class(bags: list) -> None:
    labels_B, probabilities_BC = _split(bags)
    powers_C = np.arange(1, _C + 1)  # another increasing function for each class
    assert macro_auc(labels_B, probabilities_BC**powers_C) == macro_auc(labels_B, probabilities_BC)


def test_an_absent_class_is_left_out_and_not_counted_as_a_half() -> None:
    probabilities_BC = [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.5, 0.1, 0.4]]
    assert macro_auc([0, 1, 1], probabilities_BC) == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize(
    ("labels", "probabilities", "match"),
    [
        ([0, 1], [[0.5, 0.5], [math.nan, 1.0]], "1 of 4 probabilities are NaN"),
        ([0, 1], [[0.5, 0.5], [-3.0, 0.5]], "outside 0 to 1"),
        ([0, 1], [[0.5, 0.5], [0.5, 1.5]], "outside 0 to 1"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "labels must be whole numbers from 0 to 1"),
        ([0, math.nan], [[0.5, 0.5], [0.5, 0.5]], "labels must be whole numbers"),
        ([0, 1, 1], [[0.5, 0.5], [0.5, 0.5]], "B and B x C"),
        ([[0, 1]], [[0.5, 0.5]], "B and B x C"),
        ([0, 1], [0.5, 0.5], "B and B x C"),
    ],
)
def test_macro_auc_refuses_what_means_nothing(labels, probabilities, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        macro_auc(labels, probabilities)
