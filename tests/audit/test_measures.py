"""Figures of an attack, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from rayfed_hn.audit.measures import measure, share_interval, standardised, upper_share


def test_share_intervals_are_clopper_and_pearsons() -> None:
    for found, num in ((0, 10), (3, 10), (10, 10), (1, 200)):
        expected = binomtest(found, num).proportion_ci(0.95, method="exact")
        low, high = share_interval(found / num, num, level=0.95)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        one_sided = binomtest(found, num, alternative="less").proportion_ci(0.95, method="exact")
        assert upper_share(found, num, confidence=0.95) == pytest.approx(one_sided.high, abs=1e-9)


def test_true_positives_are_counted_where_one_in_a_hundred_others_passes() -> None:
    member_B = np.arange(300) < 100
    score_B = np.concatenate([np.linspace(0, 2, 100), np.linspace(0, 1, 200)])
    found = measure(member_B, score_B, np.arange(300), level=0.95)
    assert found is not None
    threshold = np.sort(score_B[100:])[-3]
    assert found.fpr == 0.01
    assert found.tpr == np.mean(score_B[:100] > threshold)
    assert found.tpr_low < found.tpr < found.tpr_high
    assert (found.num_members, found.num_others) == (100, 200)


def test_of_few_others_none_may_pass_and_the_rate_remains_unknown() -> None:
    found = measure(np.arange(20) < 10, -np.arange(20.0), np.arange(20), level=0.95)
    assert found is not None
    assert (found.auc, found.tpr, found.fpr) == (1.0, 1.0, 0.0)
    assert found.fpr_high == pytest.approx(0.308, abs=1e-3)
    assert found.auc_low < 1


def test_slides_of_one_case_count_once() -> None:
    rng = np.random.default_rng(0)
    member_B, score_B = np.arange(80) < 40, rng.normal(size=80)
    apart = measure(member_B, score_B, np.arange(80), level=0.95)
    together = measure(member_B, score_B, np.arange(80) // 8, level=0.95)
    assert apart is not None
    assert together is not None
    assert apart.auc == together.auc
    assert together.auc_high - together.auc_low > 2 * (apart.auc_high - apart.auc_low)
    assert (together.member_cases, together.other_cases) == (5, 5)


def test_without_others_there_is_nothing_to_measure() -> None:
    assert measure(np.ones(3, bool), np.arange(3.0), np.arange(3), level=0.95) is None


def test_standardised_scores_of_a_site() -> None:
    found = standardised(np.array([1.0, 2.0, 6.0]))
    assert (found.mean(), found.std()) == pytest.approx((0.0, 1.0))
    assert standardised(np.full(4, 3.0)).tolist() == [0, 0, 0, 0]
