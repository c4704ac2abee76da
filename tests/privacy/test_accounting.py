"""Epsilon is right: two other programs, published anchors and the formula itself agree."""

from __future__ import annotations

import math
import sys

import dp_accounting
import mpmath
import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given
from hypothesis import strategies as st
from prv_accountant import PoissonSubsampledGaussianMechanism, PRVAccountant

from rayfed_hn.errors import AccountingError, ConfigError
from rayfed_hn.privacy.accounting import (
    Spent,
    epsilon_of,
    gaussian_delta,
    gaussian_epsilon,
    noise_for,
    sampled_epsilon,
)

GRID = [
    (multiplier, rate, steps)
    for multiplier in (1.0, 2.0, 4.0)
    for rate in (0.01, 0.1, 0.25)
    for steps in (1, 50, 200)
]


@pytest.mark.parametrize(("multiplier", "rate", "steps"), GRID)
def test_sampled_releases_agree_with_another_accountant(
    multiplier: float, rate: float, steps: int
) -> None:
    """Microsoft's PRV accountant (Gopi et al. 2021)."""
    mechanism = PoissonSubsampledGaussianMechanism(
        noise_multiplier=multiplier, sampling_probability=rate
    )
    accountant = PRVAccountant(
        prvs=[mechanism], max_self_compositions=[steps], eps_error=0.01, delta_error=1e-10
    )
    low, middle, high = accountant.compute_epsilon(delta=1e-5, num_self_compositions=[steps])
    ours = epsilon_of([Spent("patient", "presence", multiplier, rate, steps)], 1e-5)
    assert low <= ours <= high
    assert ours == pytest.approx(middle, abs=1e-3, rel=1e-3)  # its own error grows with epsilon


@pytest.mark.parametrize(("rate", "steps"), [(0.1, 200), (0.25, 30)])
def test_with_little_noise_distributions_on_a_finer_grid_agree(rate: float, steps: int) -> None:
    """A bound from above and one from below; the other accountant drifts here, by 6e-5 a step."""
    above, below = (
        privacy_loss_distribution.from_gaussian_mechanism(
            0.8,
            sampling_prob=rate,
            value_discretization_interval=5e-5,
            pessimistic_estimate=pessimistic,
            use_connect_dots=False,
        )
        .self_compose(steps)
        .get_epsilon_for_delta(1e-5)
        for pessimistic in (True, False)
    )
    ours = epsilon_of([Spent("patient", "presence", 0.8, rate, steps)], 1e-5)
    assert below <= ours <= above <= below + 0.011


@pytest.mark.parametrize("multiplier", [0.3, 0.6, 1.0, 4.244, 50.0])
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-9])
def test_the_closed_form_agrees_with_googles(multiplier: float, delta: float) -> None:
    ours = gaussian_epsilon(1 / multiplier, delta)
    theirs = dp_accounting.get_epsilon_gaussian(multiplier, delta)
    assert ours == pytest.approx(theirs, abs=1e-6)


@given(mu=st.floats(0.01, 20), epsilon=st.floats(0.01, 60))
def test_delta_is_the_formula_with_a_hundred_digits(mu: float, epsilon: float) -> None:
    with mpmath.workdps(100):
        m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
        exact = mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m)
    if exact > sys.float_info.min:
        assert gaussian_delta(mu, epsilon) == pytest.approx(float(exact), rel=1e-6, abs=1e-15)


