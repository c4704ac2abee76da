"""The method that a comparison is about, and the differences as seen from its side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

HYPERNETWORK = "hypernetwork"

Record = Mapping[str, Any]


def subject(table: Sequence[Record], readout: str) -> str:
    """Return the hypernetwork, or the method with the highest mean where it has no value.

    Args:
        table: Of ``compare_methods``; at least one row.
        readout: Whose means count.
    """
    defined = [r for r in table if r["readout"] == readout and r["mean_site"] is not None]
    if not defined:
        return table[0]["method"]
    own = any(row["method"] == HYPERNETWORK for row in defined)
    return HYPERNETWORK if own else max(defined, key=lambda row: row["mean_site"])["method"]


def seen_from(method: str, differences: Iterable[Record]) -> list[Record]:
    """Return the differences that involve ``method``, each as ``method`` minus another."""
    return [
        _turned(difference, method)
        for difference in differences
        if method in (difference["method"], difference["against"])
    ]


def _turned(difference: Record, method: str) -> Record:
    if difference["method"] == method:
        return difference
    negative = {k: _negative(difference[k]) for k in ("difference", "low", "high")}
    return {
        **difference,
        "method": method,
        "against": difference["method"],
        "difference": negative["difference"],
        "low": negative["high"],
        "high": negative["low"],
    }


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
