"""Whether probabilities mean what they say: Brier score, calibration error, reliability curve.

Shapes: B bags, K classes, R samples; a sample says how often it holds every bag.
"""

from __future__ import annotations

import numpy as np

MOST_BINS = 10
LEAST_IN_BIN = 10  # bags; of fewer, a bin's share of hits is mostly chance, and that reads as error


def brier(label_B: np.ndarray, probabilities_BS: np.ndarray, weight_BR: np.ndarray) -> np.ndarray:
    """Return the mean squared distance of probabilities and truth.

    With one column, the probability of class 1, it is that of the class alone, 0 to 1; with a
    column a class, the sum over classes (Brier 1950), 0 to 2.

    Returns:
        The means, (R,); NaN where a sample has no bags.
    """
    if probabilities_BS.shape[1] == 1:
        truth_BS = label_B[:, None]
    else:
        truth_BS = label_B[:, None] == np.arange(probabilities_BS.shape[1])
    distance_B = np.square(probabilities_BS - truth_BS).sum(axis=1)
    return _mean(distance_B @ weight_BR, weight_BR)


def calibration_error(
    confidence_B: np.ndarray, hit_B: np.ndarray, weight_BR: np.ndarray
) -> np.ndarray:
    """Return the expected calibration error over the bins of ``bin_of``.

    It is the mean over bags of how far their bin's mean confidence is from its share of hits (Guo
    et al. 2017, with bins of equal mass as Nixon et al. 2019). Chance alone makes it larger than 0,
    the more so the fewer the bags: compare it between methods, not with 0.

    Returns:
        The errors, (R,); NaN where a sample has no bags.
    """
    bins_NB = bin_of(confidence_B) == np.arange(MOST_BINS)[:, None]
    gap_NR = (bins_NB * (confidence_B - hit_B)) @ weight_BR
    return _mean(np.abs(gap_NR).sum(axis=0), weight_BR)


def bin_of(confidence_B: np.ndarray) -> np.ndarray:
    """Return the bin of every bag, by rank of its confidence, int64 (B,).

    Bins are of equal mass: as many as give each ``LEAST_IN_BIN`` bags, at least one and at most
    ``MOST_BINS``. Equal confidences share a bin, whatever the order of the bags.
    """
    num_bags = len(confidence_B)
    num_bins = min(max(num_bags // LEAST_IN_BIN, 1), MOST_BINS)
    _, inverse_B, count_V = np.unique(confidence_B, return_inverse=True, return_counts=True)
    middle_V = np.cumsum(count_V) - count_V / 2  # mid-rank less one half
    return np.floor(num_bins * middle_V[inverse_B] / max(num_bags, 1)).astype(np.int64)


def reliability(confidence_B: np.ndarray, hit_B: np.ndarray) -> list[dict[str, float]]:
    """Return the reliability curve: of every bin mean confidence, share of hits and bags.

    Returns:
        ``predicted``, ``observed`` and ``num_bags``, by rising confidence.
    """
    found_B = bin_of(confidence_B)
    return [
        {
            "predicted": float(confidence_B[found_B == number].mean()),
            "observed": float(hit_B[found_B == number].mean()),
            "num_bags": int((found_B == number).sum()),
        }
        for number in np.unique(found_B)
    ]


def _mean(sum_R: np.ndarray, weight_BR: np.ndarray) -> np.ndarray:
    num_R = weight_BR.sum(axis=0)
    return np.divide(sum_R, num_R, out=np.full(num_R.shape, np.nan), where=num_R > 0)
