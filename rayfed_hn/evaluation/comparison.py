"""Methods side by side: means over sites and splits, what is certain about them, and differences.

A *cell* is the test metric of one method under one readout at one site in one *split* (seed, fold).
Undefined cells are left out and counted.

There are two kinds of interval, and they answer different questions.

*By split*: what another division of the cases and another training run would have given. Standard
errors are cluster-robust with the split as the cluster: the cells of a split share the division of
the cases and the training run. What they do not know is that splits re-divide the same cases, so
that train and test sets of different splits overlap: errors and intervals are optimistic (Nadeau
and Bengio 2003), and a difference near the edge of its interval has not been shown. Where folds
hold few bags, cells take few values: methods that agree in all of them get an interval of no width,
which says that the folds are too small, not that the methods are equal.

*By case* (``bootstrap``, ``delong``; the record's ``tests``): what other patients of the same sites
would have given, with the networks as they are. They know nothing of training. A difference that
should hold for new patients and for new training runs has to leave out zero by both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayfed_hn.evaluation.beside import cells_of, reliability_curves
from rayfed_hn.evaluation.bootstrap import bootstrap_tests
from rayfed_hn.evaluation.cells import Cells, Estimate, Row, estimate, pairs_of
from rayfed_hn.evaluation.delong import delong_tests
from rayfed_hn.evaluation.held_out import HeldOut
from rayfed_hn.evaluation.holm import corrected
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.markdown import markdown_table
from rayfed_hn.evaluation.measures import Measure, main_measure, more_measures
from rayfed_hn.evaluation.out_of_fold import Scores, out_of_fold_values

__all__ = ["ByCase", "Estimate", "compare_methods", "differences", "estimate", "markdown_table"]

TABLES = ("table", "per_site", "differences")


@dataclass(frozen=True)
class ByCase:
    """How differences are tested by case.

    Attributes:
        resamples: Samples of the cases (``compare.resamples``).
        seed: Of the draws.
    """

    resamples: int
    seed: int


def compare_methods(
    rows: Sequence[Row],
    scores: Sequence[Mapping[str, Any]],
    *,
    judge: Judge,
    unit: str = "slide",
    by_case: ByCase | None = None,
) -> dict[str, Any]:
    """Summarise a comparison.

    Args:
        rows: ``method, readout, site, seed, fold, value`` (None where undefined); where cases have
            several slides also ``by_slide, by_case, num_slides, num_cases``.
        scores: One per test bag: ``method, readout, seed, fold, site, unit, slide, case``, and
            what ``judge`` needs.
        judge: What judged the rows.
        unit: slide or case: what the rows' ``value`` is of.
        by_case: How to test differences by case; None: not at all.

    Returns:
        ``task``, ``unit``, ``metric``.
        ``table``: method, readout, mean_site, se, low, high, worst_mean, worst_site,
        pooled (out of fold; None where not complete), num_undefined, num_splits, num_sites; where
        cases have several slides also by_slide and by_case, one of which is mean_site, and in how
        many of the num_cells they are defined (cells_by_slide, cells_by_case).
        ``per_site``: method, readout, site, mean_value, se, out_of_fold, num_test,
        num_undefined.
        ``differences``: every pair of methods with the same readout, hypernetwork first: method,
        against, readout, difference, low, high, se, num_splits, num_cells.
        ``measures``: what else is measured: metric, about, lower_is_better; and the three tables of
        it, every record with its ``metric``: ``more_table``, ``more_per_site``,
        ``more_differences``.
        ``reliability``: of classes: method, readout, bins.
        ``tests``: by case (``bootstrap_tests``, ``delong_tests``), each with ``p_holm``.

    Raises:
        ValueError: A cell occurs twice, or a score is NaN.
    """
    cells, held_out = Cells(rows), Scores(scores, judge, unit)
    table = _table(cells, held_out)
    if any(row.get("num_slides") != row.get("num_cases") for row in rows):
        _add_both_units(table, rows)
    measures, arrays = more_measures(judge), HeldOut(held_out)
    return {
        "task": judge.kind,
        "unit": unit,
        "metric": judge.name,
        "table": table,
        "per_site": _per_site(cells, held_out),
        "differences": _differences(cells),
        "measures": [measure.told() for measure in measures],
        **_more(measures, rows, scores, held_out),
        "reliability": reliability_curves(arrays) if measures else [],
        "tests": [] if by_case is None else _tests(arrays, by_case),
    }


def _more(
    measures: Sequence[Measure],
    rows: Sequence[Row],
    scores: Sequence[Mapping[str, Any]],
    held_out: Scores,
) -> dict[str, list[dict[str, Any]]]:
    """The tables of other measures."""
    found: dict[str, list[dict[str, Any]]] = {f"more_{name}": [] for name in TABLES}
    cells = cells_of(rows, scores, held_out, measures)
    for measure in measures:
        of_measure = cells[measure.name]
        made = (
            _table(of_measure, held_out, measure),
            _per_site(of_measure, held_out, measure),
            _differences(of_measure),
        )
        for name, records in zip(TABLES, made, strict=True):
            found[f"more_{name}"] += [{**record, "metric": measure.name} for record in records]
    return found


def _tests(held_out: HeldOut, by_case: ByCase) -> list[dict[str, Any]]:
    judge = held_out.scores.judge
    measures = main_measure(judge), *more_measures(judge)
    size = {"resamples": by_case.resamples, "seed": by_case.seed}
    found = bootstrap_tests(held_out, measures, **size)
    return corrected([*found, *(delong_tests(held_out) if judge.kind == "binary" else [])])


def differences(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the ``differences`` of ``compare_methods`` alone."""
    return _differences(Cells(rows))


