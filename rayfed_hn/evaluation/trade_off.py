"""What noise costs: methods side by side with more and more of it.

With every amount of noise the methods are compared as ever (``comparison``), among themselves and
with those that release nothing, which have no amount and are part of every comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rayfed_hn.evaluation.comparison import (
    TABLES,
    ByCase,
    compare_methods,
    differences,
    estimate,
)
from rayfed_hn.evaluation.holm import corrected
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.subject import seen_from

Record = Mapping[str, Any]
_TABLES = (*TABLES, *(f"more_{name}" for name in TABLES), "reliability", "tests")
# Of a record in any of them.
_KEY = ("method", "against", "readout", "site", "metric", "scope", "kind", "noise")


def compare_amounts(
    rows: Sequence[Record],
    scores: Sequence[Record],
    amounts: Sequence[float],
    *,
    least: Callable[[Sequence[float]], float],
    judge: Judge,
    unit: str = "slide",
    by_case: ByCase | None = None,
) -> dict[str, Any]:
    """Summarise a comparison with several amounts of noise.

    Args:
        rows: As ``compare_methods`` takes them, each with ``noise``; None of methods that release
            nothing.
        scores: Likewise.
        amounts: Those that were asked for.
        least: Finds the least noise among some amounts.
        judge: What judged the rows.
        unit: slide or case.
        by_case: As ``compare_methods`` takes it; tests are corrected over all amounts.

    Returns:
        What ``compare_methods`` returns, every record with its ``noise``: records of methods that
        release nothing, and of their differences, are there once, with None. Other differences are
        between methods with the same amount of noise, or one method and one that releases nothing.
        ``by_amount``: what noise costs, every method with itself: method, readout, noise,
        against_noise (the least with which anything was finished), difference, low, high, se,
        num_splits, num_cells.
    """
    found: dict[str, Any] = {}
    tables: dict[str, dict[tuple[Any, ...], Record]] = {name: {} for name in _TABLES}
    for amount in amounts:
        own = _with(rows, amount), _with(scores, amount)
        found |= compare_methods(*own, judge=judge, unit=unit, by_case=by_case)
        noised = {row["method"] for row in rows if row["noise"] == amount}
        for name, known in tables.items():
            for record in found[name]:
                methods = {record["method"], record.get("against")}
                noted = {**record, "noise": amount if methods & noised else None}
                known.setdefault(tuple(noted.get(key) for key in _KEY), noted)
    found |= {name: list(known.values()) for name, known in tables.items()}
    found["tests"] = corrected(found["tests"])
    order = list(dict.fromkeys(row["method"] for row in rows))
    metrics = [None, *(measure["metric"] for measure in found["measures"])]
    for name in ("table", "more_table"):
        found[name].sort(
            key=lambda row: (metrics.index(row.get("metric")), order.index(row["method"]))
        )
    found["by_amount"] = [
        record
        for method in order
        for record in _by_amount([row for row in rows if row["method"] == method], least)
    ]
    return found


def _by_amount(
    rows: Sequence[Record], find_least: Callable[[Sequence[float]], float]
) -> list[dict[str, Any]]:
    """A method with more noise minus the same method with the least."""
    amounts = {repr(row["noise"]): row["noise"] for row in rows if row["noise"] is not None}
    as_methods = [{**row, "method": repr(row["noise"])} for row in rows]
    if len(amounts) < 2:
        return []
    least = find_least(list(amounts.values()))
    found = [seen_from(name, differences(as_methods)) for name in amounts if name != repr(least)]
    return [
        {
            **record,
            "method": rows[0]["method"],
            "noise": amounts[record["method"]],
            "against_noise": least,
        }
        for records in found
        for record in records
        if record["against"] == repr(least)
    ]


def membership(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Average how well members were told from others, by method and noise.

    Args:
        records: ``method, seed, fold, membership_auc``, and ``noise`` if it was varied.

    Returns:
        method, noise, mean, low, high (95 % interval over splits) and num_splits.
    """
    by_arm: dict[tuple[str, float | None], list[float]] = {}
    for record in records:
        arm = record["method"], record.get("noise")
        by_arm.setdefault(arm, []).append(float(record["membership_auc"]))
    found = []
    for (method, noise), values in by_arm.items():
        mean = estimate(np.array([values]))
        bounds = {"low": mean.low, "high": mean.high, "num_splits": mean.num_splits}
        found.append({"method": method, "noise": noise, "mean": mean.mean, **bounds})
    return found


def _with(records: Iterable[Record], amount: float) -> list[Record]:
    return [record for record in records if record["noise"] in (amount, None)]
