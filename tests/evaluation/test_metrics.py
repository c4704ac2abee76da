from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score

from rayfed_hn.evaluation.metrics import auc, auc_interval, balanced_accuracy, brier, roc_curve

# Few distinct scores make ties the rule.
_BAGS = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), max_size=30)
_REAL_BAGS = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=30)


def _pair_count(bags: list[tuple[int, int]]) -> float | None:
    positive = [score for label, score in bags if label]
    negative = [score for label, score in bags if not label]
    won = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    return sum(won) / len(won) if won else None


@given(_BAGS)
def test_auc_is_the_share_of_pairs_in_the_right_order(bags: list[tuple[int, int]]) -> None:
    found = auc([label for label, _ in bags], [score for _, score in bags])
    expected = _pair_count(bags)
    assert found == expected if expected is None else found == pytest.approx(expected, abs=1e-15)


@given(_REAL_BAGS)
def test_metrics_agree_with_scikit_learn(bags: list[tuple[int, float]]) -> None:
    labels, scores = np.array([b[0] for b in bags]), np.array([b[1] for b in bags])
    assert brier(labels, scores) == pytest.approx(
        brier_score_loss(labels, scores, labels=[0, 1]), abs=1e-12
    )
    if len(set(labels.tolist())) == 2:
        assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert balanced_accuracy(labels, scores, threshold=0.5) == pytest.approx(
            balanced_accuracy_score(labels, scores >= 0.5)
        )


@given(_BAGS)
def test_turning_scores_round_turns_auc_round(bags: list[tuple[int, int]]) -> None:
    labels, scores = np.array([b[0] for b in bags]), np.array([b[1] for b in bags], float)
    found, turned = auc(labels, scores), auc(labels, -scores)
    assert (found is None) == (turned is None)
    if found is not None and turned is not None:
        assert found + turned == pytest.approx(1)


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1, 1]])
def test_one_class_or_none_is_undefined_and_not_a_half(labels: list[int]) -> None:
    scores = np.linspace(0, 1, len(labels))
    assert auc(labels, scores) is None
    assert balanced_accuracy(labels, scores, threshold=0.5) is None


def test_brier_of_nothing_is_undefined() -> None:
    assert brier([], []) is None


@pytest.mark.parametrize("metric", [auc, brier])
def test_scores_that_mean_nothing_are_refused(metric) -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        metric([0, 1], [0.3, math.nan])
    with pytest.raises(ValueError, match="0 or 1"):
        metric([0, 2], [0.3, 0.4])
    with pytest.raises(ValueError, match="two lists"):
        metric([0, 1, 1], [0.3, 0.4])


def test_brier_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match="outside 0 to 1"):
        brier([0, 1], [-0.1, 0.5])


def test_infinite_scores_have_an_order() -> None:
    assert auc([0, 1, 1], [-math.inf, 0.0, math.inf]) == 1.0


@given(_BAGS)
def test_the_area_under_the_roc_curve_is_the_auc(bags: list[tuple[int, int]]) -> None:
    labels, scores = [label for label, _ in bags], [score for _, score in bags]
    area = auc(labels, scores)
    if area is None:
        with pytest.raises(ValueError, match="both classes"):
            roc_curve(labels, scores)
        return
    false_rate, true_rate = roc_curve(labels, scores)
    assert (false_rate[0], true_rate[0], false_rate[-1], true_rate[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(area)


@given(st.floats(0, 1), st.integers(1, 60), st.integers(1, 60))
def test_an_auc_interval_holds_its_auc_and_mirrors(value: float, m: int, n: int) -> None:
    low, high = auc_interval(value, m, n, level=0.95)
    assert 0 <= low <= value <= high <= 1
    assert high > low
    mirrored = auc_interval(1 - value, m, n, level=0.95)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_an_auc_interval_inverts_the_variance_of_hanley_and_mcneil() -> None:
    value, size = 0.8, 25
    for bound in auc_interval(value, size, size, level=0.95):
        q1, q2 = bound / (2 - bound), 2 * bound**2 / (1 + bound)
        spread = (size - 1) * (q1 - bound**2) + (size - 1) * (q2 - bound**2)
        variance = (bound * (1 - bound) + spread) / size**2
        assert abs(value - bound) == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-6)


@pytest.mark.parametrize("distance", [0.5, 1.5])
def test_auc_intervals_cover_as_promised_at_small_sites(distance: float) -> None:
    rng, repeats, labels = np.random.default_rng(2), 600, np.repeat([0, 1], [12, 8])
    truth = stats.norm.cdf(distance / math.sqrt(2))
    covered = 0
    for _ in range(repeats):
        value = auc(labels, rng.normal(distance * labels))
        assert value is not None
        low, high = auc_interval(value, 8, 12, level=0.95)
        covered += low <= truth <= high
    assert covered / repeats == pytest.approx(0.95, abs=0.03)


def test_an_auc_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no interval"):
        auc_interval(0.5, 0, 3, level=0.95)
