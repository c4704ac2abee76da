"""Lower bounds on epsilon hold, and are what the papers say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from rayfed_hn.audit.bound import bound_of_scores, epsilon_bound, gaussian_bound, p_value
from rayfed_hn.privacy.accounting import gaussian_epsilon


@pytest.mark.parametrize(
    ("num", "guesses", "correct", "delta", "printed"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],
)
def test_figures_printed_by_steinke_nasr_and_jagielski(
    num: int, guesses: int, correct: int, delta: float, printed: float
) -> None:
    found = epsilon_bound(num, guesses, correct, delta=delta, confidence=0.95)
    assert found == pytest.approx(printed, abs=1e-3)


@pytest.mark.parametrize("num", [10, 100, 1000])
def test_a_perfect_attack_gives_about_the_logarithm_of_a_third_of_the_canaries(num: int) -> None:
    found = epsilon_bound(num, num, num, delta=0.0, confidence=0.95)
    assert found == pytest.approx(-math.log(0.05 ** (-1 / num) - 1), abs=1e-6)
    assert found == pytest.approx(math.log(num / 3), abs=0.2)


def test_guessing_by_chance_gives_nothing() -> None:
    for delta in (0.0, 1e-5):
        assert epsilon_bound(100, 100, 50, delta=delta, confidence=0.95) == 0
        assert epsilon_bound(100, 20, 12, delta=delta, confidence=0.95) == 0


@given(st.integers(2, 60), st.integers(0, 60), st.floats(0, 5), st.floats(0, 5), st.floats(0, 0.01))
def test_more_epsilon_or_delta_or_fewer_right_guesses_surprise_less(
    num: int, correct: int, one: float, other: float, delta: float
) -> None:
    correct, (low, high) = min(correct, num), sorted((one, other))
    at = p_value(num, num, correct, epsilon=low, delta=delta)
    assert p_value(num, num, correct, epsilon=high, delta=0.0) >= (
        p_value(num, num, correct, epsilon=low, delta=0.0) - 1e-12
    )
    assert p_value(num, num, correct, epsilon=low, delta=0.0) <= at + 1e-12
    if correct:
        fewer = p_value(num, num, correct - 1, epsilon=low, delta=0.0)
        assert fewer >= p_value(num, num, correct, epsilon=low, delta=0.0) - 1e-12


def test_randomised_response_is_called_worse_than_it_is_once_in_twenty_times_at_most() -> None:
    """Epsilon 1: every coin is told truly with the chance e / (e + 1)."""
    num, chance = 200, math.e / (1 + math.e)
    too_high = sum(
        binom.pmf(correct, num, chance)
        for correct in range(num + 1)
        if epsilon_bound(num, num, correct, delta=0.0, confidence=0.95) > 1
    )
    assert 0.03 < too_high <= 0.05  # the bound holds, and is not idle


def test_randomised_response_that_is_simulated_whole() -> None:
    """Guesses by what was answered, some of them kept back, over many runs."""
    num, times, rng = 100, 200, np.random.default_rng(0)
    too_high = 0
    for _ in range(times):
        coin_M = rng.random(num) < 0.5
        told_M = np.where(rng.random(num) < math.e / (1 + math.e), coin_M, ~coin_M)
        score_M = told_M + rng.normal(scale=0.1, size=num)
        too_high += bound_of_scores(coin_M, score_M, delta=0.0, confidence=0.95).epsilon > 1
    assert too_high <= 0.05 * times


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_bounds_of_gaussian_noise_stay_below_its_epsilon(mu: float) -> None:
    num, delta, rng = 200, 1e-5, np.random.default_rng(1)
    truth, found, sharp = gaussian_epsilon(mu, delta), [], []
    for _ in range(60):
        coin_M = rng.random(num) < 0.5
        score_M = rng.normal(size=num) + mu * (coin_M - 0.5)
        found.append(bound_of_scores(coin_M, score_M, delta=delta, confidence=0.95).epsilon)
        sharp.append(gaussian_bound(coin_M, score_M > 0, delta=delta, confidence=0.95).epsilon)
    assert np.mean(np.array(found) > truth) <= 0.05
    assert np.mean(np.array(sharp) > truth) <= 0.05
    if mu == 2.0:
        assert truth / 3 < np.median(sharp) < truth
        assert 0 < np.median(found) < np.median(sharp)


def test_the_attacker_may_abstain() -> None:
    """Of a hundred, forty are given away and the others are noise."""
    rng = np.random.default_rng(2)
    coin_M = np.repeat([True, False], 50)
    score_M = rng.normal(size=100)
    score_M[:20], score_M[80:] = 10.0, -10.0
    found = bound_of_scores(coin_M, score_M, delta=0.0, confidence=0.95)
    assert (found.num, found.num_guesses, found.num_correct) == (100, 24, 24)
    assert 0 < found.epsilon < found.most


def test_an_odd_number_of_canaries_and_a_single_pair() -> None:
    for num in (2, 3, 7):
        coin_M = np.arange(num) < num // 2
        found = bound_of_scores(coin_M, coin_M * 1.0, delta=1e-5, confidence=0.95)
        assert found.num_guesses <= num
        assert found.num_correct == found.num_guesses
        assert found.epsilon == found.most
