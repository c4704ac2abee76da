"""The short tables below the differences: tests by case, other metrics, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayfed_hn.evaluation.bootstrap import KIND as BOOTSTRAP
from rayfed_hn.evaluation.bootstrap import MEAN, POOLED
from rayfed_hn.evaluation.delong import KIND as DELONG
from rayfed_hn.evaluation.markdown_cells import (
    amount_name,
    amounts,
    cell,
    interval,
    lines_of,
    number,
    readable,
    with_bounds,
)
from rayfed_hn.evaluation.quantities import in_bytes, in_seconds, p_value

BY_SPLIT = (
    "Intervals by split say what other divisions and training runs would give; those by case, what "
    "other patients would, with these networks. p (Holm) is corrected over the pairs of a table. "
    "The two may differ, in sign too: by split, metrics of single folds are averaged, which are "
    "coarse where a fold has few bags; by case, the scores of all folds are judged together, "
    "though other networks gave them."
)


def more_tables(comparison: Mapping[str, Any], readout: str) -> list[str]:
    """Return lines of markdown; of older runs none.

    Args:
        comparison: A ``summary.json`` of compare, or what is known of it.
        readout: Whose numbers are shown.
    """
    found = [*_tests(comparison, readout), *_metrics(comparison, readout), *_costs(comparison)]
    return [*found, "", BY_SPLIT] if comparison.get("tests") else found


def _noise(comparison: Mapping[str, Any]) -> list[str]:
    name = amount_name(comparison)
    return [name] if name else []


def _tests(comparison: Mapping[str, Any], readout: str) -> list[str]:
    metric, table = comparison.get("metric", "AUC"), comparison["table"]
    pooled = DELONG if comparison.get("task") == "binary" else BOOTSTRAP
    shown = ((MEAN, BOOTSTRAP), (POOLED, pooled))  # the report has all
    tests = [
        test
        for test in comparison.get("tests", [])
        if test["readout"] == readout
        and test["metric"] == metric
        and (test["scope"], test["kind"]) in shown
    ]
    table = [row for row in table if row["readout"] == readout]
    if not tests or not table:
        return []
    header = ["by case, readout " + cell(readout), *_noise(comparison), "of", "test"]
    header += [metric, "95 % interval", "p", "p (Holm)"]
    rows = [
        [
            *(f"{cell(t['method'])} − {cell(t['against'])}", *amounts(t), t["scope"], t["kind"]),
            number(t["difference"], signed=True),
            interval(t["low"], t["high"], signed=True),
            *(p_value(t["p"]), p_value(t["p_holm"])),
        ]
        for t in readable(table, tests)
    ]
    return ["", *lines_of(header, rows)]


def _metrics(comparison: Mapping[str, Any], readout: str) -> list[str]:
    """Means of sites with their intervals by split, a column a metric."""
    table = [row for row in comparison.get("more_table", []) if row["readout"] == readout]
    if not table:
        return []
    measures: Sequence[Mapping[str, Any]] = comparison["measures"]
    names = [measure["metric"] for measure in measures]
    arms: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for row in table:
        arms.setdefault((row["method"], *amounts(row)), {})[row["metric"]] = row
    lower = [f"{m['metric']} (less is better)" if m["lower_is_better"] else m["metric"]
             for m in measures]  # fmt: skip
    header = ["mean site, readout " + cell(readout), *_noise(comparison), *lower]
    rows = [[*map(cell, arm), *(with_bounds(found[name]) for name in names)]
            for arm, found in arms.items()]  # fmt: skip
    return ["", *lines_of(header, rows)]


def _costs(comparison: Mapping[str, Any]) -> list[str]:
    found = comparison.get("costs", [])
    if not found:
        return []
    header = ["one training", *_noise(comparison), *COSTS]
    rows = [[cell(row["method"]), *amounts(row), *cost_cells(row)] for row in found]
    return ["", *lines_of(header, rows)]


COSTS = (
    *("sent a version", "received a version", "sent in all", "received in all"),
    *("site-seconds", "simulated time", "wall time"),
)


def cost_cells(row: Mapping[str, Any]) -> list[str]:
    """Return the cells under ``COSTS``."""
    names = "bytes_down_per_version", "bytes_up_per_version", "bytes_down", "bytes_up"
    times = "site_seconds", "time", "seconds"
    return [*(in_bytes(row[name]) for name in names), *(in_seconds(row[name]) for name in times)]
