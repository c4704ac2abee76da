"""Every measure of weighted bags against the plain metric of repeated ones, and against others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics

from rayfed_hn.evaluation.calibration import bin_of, calibration_error, reliability
from rayfed_hn.evaluation.judging import NAMES, Judge, Kind, Truth
from rayfed_hn.evaluation.measures import Measure, main_measure, more_measures

KINDS: tuple[Kind, ...] = tuple(NAMES)
BINARY, CLASSES = Judge("binary", 2), Judge("multiclass", 3)


def drawn(judge: Judge, seed: int, num_bags: int = 40) -> tuple[Truth, np.ndarray]:
    rng = np.random.default_rng(seed)
    label_B = rng.integers(judge.num_classes, size=num_bags)
    event_B = rng.uniform(size=num_bags) < 0.6
    truth = Truth(label_B, np.ceil(rng.exponential(5, num_bags)), event_B)
    logits = np.round(rng.normal(size=(num_bags, judge.num_classes)), 1)  # with ties
    logits += np.eye(judge.num_classes)[label_B]
    if judge.kind == "survival":
        return truth, logits[:, :1]
    found = softmax(logits, axis=1)
    return truth, found[:, 1:] if judge.kind == "binary" else found


def named(judge: Judge, name: str) -> Measure:
    return next(measure for measure in more_measures(judge) if measure.name == name)


@pytest.mark.parametrize(("kind", "seed"), list(itertools.product(KINDS, range(5))))
def test_the_main_measure_is_the_task_s_metric(kind: Kind, seed: int) -> None:
    judge = Judge(kind, 2 if kind == "binary" else 3)
    found = drawn(judge, seed)
    expected = judge.value(*found)
    assert expected is not None
    assert main_measure(judge).value(judge, *found) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("kind", "seed"), list(itertools.product(KINDS, range(3))))
def test_a_weight_is_a_bag_that_is_there_so_often(kind: Kind, seed: int) -> None:
    judge = Judge(kind, 2 if kind == "binary" else 3)
    truth, predictions = drawn(judge, seed, num_bags=12)
    rng = np.random.default_rng(seed)
    weight_BR = rng.integers(3, size=(12, 6))
    weight_BR[:, 5] = truth.label_B == 0  # one class alone: mostly undefined
    measures = [m for m in more_measures(judge) if m.resampled]  # bins are of the whole sample
    for measure in (main_measure(judge), *measures):
        together = measure.of(judge, truth, predictions, weight_BR.astype(float))
        for sample, weight_B in zip(together, weight_BR.T, strict=True):
            places = np.repeat(np.arange(12), weight_B)
            alone = measure.value(judge, truth[places], predictions[places])
            assert alone == (None if np.isnan(sample) else pytest.approx(sample, abs=1e-12))
    if kind in ("binary", "multiclass"):
        assert np.isnan(main_measure(judge).of(judge, truth, predictions, weight_BR * 1.0)[5])


@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_two_classes_are_those_of_scikit_learn(seed: int) -> None:
    truth, p_B1 = drawn(BINARY, seed)
    called_B = p_B1[:, 0] >= 0.5
    expected = {
        "balanced accuracy": metrics.balanced_accuracy_score(truth.label_B, called_B),
        "F1": metrics.f1_score(truth.label_B, called_B),
        "Brier score": metrics.brier_score_loss(truth.label_B, p_B1[:, 0]),
    }
    for name, value in expected.items():
        assert named(BINARY, name).value(BINARY, truth, p_B1) == pytest.approx(value)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_several_classes_are_those_of_scikit_learn(seed: int) -> None:
    truth, p_BK = drawn(CLASSES, seed)
    called_B = p_BK.argmax(axis=1)
    squares = np.square(p_BK - np.eye(3)[truth.label_B]).sum(axis=1).mean()
    expected = {
        "balanced accuracy": metrics.balanced_accuracy_score(truth.label_B, called_B),
        "macro F1": metrics.f1_score(truth.label_B, called_B, average="macro"),
        "Brier score": squares,
    }
    for name, value in expected.items():
        assert named(CLASSES, name).value(CLASSES, truth, p_BK) == pytest.approx(value)


def test_what_is_undefined_is_none() -> None:
    truth, p_B1 = drawn(BINARY, 0)
    negative, positive = truth.label_B == 0, truth.label_B == 1
    for name, chosen in (("balanced accuracy", negative), ("balanced accuracy", positive),
                         ("F1", negative)):  # fmt: skip
        assert named(BINARY, name).value(BINARY, truth[chosen], p_B1[chosen]) is None
    assert named(BINARY, "F1").value(BINARY, truth[positive], p_B1[positive]) is not None
    nothing = np.zeros(len(truth), bool)
    for measure in more_measures(BINARY):
        assert measure.value(BINARY, truth[nothing], p_B1[nothing]) is None


def test_a_class_that_no_bag_is_of_has_no_f1_and_no_recall() -> None:
    label_B, p_BK = np.array([0, 0, 1, 1]), np.eye(3)[[0, 2, 1, 1]]
    truth = Truth(label_B, np.zeros(4), np.ones(4, bool))
    assert named(CLASSES, "balanced accuracy").value(CLASSES, truth, p_BK) == pytest.approx(0.75)
    assert named(CLASSES, "macro F1").value(CLASSES, truth, p_BK) == pytest.approx((2 / 3 + 1) / 2)


def test_grades_and_times_have_nothing_beside() -> None:
    assert more_measures(Judge("ordinal", 3)) == more_measures(Judge("survival", 3)) == ()


def test_the_calibration_error_by_hand() -> None:
    # Twenty bags are two bins: ten at .2 of which 4 are hits, ten at .9 of which 9 are.
    claimed_B = np.repeat([0.2, 0.9], 10)
    hit_B = np.concatenate([np.arange(10) < 4, np.arange(10) < 9]).astype(float)
    ones = np.ones((20, 1))
    assert calibration_error(claimed_B, hit_B, ones)[0] == pytest.approx(0.5 * 0.2)
    assert reliability(claimed_B, hit_B) == [
        {"predicted": pytest.approx(0.2), "observed": pytest.approx(0.4), "num_bags": 10},
        {"predicted": pytest.approx(0.9), "observed": pytest.approx(0.9), "num_bags": 10},
    ]
    # Nineteen are one bin, in which errors of both signs cancel.
    one_bin = calibration_error(claimed_B[1:], hit_B[1:], ones[1:])[0]
    assert one_bin == pytest.approx(abs(claimed_B[1:].mean() - hit_B[1:].mean()))


def test_bins_are_of_equal_mass_and_ties_stay_together() -> None:
    rng = np.random.default_rng(0)
    claimed_B = rng.permutation(200) / 200
    assert np.bincount(bin_of(claimed_B)).tolist() == [20] * 10
    order = rng.permutation(200)
    tied_B = np.round(claimed_B, 1)
    assert (bin_of(tied_B)[order] == bin_of(tied_B[order])).all()
    assert len({(b, v) for b, v in zip(bin_of(tied_B), tied_B, strict=True)}) == 11


def test_probabilities_that_mean_what_they_say_have_little_error() -> None:
    rng = np.random.default_rng(1)
    claimed_B = rng.uniform(size=20_000)
    hit_B = (rng.uniform(size=20_000) < claimed_B).astype(float)
    ones = np.ones((20_000, 1))
    assert calibration_error(claimed_B, hit_B, ones)[0] < 0.02
    assert calibration_error(claimed_B**2, hit_B, ones)[0] == pytest.approx(1 / 6, abs=0.02)
