"""The tables of a comparison as markdown, to be pasted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayfed_hn.evaluation.subject import Record, seen_from, subject

OPTIMISTIC = (
    "Splits re-divide the same cases, so errors and intervals are optimistic; "
    "in the manner of Lin et al. 2023."
)
MAX_METHODS = 4  # of more, only the differences of one method are printed


def markdown_table(comparison: Mapping[str, Any], readout: str | None = None) -> str:
    """Return the methods and then the paired differences, each as a markdown table.

    Of many methods there are too many pairs to read: then the differences are those of the
    hypernetwork (without it, of the best method), and a line says how many were left out.

    Args:
        comparison: What ``compare_methods`` returned, or a ``summary.json`` of compare; one
            without a ``metric`` is of AUCs.
        readout: Whose lines come first; None keeps the order.
    """
    table = _grouped(comparison["table"], readout)
    differences = _grouped(_readable(table, comparison["differences"]), readout)
    hidden = len(comparison["differences"]) - len(differences)
    metric, other = comparison.get("metric", "AUC"), other_unit(comparison)
    noise = amount_name(comparison)
    columns = ["method", *([noise] if noise else []), "readout", f"mean site {metric} ± s.e."]
    columns += [f"by {other}"] if other else []
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
            f"| {_cell(row['method'])} | {amount(row['noise'])} | {amount(row['against_noise'])} | "
            f"{_cell(row['readout'])} | {number(row['difference'], signed=True)} | "
            f"{interval(row['low'], row['high'], signed=True)} | {row['num_splits']} |"
            for row in found
        ),
    ]


def _grouped(records: Sequence[Record], readout: str | None) -> Sequence[Record]:
    """Put records of a readout together, those of ``readout`` first."""
    if readout is None:
        return records
    order = [readout, *dict.fromkeys(record["readout"] for record in records)]
    return sorted(records, key=lambda record: order.index(record["readout"]))


def _readable(table: Sequence[Record], differences: Sequence[Record]) -> Sequence[Record]:
    if len({(row["method"], row.get("noise")) for row in table}) <= MAX_METHODS:
        return differences
    return seen_from(subject(table, table[0]["readout"]), differences)


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


def other_unit(comparison: Mapping[str, Any]) -> str | None:
    """Slide or case: what is not the unit of the means; None where every case has one slide."""
    if not any("by_case" in row for row in comparison["table"]):
        return None
    return "slide" if comparison.get("unit") == "case" else "case"


def amount_name(comparison: Mapping[str, Any]) -> str | None:
    """What amounts of noise are of, such as epsilon; None where there is but one."""
    name = comparison.get("noise_of")
    return name and name.removeprefix("target_")


def amount(noise: float | None) -> str:
    """Return an amount of noise, or a dash for what releases nothing."""
    return "–" if noise is None else f"{noise:.15g}"


def _amount(row: Record) -> list[str]:
    return [amount(row["noise"])] if "noise" in row else []


def _method_line(row: Record, other: str | None) -> str:
    error = "" if row["se"] is None else f" ± {row['se']:.3f}"
    worst = number(row["worst_mean"])
    if row["worst_site"] is not None:
        worst += f" ({_cell(row['worst_site'])})"
    cells = [_cell(row["method"]), *_amount(row), _cell(row["readout"])]
    cells += [f"{number(row['mean_site'])}{error}"]
    cells += [number(row[f"by_{other}"])] if other else []
    cells += [worst, number(row["pooled"]), str(row["num_undefined"])]
    return f"| {' | '.join(cells)} |"


def _difference_line(row: Record) -> str:
    return (
        f"| {_cell(row['method'])} − {_cell(row['against'])} | "
        f"{''.join(f'{amount} | ' for amount in _amount(row))}{_cell(row['readout'])} | "
        f"{number(row['difference'], signed=True)} | "
        f"{interval(row['low'], row['high'], signed=True)} | {row['num_splits']} |"
    )


def _cell(text: str) -> str:
    """Escape what would end a cell or start HTML where markdown is rendered."""
    cleaned = " ".join(str(text).split())
    for special, escaped in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;")):
        cleaned = cleaned.replace(special, escaped)
    return cleaned
