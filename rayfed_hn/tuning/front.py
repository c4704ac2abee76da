"""Which settings are best: by the validation metric, or not beaten in two things at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Record = Mapping[str, Any]

LESS_IS_BETTER = ("epsilon",)


def finished(records: Sequence[Record]) -> list[Record]:
    """Trials that made all their versions and can be judged."""
    return [r for r in records if r["status"] == "finished" and r["validation_metric"] is not None]


def best(records: Sequence[Record]) -> Record | None:
    """The finished trial with the highest validation metric; of equal ones the first."""
    return max(finished(records), key=lambda r: (r["validation_metric"], -r["trial"]), default=None)


def front(records: Sequence[Record], objectives: Sequence[str]) -> list[int]:
    """Numbers of the finished trials that no other beats in all objectives.

    Args:
        records: Of trials, each with a value for every objective.
        objectives: One or two of ``config.tune.OBJECTIVES``.

    Returns:
        By the second objective, the best first; trials that are alike in all are all there.
    """
    judged = [r for r in finished(records) if all(r[name] is not None for name in objectives)]
    signs = np.array([-1.0 if name in LESS_IS_BETTER else 1.0 for name in objectives])
    values_RO = signs * np.array([[r[name] for name in objectives] for r in judged], float).reshape(
        len(judged), len(objectives)
    )
    kept = [i for i, row_O in enumerate(values_RO) if not _beaten(row_O, values_RO)]
    kept.sort(key=lambda i: (-values_RO[i, -1], -values_RO[i, 0], judged[i]["trial"]))
    return [judged[i]["trial"] for i in kept]


def _beaten(row_O: np.ndarray, by_RO: np.ndarray) -> bool:
    """Whether any row is at least as good in everything and better in something."""
    return bool(((by_RO >= row_O).all(axis=1) & (by_RO > row_O).any(axis=1)).any())
