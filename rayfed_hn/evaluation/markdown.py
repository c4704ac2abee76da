"""The tables of a comparison as markdown, to be pasted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayfed_hn.evaluation.markdown_cells import (
    MAX_METHODS,
    amount,
    amount_name,
    amounts,
    cell,
    grouped,
    interval,
    number,
    readable,
    worst_site,
)
from rayfed_hn.evaluation.markdown_more import more_tables
from rayfed_hn.evaluation.subject import Record

__all__ = [
    "MAX_METHODS",
    "amount",
    "amount_name",
    "interval",
    "markdown_table",
    "number",
    "other_unit",
]

OPTIMISTIC = (
    "Splits re-divide the same cases, so errors and intervals are optimistic; "
    "in the manner of Lin et al. 2023."
)


def markdown_table(comparison: Mapping[str, Any], readout: str | None = None) -> str:
    """Return the methods and then the paired differences, each as a markdown table.

    Of many methods there are too many pairs to read: then the differences are those of the
    hypernetwork (without it, of the best method), and a line says how many were left out.

    Args:
        comparison: What ``compare_methods`` returned, or a ``summary.json`` of compare; one
            without a ``metric`` is of AUCs.
        readout: Whose lines come first; None keeps the order.
    """
    table = grouped(comparison["table"], readout)
    differences = grouped(readable(table, comparison["differences"]), readout)
    hidden = len(comparison["differences"]) - len(differences)
    metric, other = comparison.get("metric", "AUC"), other_unit(comparison)
    noise = amount_name(comparison)
    columns = ["method", *([noise] if noise else []), "readout", f"mean site {metric} ± s.e."]
    columns += [unit_column(other)] if other else []
    columns += ["worst site", "pooled out of fold", "undefined"]
    lines = [
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *(_method_line(row, other) for row in table),
    ]
    if differences:
        lines += [
            "",
            f"| difference |{f' {noise} |' if noise else ''} readout | mean site {metric} | "
            "95 % interval | splits |",
            "|---" * (5 + bool(noise)) + "|",
            *(_difference_line(row) for row in differences),
        ]
    lines += _costs(comparison, readout)
    if hidden:
        lines += [
            "",
            f"{hidden} more differences, of other pairs, are in summary.json and the report.",
        ]
    lines += more_tables(comparison, table[0]["readout"]) if table else []
    return "\n".join([*lines, "", OPTIMISTIC, ""])


def _costs(comparison: Mapping[str, Any], readout: str | None) -> list[str]:
    """What more noise costs each method, under the readout that counts."""
    found = comparison.get("by_amount", [])
    first = readout or next((row["readout"] for row in found), None)
    found = [row for row in found if row["readout"] == first]
    if not found:
        return []
    name, metric = amount_name(comparison), comparison.get("metric", "AUC")
    return [
        "",
        f"| method | {name} | minus {name} | readout | mean site {metric} | 95 % interval "
        "| splits |",
        "|---" * 7 + "|",
        *(
            f"| {cell(row['method'])} | {amount(row['noise'])} | {amount(row['against_noise'])} | "
            f"{cell(row['readout'])} | {number(row['difference'], signed=True)} | "
            f"{interval(row['low'], row['high'], signed=True)} | {row['num_splits']} |"
            for row in found
        ),
    ]


def other_unit(comparison: Mapping[str, Any]) -> str | None:
    """Slide or case: what is not the unit of the means; None where every case has one slide."""
    if not any("by_case" in row for row in comparison["table"]):
        return None
    return "slide" if comparison.get("unit") == "case" else "case"


def unit_column(other: str) -> str:
    """Title of the mean in the other unit; tests by case are something else."""
    return "of whole cases" if other == "case" else "of single slides"


def _method_line(row: Record, other: str | None) -> str:
    error = "" if row["se"] is None else f" ± {row['se']:.3f}"
    cells = [cell(row["method"]), *amounts(row), cell(row["readout"])]
    cells += [f"{number(row['mean_site'])}{error}"]
    cells += [in_other_unit(row, other)] if other else []
    cells += [cell(worst_site(row)), number(row["pooled"]), str(row["num_undefined"])]
    return f"| {' | '.join(cells)} |"


def in_other_unit(row: Record, other: str) -> str:
    """With the cells that it is a mean of where folds are too small for all to have a value."""
    defined, present = row.get(f"cells_by_{other}"), row.get("num_cells")
    of = f" ({defined} of {present} cells)" if defined != present else ""
    return f"{number(row[f'by_{other}'])}{of}"


def _difference_line(row: Record) -> str:
    return (
        f"| {cell(row['method'])} − {cell(row['against'])} | "
        f"{''.join(f'{amount} | ' for amount in amounts(row))}{cell(row['readout'])} | "
        f"{number(row['difference'], signed=True)} | "
        f"{interval(row['low'], row['high'], signed=True)} | {row['num_splits']} |"
    )
