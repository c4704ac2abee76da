"""What the tables of a comparison are made of: numbers, intervals, amounts and names as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayfed_hn.evaluation.subject import Record, seen_from, subject

MAX_METHODS = 4  # of more, only the differences of one method are printed


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


def with_bounds(row: Record) -> str:
    """Return the mean of a row of the table and, where there is one, its interval."""
    bounds = "" if row["low"] is None else f" ({interval(row['low'], row['high'])})"
    return number(row["mean_site"]) + bounds


def worst_site(row: Record) -> str:
    """Return the mean of the worst site and its name, or a dash where none has a value."""
    site = "" if row["worst_site"] is None else f" ({row['worst_site']})"
    return number(row["worst_mean"]) + site


def amount_name(comparison: Mapping[str, Any]) -> str | None:
    """What amounts of noise are of, such as epsilon; None where there is but one."""
    name = comparison.get("noise_of")
    return name and name.removeprefix("target_")


def amount(noise: float | None) -> str:
    """Return an amount of noise, or a dash for what releases nothing."""
    return "–" if noise is None else f"{noise:.15g}"


def amounts(row: Record) -> list[str]:
    """Return the amount of noise of a row, or nothing where it was not varied."""
    return [amount(row["noise"])] if "noise" in row else []


def cell(text: object) -> str:
    """Escape what would end a cell, or start HTML, a link or code, where markdown is rendered."""
    cleaned = " ".join(str(text).split())
    for special in ("\\", "|", "[", "]", "`"):
        cleaned = cleaned.replace(special, f"\\{special}")
    cleaned = cleaned.replace("<", "&lt;")
    return cleaned


def grouped(records: Sequence[Record], readout: str | None) -> Sequence[Record]:
    """Put records of a readout together, those of ``readout`` first."""
    if readout is None:
        return records
    order = [readout, *dict.fromkeys(record["readout"] for record in records)]
    return sorted(records, key=lambda record: order.index(record["readout"]))


def readable(table: Sequence[Record], differences: Sequence[Record]) -> Sequence[Record]:
    """Return differences of all pairs or, of many methods, those of the one it is all about."""
    if len({(row["method"], row.get("noise")) for row in table}) <= MAX_METHODS:
        return differences
    return seen_from(subject(table, table[0]["readout"]), differences)


def lines_of(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a markdown table; what is in it is escaped."""
    return [
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