def _table(cells: Cells, scores: Scores, measure: Measure | None = None) -> list[dict[str, Any]]:
    held_out = out_of_fold_values(scores, by_site=False, measure=measure)
    pooled = {arm: value for (arm, _), value in held_out.items()}
    lowest, highest = (measure or scores.judge).bounds
    find_worst = np.nanargmax if measure is not None and measure.lower_is_better else np.nanargmin
    table = []
    for arm, values_SK in cells.values.items():
        found = estimate(values_SK)
        worst = None if found.mean is None else int(find_worst(found.site_means))
        table.append(
            {
                "method": arm[0],
                "readout": arm[1],
                "mean_site": found.mean,
                "se": found.se,
                "low": None if found.low is None else max(found.low, lowest),
                "high": None if found.high is None else min(found.high, highest),
                "worst_mean": None if worst is None else float(found.site_means[worst]),
                "worst_site": None if worst is None else cells.sites[worst],
                "pooled": pooled.get(arm),
                "num_undefined": int(cells.num_undefined(arm).sum()),
                "num_splits": found.num_splits,
                "num_sites": int((~np.isnan(found.site_means)).sum()),
            }
        )
    return table


def _add_both_units(table: list[dict[str, Any]], rows: Sequence[Row]) -> None:
    for name in ("by_slide", "by_case"):
        cells = Cells(rows, name)
        for line in table:
            arm = line["method"], line["readout"]
            line[name] = estimate(cells.values[arm]).mean
            line["num_cells"] = int(cells.present[arm].sum())
            line[f"cells_{name}"] = line["num_cells"] - int(cells.num_undefined(arm).sum())


def _per_site(cells: Cells, scores: Scores, measure: Measure | None = None) -> list[dict[str, Any]]:
    held_out = out_of_fold_values(scores, by_site=True, measure=measure)
    records = []
    for arm, values_SK in cells.values.items():
        undefined_S = cells.num_undefined(arm)
        for s, site in enumerate(cells.sites):
            found = estimate(values_SK[s : s + 1])
            records.append(
                {
                    "method": arm[0],
                    "readout": arm[1],
                    "site": site,
                    "mean_value": found.mean,
                    "se": found.se,
                    "out_of_fold": held_out.get((arm, site)),
                    "num_test": scores.num_bags.get(site, 0),
                    "num_undefined": int(undefined_S[s]),
                }
            )
    return records


def _differences(cells: Cells) -> list[dict[str, Any]]:
    records = []
    for readout in dict.fromkeys(readout for _, readout in cells.values):
        methods = [method for method, r in cells.values if r == readout]
        for method, against in pairs_of(methods):
            paired_SK = cells.values[method, readout] - cells.values[against, readout]
            found = estimate(paired_SK)
            records.append(
                {
                    "method": method,
                    "against": against,
                    "readout": readout,
                    "difference": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "se": found.se,
                    "num_splits": found.num_splits,
                    "num_cells": int((~np.isnan(paired_SK)).sum()),
                }
            )
    return records
