"""Concordance of two orders over pairs of bags, without a matrix of pairs."""

from __future__ import annotations

import numpy as np


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
    distinct_V, score_rank_B = np.unique(score_B, return_inverse=True)
    num_pairs, twice_won = 0, 0
    for bit in range(int(rank_B.max(initial=0)).bit_length()):
        # A code orders bags by group, then by score; each group has its own range of codes.
        group_start_B = (rank_B >> (bit + 1)) * len(distinct_V)
        code_B = group_start_B + score_rank_B
        is_upper_B = (rank_B >> bit) % 2 == 1
        lower_L = np.sort(code_B[~is_upper_B & leads_B])
        start_U = group_start_B[is_upper_B]
        first_U, last_U = np.searchsorted(lower_L, [start_U, start_U + len(distinct_V)])
        below_U = np.searchsorted(lower_L, code_B[is_upper_B], side="left")
        not_above_U = np.searchsorted(lower_L, code_B[is_upper_B], side="right")
        num_pairs += int((last_U - first_U).sum())
        twice_won += int((below_U + not_above_U - 2 * first_U).sum())
    return twice_won / (2 * num_pairs) if num_pairs else None
