"""The tables of a comparison as markdown, to be pasted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

OPTIMISTIC = (
    "Splits re-divide the same cases, so errors and intervals are optimistic; "
    "in the manner of Lin et al. 2023."
)


def markdown_table(comparison: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the methods and then the paired differences, each as a markdown table.

    Args:
        comparison: What ``compare_methods`` returned, or a ``summary.json`` of compare.
    """
    table, differences = comparison["table"], comparison["differences"]
    lines = [
        "| method | readout | mean site AUC ± s.e. | worst site | pooled out of fold | undefined |",
        "|---|---|---|---|---|---|",
        *(_method_line(row) for row in table),
    ]
    if differences:
        lines += [
            "",
            "| difference | readout | mean site AUC | 95 % interval | splits |",
            "|---|---|---|---|---|",
            *(_difference_line(row) for row in differences),
        ]
    return "\n".join([*lines, "", OPTIMISTIC, ""])


def number(value: float | None, *, signed: bool = False) -> str:
    """Return a number with three decimals, or a dash where it is undefined."""
    if value is None:
        return "–"
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """Return an interval, or a dash where it is undefined."""
    if low is None or high is None:
        return "–"
    return f"{number(low, signed=signed)} to {number(high, signed=signed)}"


def _method_line(row: Mapping[str, Any]) -> str:
    error = "" if row["se"] is None else f" ± {row['se']:.3f}"
    worst = number(row["worst_site_auc"])
    if row["worst_site"] is not None:
        worst += f" ({_cell(row['worst_site'])})"
    return (
        f"| {_cell(row['method'])} | {_cell(row['readout'])} | "
        f"{number(row['mean_site_auc'])}{error} | {worst} | {number(row['pooled_auc'])} | "
        f"{row['num_undefined']} |"
    )


def _difference_line(row: Mapping[str, Any]) -> str:
    return (
        f"| {_cell(row['method'])} − {_cell(row['against'])} | {_cell(row['readout'])} | "
        f"{number(row['difference'], signed=True)} | "
        f"{interval(row['low'], row['high'], signed=True)} | {row['num_splits']} |"
    )


def _cell(text: str) -> str:
    """Escape what would end a cell or start HTML where markdown is rendered."""
    cleaned = " ".join(str(text).split())
    for special, escaped in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;")):
        cleaned = cleaned.replace(special, escaped)
    return cleaned
