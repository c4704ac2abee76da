"""From guesses of an attacker to a lower bound on epsilon: statistics, and nothing of federations.

Shapes: M canaries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtri
from scipy.stats import binom

from rayfed_hn.audit.measures import upper_share
from rayfed_hn.privacy.accounting import gaussian_epsilon

# Of the canaries, that are guessed; on the others the attacker abstains. They are settled before
# anything is seen, and the confidence is divided among them.
SHARES = (0.25, 0.5, 1.0)
_HALVINGS = 40


@dataclass(frozen=True)
class Bound:
    """A lower bound on epsilon.

    Attributes:
        num: Canaries.
        num_guesses, num_correct: Of the share that gave the bound.
        epsilon: Below it epsilon does not lie, with the confidence asked for.
        most: What it would have been without a single wrong guess: nothing beyond can be found.
    """

    num: int
    num_guesses: int
    num_correct: int
    epsilon: float
    most: float


def p_value(num: int, num_guesses: int, num_correct: int, *, epsilon: float, delta: float) -> float:
    """Chance of at least so many correct guesses if (epsilon, delta)-DP holds.

    Every canary is in or out by a fair coin of its own, and one canary's presence is what
    (epsilon, delta) is about. With W ~ Binomial(r, e^epsilon / (e^epsilon + 1)),

        p <= P[W >= v] + 2 m delta max_{1 <= i <= v} P[v > W >= v - i] / i.

    Source: Steinke, Nasr and Jagielski 2023 (Privacy auditing with one (1) training run),
    Corollary 5.4 and Appendix D.

    Args:
        num: m, canaries.
        num_guesses: r, settled without looking at the coins.
        num_correct: v of them.
        epsilon: What is doubted.
        delta: That goes with it.
    """
    chance = float(expit(epsilon))
    tail = float(binom.sf(num_correct - 1, num_guesses, chance))
    if delta == 0 or num_correct == 0:
        return min(1.0, tail)
    below = np.cumsum(binom.pmf(np.arange(num_correct - 1, -1, -1), num_guesses, chance))
    alpha = float((below / np.arange(1, num_correct + 1)).max())
    return min(1.0, tail + 2 * num * delta * alpha)


def epsilon_bound(
    num: int, num_guesses: int, num_correct: int, *, delta: float, confidence: float
) -> float:
    """The largest epsilon that so many correct guesses speak against, and 0 if there is none.

    Args:
        num: Canaries.
        num_guesses: As ``p_value`` has it.
        num_correct: Of them.
        delta: Of the guarantee.
        confidence: Such as .95.
    """

    def doubted(epsilon: float) -> bool:
        p = p_value(num, num_guesses, num_correct, epsilon=epsilon, delta=delta)
        return p < 1 - confidence

    if not doubted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while doubted(high):
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if doubted(middle) else (low, middle)
    return low


def bound_of_scores(
    included_M: np.ndarray, score_M: np.ndarray, *, delta: float, confidence: float
) -> Bound:
    """Guess from scores who was included, and bound epsilon by the guesses.

    The highest scores are guessed to be in, as many of the lowest to be out, and the attacker
    abstains on those between. The best of ``SHARES`` counts, each at its part of the confidence.

    Args:
        included_M: Coins, bool (M,).
        score_M: Higher for who is likely to be in; made without the coins.
        delta: Of the guarantee.
        confidence: Of the bound.
    """
    num = len(score_M)
    order_M = np.argsort(score_M, kind="stable")
    each = 1 - (1 - confidence) / len(SHARES)
    found: list[Bound] = []
    for share in SHARES:
        half = max(1, round(share * num / 2))
        half = min(half, num // 2)
        correct = int(included_M[order_M[-half:]].sum() + (~included_M[order_M[:half]]).sum())
        epsilon, most = (
            epsilon_bound(num, 2 * half, right, delta=delta, confidence=each)
            for right in (correct, 2 * half)
        )
        found.append(Bound(num, 2 * half, correct, epsilon, most))
    best = max(found, key=lambda bound: bound.epsilon)
    most = max(bound.most for bound in found)
    return Bound(best.num, best.num_guesses, best.num_correct, best.epsilon, most)


def gaussian_bound(
    included_M: np.ndarray, guess_M: np.ndarray, *, delta: float, confidence: float
) -> Bound:
    """A sharper bound for a mechanism that claims to be Gaussian noise.

    Gaussian noise on sensitivity mu times its deviation allows no test with error rates a and b
    below Phi^-1(1 - a) + Phi^-1(1 - b) <= mu. Upper limits of both rates (Clopper and Pearson) give
    a lower limit of mu, and that an epsilon. Other mechanisms with the same (epsilon, delta) may be
    above it without breaking their promise.

    Source: Nasr et al. 2023 (Tight auditing of differentially private machine learning).

    Args:
        included_M: Coins, bool (M,), of independent plays.
        guess_M: What was guessed of them, bool (M,), by a threshold settled beforehand.
        delta: Of the guarantee.
        confidence: Of the bound.
    """
    inside, outside = int(included_M.sum()), int((~included_M).sum())
    wrong = int((guess_M & ~included_M).sum()), int((~guess_M & included_M).sum())
    correct = len(guess_M) - sum(wrong)

    def at(errors: tuple[int, int]) -> float:
        rates = [
            upper_share(error, number, confidence=1 - (1 - confidence) / 2)
            for error, number in zip(errors, (outside, inside), strict=True)
        ]
        mu = sum(-float(ndtri(rate)) for rate in rates)
        return gaussian_epsilon(mu, delta) if mu > 0 and math.isfinite(mu) else 0.0

    return Bound(len(guess_M), len(guess_M), correct, at(wrong), at((0, 0)))