@given(mu=st.floats(0.05, 30), delta=st.floats(1e-12, 0.05))
def test_epsilon_is_the_inverse_of_delta(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    if epsilon > 0:
        assert gaussian_delta(mu, epsilon) == pytest.approx(delta, rel=1e-6)
    else:
        assert gaussian_delta(mu, 0.0) <= delta


def test_unsampled_steps_cost_the_same_by_either_way() -> None:
    """The library's distributions, which sampled steps go through, and the closed form."""
    by_distribution = sampled_epsilon((((1.0, 4.0), 50),), 1e-5)
    assert epsilon_of([Spent("patient", "presence", 4.0, 1.0, 50)], 1e-5) == pytest.approx(
        by_distribution, abs=1e-4
    )
    assert by_distribution == pytest.approx(8.5959, abs=1e-4)


def test_anchors_of_the_literature_and_of_our_notes() -> None:
    sampled = [Spent("patient", "presence", 1.0, 0.25)] * 50
    assert epsilon_of(sampled, 1e-5) == pytest.approx(12.6536, abs=5e-4)
    for epsilon, multiplier in ((1, 26.4), (3, 9.83), (8, 4.244), (10, 3.535)):
        assert noise_for(epsilon, 1e-5, releases=50) == pytest.approx(multiplier, rel=1e-3)
    for releases, multiplier in ((1, 0.600), (10, 1.898), (50, 4.244), (100, 6.002), (200, 8.489)):
        assert noise_for(8, 1e-5, releases=releases) == pytest.approx(multiplier, rel=1e-3)
    for multiplier, epsilon in ((1.0, 11.4), (1.5, 5.75), (2.0, 3.84), (3.0, 2.31)):
        steps = [Spent("patient", "presence", multiplier, 0.053, 937)]
        assert epsilon_of(steps, 1e-5) == pytest.approx(epsilon, rel=1e-2)


@pytest.mark.parametrize(("rate", "target"), [(1.0, 0.5), (1.0, 8.0), (0.1, 4.0)])
def test_the_noise_for_an_epsilon_keeps_it_and_no_more(rate: float, target: float) -> None:
    multiplier = noise_for(target, 1e-5, releases=5, steps=4, rate=rate)
    found = epsilon_of([Spent("patient", "presence", multiplier, rate, 4)] * 5, 1e-5)
    assert found <= target
    assert found == pytest.approx(target, rel=1e-3)


def test_an_epsilon_that_no_noise_gives_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"privacy\.target_epsilon: got 1e-12"):
        noise_for(1e-12, 1e-15, releases=1)


@given(releases=st.integers(1, 20), multiplier=st.floats(0.5, 20), more=st.integers(1, 5))
def test_more_releases_cost_more_and_noise_costs_less(
    releases: int, multiplier: float, more: int
) -> None:
    one = Spent("site", "replace", multiplier)
    spent = epsilon_of([one] * releases, 1e-5)
    assert epsilon_of([one] * (releases + more), 1e-5) > spent
    assert epsilon_of([Spent("site", "replace", 1.1 * multiplier)] * releases, 1e-5) < spent


def test_nothing_released_costs_nothing() -> None:
    assert epsilon_of([], 1e-5) == 0
    assert epsilon_of([Spent("site", "replace", 1e9)], 1e-2) == 0


def test_what_does_not_add_up_is_no_number() -> None:
    site, zero = Spent("site", "replace", 1.0), Spent("site", "zero_out", 1.0)
    patient = Spent("patient", "presence or absence", 1.0, 0.1)
    for pair in ([site, zero], [site, patient]):
        with pytest.raises(AccountingError, match="do not add up to one epsilon"):
            epsilon_of(pair, 1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"multiplier": 0.0}, {"multiplier": math.inf}, {"multiplier": math.nan},
     {"multiplier": 1.0, "rate": 0.0}, {"multiplier": 1.0, "rate": 1.1},
     {"multiplier": 1.0, "steps": 0}],
)  # fmt: skip
def test_a_release_of_which_nothing_is_known_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(AccountingError):
        Spent("site", "replace", **wrong)  # type: ignore[arg-type]


def test_without_the_library_sampled_steps_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting.pld", None)
    with pytest.raises(ConfigError, match=r"pip install 'rayfed_hn\[dp\]'"):
        sampled_epsilon((((0.123, 1.0), 3),), 1e-5)
    assert epsilon_of([Spent("site", "replace", 4.0)], 1e-5) > 0  # which needs none
