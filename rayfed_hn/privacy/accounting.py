"""What releases add up to: (epsilon, delta) of what a site has spent.

Plain Gaussian releases compose exactly, and have a closed form (Balle and Wang 2018). Sampled ones
go through privacy loss distributions (Koskela et al. 2020), by Google's dp-accounting. What neither
covers is refused: there is no wrong epsilon.

The sensitivity is part of ``multiplier`` from the start, and the library is only asked about
presence or absence: it reads the relation "replace one" differently for different accountants.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from scipy.optimize import root_scalar
from scipy.special import log_ndtr

from rayfed_hn.errors import AccountingError, ConfigError

LARGEST_EPSILON = 1e6  # beyond, there is nothing to state
_MOST = 12.0  # logarithm of a multiplier that no training survives, and of one that hides nothing


@dataclass(frozen=True)
class Spent:
    """What one release costs.

    Attributes:
        unit: Whose data is hidden: site, patient or slide.
        neighbouring: What cannot be told apart.
        multiplier: Standard deviation of the noise over the sensitivity, > 0.
        rate: Chance of a unit to be in a step, (0, 1].
        steps: Noisy steps within the release.
    """

    unit: str
    neighbouring: str
    multiplier: float
    rate: float = 1.0
    steps: int = 1

    def __post_init__(self) -> None:
        fine = 0 < self.multiplier < math.inf and 0 < self.rate <= 1 and self.steps >= 1
        if not fine:
            raise AccountingError(f"nothing is known of what {self} costs")


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Delta of a Gaussian release with sensitivity ``mu`` times the noise (Balle and Wang 2018).

    delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu).
    """
    first = log_ndtr(mu / 2 - epsilon / mu)
    second = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return float(np.exp(first) * -np.expm1(min(second - first, 0.0)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon of a Gaussian release with sensitivity ``mu`` times the noise, for a delta."""
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    if gaussian_delta(mu, LARGEST_EPSILON) > delta:
        return math.inf
    return _root(lambda e: gaussian_delta(mu, e) - delta, 0.0, LARGEST_EPSILON, 1e-12)


def _root(function: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    return float(root_scalar(function, bracket=(low, high), xtol=tolerance).root)


def epsilon_of(spent: Sequence[Spent], delta: float) -> float:
    """Epsilon of all releases together, which may depend on each other's results.

    Raises:
        AccountingError: They do not hide the same thing.
        ConfigError: Sampled releases, and dp-accounting is not installed.
    """
    if not spent:
        return 0.0
    kinds = {(one.unit, one.neighbouring) for one in spent}
    if len(kinds) > 1:
        told = " and ".join(f"{unit} ({relation})" for unit, relation in sorted(kinds))
        raise AccountingError(f"releases that hide {told} do not add up to one epsilon")
    if all(one.rate == 1 for one in spent):
        mu = math.sqrt(sum(one.steps / one.multiplier**2 for one in spent))
        return gaussian_epsilon(mu, delta)
    counted: Counter[tuple[float, float]] = Counter()
    for one in spent:
        counted[one.rate, one.multiplier] += one.steps
    return sampled_epsilon(tuple(sorted(counted.items())), delta)


@lru_cache(maxsize=1024)
def sampled_epsilon(steps: tuple[tuple[tuple[float, float], int], ...], delta: float) -> float:
    """Epsilon of Poisson-sampled Gaussian steps under presence or absence of one unit.

    Args:
        steps: ``((rate, multiplier), number of steps)`` of every kind.
        delta: Of the guarantee.
    """
    parts = [_distribution(*kind).self_compose(count) for kind, count in steps]
    whole = reduce(lambda one, other: one.compose(other), parts)
    return float(whole.get_epsilon_for_delta(delta))


@lru_cache(maxsize=64)
def _distribution(rate: float, multiplier: float) -> Any:
    """The privacy loss of one step; to make it takes longer than to add it up."""
    try:
        from dp_accounting.pld import privacy_loss_distribution
    except ImportError:
        raise ConfigError(
            "privacy.mechanism=slide_dpsgd: needs dp-accounting to state what it promises; "
            "pip install 'rayfed_hn[dp]'"
        ) from None
    return privacy_loss_distribution.from_gaussian_mechanism(multiplier, sampling_prob=rate)


def noise_for(
    epsilon: float, delta: float, *, releases: int, steps: int = 1, rate: float = 1.0
) -> float:
    """The smallest multiplier with which so many releases stay within (epsilon, delta).

    Args:
        epsilon: To be kept.
        delta: Likewise.
        releases: Of a site.
        steps: Noisy steps within each.
        rate: Chance of a unit to be in a step.
    """

    def excess(log_multiplier: float) -> float:
        one = Spent("any", "any", math.exp(log_multiplier), rate, steps)
        found = epsilon_of([one] * releases, delta)
        return min(found, LARGEST_EPSILON) - epsilon

    # From a middling noise up or down: distributions of next to none take gigabytes.
    low = high = 0.0
    while excess(high) > 0 and high < _MOST:
        low, high = high, high + 1
    while excess(low) <= 0 and low > -_MOST:
        low, high = low - 1, low
    if not excess(low) > 0 >= excess(high):
        raise ConfigError(
            f"privacy.target_epsilon: got {epsilon:g}, for which no sensible noise is right; give "
            "privacy.noise_multiplier"
        )
    tolerance = 1e-12 if rate == 1 else 1e-4  # distributions are made on a grid
    return math.exp(_root(excess, low, high, tolerance) + tolerance)  # on the safe side
