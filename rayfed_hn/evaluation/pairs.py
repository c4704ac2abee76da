"""Concordance of two orders over pairs of bags, without a matrix of pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class _Group:
    """Bags that differ in one bit of their ranks, as places in a sorted list of the lower ones.

    Attributes:
        lower_L: Bags that may be the lower one of a pair, by group and then by score.
        upper_U: Bags that are the upper one.
        first_U, last_U: Where the lower bags of an upper bag's group begin and end.
        below_U, not_above_U: Where those end that score less than it, or not more.
    """

    lower_L: np.ndarray
    upper_U: np.ndarray
    first_U: np.ndarray
    last_U: np.ndarray
    below_U: np.ndarray
    not_above_U: np.ndarray


def concordance(rank_B: np.ndarray, score_B: np.ndarray, leads_B: np.ndarray) -> float | None:
    """Return the share of pairs whose scores are in the order of their ranks, a tie counting half.

    A pair counts if its ranks differ and its bag of lower rank leads. Two ranks that differ have
    one highest bit in which they do: bit by bit, the bags that agree in all higher bits form a
    group, and the pairs of a group with a 0 and a 1 are counted by binary search. So every pair is
    met once, in B log(B) time per bit and memory linear in B, and the counts are exact.

    Args:
        rank_B: B whole numbers from 0, int64; the highest times B must fit int64 too.
        score_B: B scores without NaN; only their order matters.
        leads_B: B booleans: whether a bag may be the lower one of a pair.

    Returns:
        The share, or None where no pair counts.
    """
    num_pairs, twice_won = 0, 0
    for group in _groups(rank_B, score_B, leads_B):
        num_pairs += int((group.last_U - group.first_U).sum())
        twice_won += int((group.below_U + group.not_above_U - 2 * group.first_U).sum())
    return twice_won / (2 * num_pairs) if num_pairs else None


def weighted_concordance(
    rank_B: np.ndarray, score_B: np.ndarray, leads_B: np.ndarray, weight_BR: np.ndarray
) -> np.ndarray:
    """Return ``concordance`` of R samples at once, in which bags occur some number of times.

    A pair counts as often as the product of its bags' numbers; a bag is in no pair with itself.

    Args:
        rank_B: As for ``concordance``.
        score_B: Likewise.
        leads_B: Likewise.
        weight_BR: How often every bag is in each sample, at least 0.

    Returns:
        The shares, (R,); NaN where no pair counts.
    """
    num_R, twice_won_R = np.zeros((2, weight_BR.shape[1]))
    for group in _groups(rank_B, score_B, leads_B):
        before_LR = np.zeros((len(group.lower_L) + 1, weight_BR.shape[1]))
        np.cumsum(weight_BR[group.lower_L], axis=0, out=before_LR[1:])
        upper_UR = weight_BR[group.upper_U]
        first_UR = before_LR[group.first_U]
        num_R += np.einsum("ur,ur->r", upper_UR, before_LR[group.last_U] - first_UR)
        won_UR = before_LR[group.below_U] + before_LR[group.not_above_U]
        twice_won_R += np.einsum("ur,ur->r", upper_UR, won_UR - 2 * first_UR)
    return np.divide(twice_won_R, 2 * num_R, out=np.full_like(num_R, np.nan), where=num_R > 0)


def _groups(rank_B: np.ndarray, score_B: np.ndarray, leads_B: np.ndarray) -> Iterator[_Group]:
    """Bit by bit, everything that pairs are counted with."""
    distinct_V, score_rank_B = np.unique(score_B, return_inverse=True)
    for bit in range(int(rank_B.max(initial=0)).bit_length()):
        # A code orders bags by group, then by score; each group has its own range of codes.
        group_start_B = (rank_B >> (bit + 1)) * len(distinct_V)
        code_B = group_start_B + score_rank_B
        is_upper_B = (rank_B >> bit) % 2 == 1
        lower_L = np.flatnonzero(~is_upper_B & leads_B)
        lower_L = lower_L[np.argsort(code_B[lower_L], kind="stable")]
        sorted_L, start_U = code_B[lower_L], group_start_B[is_upper_B]
        first_U, last_U = np.searchsorted(sorted_L, [start_U, start_U + len(distinct_V)])
        below_U = np.searchsorted(sorted_L, code_B[is_upper_B], side="left")
        not_above_U = np.searchsorted(sorted_L, code_B[is_upper_B], side="right")
        upper_U = np.flatnonzero(is_upper_B)
        yield _Group(lower_L, upper_U, first_U, last_U, below_U, not_above_U)
