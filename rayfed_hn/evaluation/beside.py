"""What is measured beside the task's metric, in the same tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rayfed_hn.evaluation.calibration import reliability
from rayfed_hn.evaluation.cells import Cells, Row
from rayfed_hn.evaluation.held_out import HeldOut
from rayfed_hn.evaluation.measures import Measure, confidence
from rayfed_hn.evaluation.out_of_fold import Scores


def cells_of(
    rows: Sequence[Row],
    scores: Sequence[Mapping[str, Any]],
    own: Scores,
    measures: Sequence[Measure],
) -> dict[str, Cells]:
    """Return the cells of every measure, by its name; undefined where a cell has no scores.

    Args:
        rows: Say which cells there are.
        scores: Of all test bags.
        own: The same, as they are judged.
        measures: What to take of them.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    if measures:
        for record in scores:
            if record.get("unit", own.unit) == own.unit:
                groups[_key(record)].append(record)
    read = {key: own.judge.read(records) for key, records in groups.items()}

    def value(measure: Measure, row: Row) -> float | None:
        found = read.get(_key(row))
        return None if found is None else measure.value(own.judge, *found)

    return {
        measure.name: Cells([{**row, "value": value(measure, row)} for row in rows])
        for measure in measures
    }


def _key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in ("method", "readout", "site", "seed", "fold"))


def reliability_curves(held_out: HeldOut) -> list[dict[str, Any]]:
    """Return the reliability of every method under every readout, of all sites and seeds together.

    Returns:
        method, readout and ``bins`` (``calibration.reliability``); only of complete ones.
    """
    judge, found = held_out.scores.judge, []
    for method, readout in held_out.scores.arms:
        readings = held_out.together((method, readout))
        if readings is not None:
            claims = [confidence(judge, r.truth, r.predictions_BS) for r in readings]
            claimed_B, hit_B = (np.concatenate(column) for column in zip(*claims, strict=True))
            bins = reliability(claimed_B, hit_B)
            found.append({"method": method, "readout": readout, "bins": bins})
    return found
