"""Cells of a comparison that say what they cost."""

from __future__ import annotations

from typing import Any


def cell(fold: int, down: int, time: float | None = None, **key: Any) -> dict[str, Any]:
    versions = [{"version": v, "bytes_down": down, "bytes_up": down // 2} for v in (1, 2)]
    scoring = {"bytes_down": 10, "bytes_up": 3}
    costs = {"versions": versions, "scoring": scoring, "time": time, "seconds": 4.0}
    return {
        "cell": {"method": "fedavg", "seed": 0, "fold": fold, **key},
        "metrics": [{"seconds": 0.5}, {"seconds": 1.0}],
        "costs": costs,
    }
