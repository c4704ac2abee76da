"""A metric over many sites, of which each was tested on few bags."""

from __future__ import annotations

from collections.abc import Sequence


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """The mean, the lowest value, and the mean of the lowest tenth (one at least); None of none.

    The lowest of many values that are each of few bags is low by chance, and the lower, the more
    there are: between numbers of sites, the mean of the lowest tenth can be compared.
    """
    if not values:
        return {"mean": None, "worst": None, "lowest_tenth": None}
    lowest = sorted(values)[: -(-len(values) // 10)]
    return {
        "mean": sum(values) / len(values),
        "worst": lowest[0],
        "lowest_tenth": sum(lowest) / len(lowest),
    }
