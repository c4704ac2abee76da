from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import recall_score, roc_auc_score

from rayfed_hn.evaluation import metrics
from rayfed_hn.evaluation.multiclass import balanced_accuracy, macro_auc

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


@given(_BAGS, st.permutations(range(_C)), st.randoms())
def test_neither_the_names_of_classes_nor_the_order_of_bags_matter(bags, names, random) -> None:
    labels_B, probabilities_BC = _split(bags)
    order_B = list(range(len(bags)))
    random.shuffle(order_B)
    renamed_B = np.array(names)[labels_B[order_B]]
    moved_BC = np.empty_like(probabilities_BC)
    moved_BC[:, names] = probabilities_BC[order_B]
    found, expected = macro_auc(renamed_B, moved_BC), macro_auc(labels_B, probabilities_BC)
    assert found == (expected if expected is None else pytest.approx(expected))
    called_B = probabilities_BC.argmax(axis=1)
    found = balanced_accuracy(renamed_B, np.array(names)[called_B[order_B]], _C)
    expected = balanced_accuracy(labels_B, called_B, _C)
    assert found == (expected if expected is None else pytest.approx(expected))


@given(st.lists(st.integers(0, _C - 1), min_size=2, max_size=20))
def test_the_best_scores_1_the_worst_0_and_a_constant_by_chance(labels: list[int]) -> None:
    best_BC = np.eye(_C)[labels]
    if len(set(labels)) < 2:
        assert macro_auc(labels, best_BC) is None
        assert balanced_accuracy(labels, labels, _C) is None
        return
    assert macro_auc(labels, best_BC) == 1
    assert macro_auc(labels, 1 - best_BC) == 0
    assert macro_auc(labels, np.full_like(best_BC, 0.25)) == 0.5
    assert balanced_accuracy(labels, labels, _C) == 1
    assert balanced_accuracy(labels, (np.array(labels) + 1) % _C, _C) == 0
    constant = balanced_accuracy(labels, np.full(len(labels), labels[0]), _C)
    assert constant == pytest.approx(1 / len(set(labels)))


@given(st.lists(st.tuples(st.integers(0, 1), _EIGHTHS), max_size=20))
def test_two_classes_are_the_binary_metrics(bags: list[tuple[int, float]]) -> None:
    labels, positive_B = [label for label, _ in bags], np.array([p for _, p in bags], dtype=float)
    both_B2 = np.stack([1 - positive_B, positive_B], axis=1)
    assert macro_auc(labels, both_B2) == metrics.auc(labels, positive_B)
    expected = metrics.balanced_accuracy(labels, positive_B, threshold=0.5)
    assert balanced_accuracy(labels, positive_B >= 0.5, 2) == expected


def test_an_absent_class_is_left_out_and_not_counted_as_a_half() -> None:
    probabilities_BC = [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.5, 0.1, 0.4]]
    assert macro_auc([0, 1, 1], probabilities_BC) == pytest.approx((1 + 0.5) / 2)


@given(_CALLS)
def test_balanced_accuracy_agrees_with_scikit_learn(calls: list[tuple[int, int]]) -> None:
    labels, predicted = [label for label, _ in calls], [call for _, call in calls]
    present = sorted(set(labels))
    found = balanced_accuracy(labels, predicted, _C)
    if len(present) < 2:
        assert found is None
        return
    expected = recall_score(labels, predicted, labels=present, average="macro")
    assert found == pytest.approx(expected, abs=1e-12)


def test_no_bags_are_undefined() -> None:
    assert macro_auc([], np.empty((0, 3))) is None
    assert balanced_accuracy([], [], 3) is None


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


@pytest.mark.parametrize(
    ("labels", "predicted", "match"),
    [
        ([0, 1], [0, 3], "predicted classes must be whole numbers from 0 to 2"),
        ([0, -1], [0, 1], "labels must be"),
        ([0, 1], [0, 0.5], "predicted classes must be"),
        ([0, 1], [0, math.nan], "predicted classes must be"),
        ([0, 1], [0], "lists of one length"),
        ([[0, 1]], [[0, 1]], "lists of one length"),
    ],
)
def test_balanced_accuracy_refuses_what_is_no_class(labels, predicted, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        balanced_accuracy(labels, predicted, 3)
