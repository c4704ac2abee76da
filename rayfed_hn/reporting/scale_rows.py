"""What an experiment with more and more sites found, as columns of text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]

PHASES = {
    "generation": "generation",
    "sending": "sending",
    "training": "training",
    "transport": "transport",
    "reading": "reading",
    "pull_back": "pull-back",
    "rest": "rest",
}
_FEW_SECONDS = 100  # of the longest version; phases of shorter ones are told in milliseconds
_FEW_MIB = 100 * 1024  # in all; memory beyond is told in GiB


@dataclass(frozen=True)
class Columns:
    """A table of texts; the first of a row is a word, the others are numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def ordered(summary: Record) -> list[Record]:
    """Return the steps of the ladder, those of a method together, few sites first."""
    methods = list(dict.fromkeys(row["method"] for row in summary["rows"]))
    return sorted(summary["rows"], key=lambda row: (methods.index(row["method"]), row["sites"]))


def by_method(summary: Record) -> dict[str, list[Record]]:
    """Return the steps of every method, few sites first."""
    found: dict[str, list[Record]] = {}
    for row in ordered(summary):
        found.setdefault(row["method"], []).append(row)
    return found


def digits(value: float) -> str:
    """Return a number with three digits that count; more before the point, but not behind it."""
    decimals = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(decimals, 0), 3)}f}"


def seconds(value: float) -> str:
    """Return a time with its unit."""
    return f"{digits(value)} s" if value >= 0.1 else f"{digits(1000 * value)} ms"


def memory(mib: float) -> str:
    """Return an amount of memory with its unit."""
    return f"{mib:,.0f} MiB" if mib < 1024 else f"{mib / 1024:,.1f} GiB"


def share_of_copying(row: Record) -> float:
    """The share of a version's time that would do to copy, once, all bytes that it moves.

    The bandwidth counts what is read and what is written, so a copied byte counts twice.
    """
    moved = 2 * (row["bytes_down"] + row["bytes_up"])
    return moved / row["copy_bytes_per_second"] / row["seconds_per_version"]


def rounds(summary: Record) -> Columns:
    """Sites, time, updates, bytes and memory of every step; lost sites where there are any."""
    rows = ordered(summary)
    lost = any(row["lost_sites"] for row in rows)
    unit, divisor = _memory_unit(rows)
    header = ("method", "sites", "cohort", "hosts", "seconds", "min", "max")
    header += ("updates/s", "MB down", "MB up", unit, *(["lost"] if lost else []))
    return Columns(
        "Every step: seconds a version and the rest as medians over versions; memory is PSS",
        header,
        tuple(
            (
                row["method"],
                f"{row['sites']:,}",
                f"{row['cohort_size']:,}",
                f"{row['num_hosts']:,}",
                digits(row["seconds_per_version"]),
                digits(row["seconds_lowest"]),
                digits(row["seconds_highest"]),
                digits(row["updates_per_second"]),
                digits(row["bytes_down"] / 1e6),
                digits(row["bytes_up"] / 1e6),
                digits(row["total_pss_mib"] / divisor),
                *([f"{row['lost_sites']:,}"] if lost else []),
            )
            for row in rows
        ),
    )


def phases(summary: Record) -> Columns:
    """Where the time of a version goes, and how little of it copying its bytes would take."""
    rows = ordered(summary)
    longest = max(row["seconds_per_version"] for row in rows)
    unit, factor = ("ms", 1000) if longest < _FEW_SECONDS else ("s", 1)
    return Columns(
        f"Where the time of a version goes ({unit})",
        ("method", "sites", *PHASES.values(), "copying"),
        tuple(
            (
                row["method"],
                f"{row['sites']:,}",
                *(digits(factor * row["phases"][phase]) for phase in PHASES),
                f"{digits(100 * share_of_copying(row))} %",
            )
            for row in rows
        ),
    )


def memories(summary: Record) -> Columns:
    """The memory of every kind of process."""
    rows = ordered(summary)
    kinds, (unit, divisor) = kinds_of(rows), _memory_unit(rows)
    return Columns(
        f"Memory by kind of process ({unit})",
        ("method", "sites", *kinds, "in all"),
        tuple(
            (
                row["method"],
                f"{row['sites']:,}",
                *(
                    digits(row["memory"][kind]["pss_mib"] / divisor)
                    if kind in row["memory"]
                    else "–"
                    for kind in kinds
                ),
                digits(row["total_pss_mib"] / divisor),
            )
            for row in rows
        ),
    )


def kinds_of(rows: Sequence[Record]) -> list[str]:
    """Return the kinds of processes, those that matter most first."""
    usual = ("site actors", "server actor", "Ray itself", "driver")
    found = dict.fromkeys(kind for row in rows for kind in row["memory"])
    return [*(kind for kind in usual if kind in found), *(k for k in found if k not in usual)]


def _memory_unit(rows: Sequence[Record]) -> tuple[str, int]:
    most = max(row["total_pss_mib"] for row in rows)
    return ("MiB", 1) if most < _FEW_MIB else ("GiB", 1024)
