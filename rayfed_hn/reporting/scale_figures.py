"""The pictures of an experiment with more and more sites."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from rayfed_hn.reporting import page
from rayfed_hn.reporting.choices import MAX_METHODS, foremost
from rayfed_hn.reporting.figures import Line
from rayfed_hn.reporting.rung_charts import Stacks, rung_lines, stacked_bars
from rayfed_hn.reporting.scale_rows import (
    PHASES,
    Record,
    by_method,
    digits,
    kinds_of,
    memory,
    seconds,
)
from rayfed_hn.reporting.scale_scores import metric, score, tested
from rayfed_hn.reporting.theme import MUTED, SERIES, look

_PHASE_COLOURS = (*(SERIES[place] for place in (0, 3, 1, 4, 5, 2)), MUTED)
_KIND_COLOURS = {"site actors": 1, "server actor": 0, "Ray itself": 4, "driver": 2}
_MANY_MIB = 1024  # drawn in GiB
_MANY_BYTES = 4e9  # drawn in GB


def first_screen(summary: Record) -> list[str]:
    """Return the time of a version, how good networks are where they were tested, the memory."""
    good = [_scores(summary)] if tested(summary) else []
    return [_times(summary), *good, _memory(summary)]


def more(summary: Record) -> list[str]:
    """Return updates and bytes."""
    return [_updates(summary), _bytes(summary)]


def phase_stack(rows: Sequence[Record]) -> dict[str, list[float]]:
    """Return the phases of every step, stretched alike so that they add up to its time.

    They are medians, each of its own, and those need not add up to the median of the whole.
    """
    stretch = [row["seconds_per_version"] / sum(row["phases"][p] for p in PHASES) for row in rows]
    return {
        word: [by * row["phases"][phase] for row, by in zip(rows, stretch, strict=True)]
        for phase, word in PHASES.items()
    }


def _times(summary: Record) -> str:
    svg = _lines(summary, "times", "seconds_per_version", "seconds per version", seconds)
    caption = "Both axes are logarithmic. Fewer sites than a cohort make smaller versions."
    return page.figure("Time per version", svg, caption + _left_out(summary))


def _updates(summary: Record) -> str:
    svg = _lines(summary, "updates", "updates_per_second", "updates per second", digits)
    caption = f"Updates of sites that the server learned from.{_left_out(summary)}"
    return page.figure("Updates per second", svg, caption)


def _lines(summary: Record, name: str, key: str, ylabel: str, write: Callable[[float], str]) -> str:
    lines, words = [], []
    for place, (method, rows) in enumerate(_drawn(summary).items()):
        drawn = look(method, place)
        x, y = (np.array([row[k] for row in rows], float) for k in ("sites", key))
        lines.append(Line(method, x, y, colour=drawn.colour, dash=drawn.dash))
        told = ", ".join(f"{write(row[key])} at {row['sites']:,}" for row in rows)
        words.append(f"{method} {told}")
    return rung_lines(name, lines, ylabel=ylabel, alt=f"{ylabel} by sites: {'; '.join(words)}.")


def _scores(summary: Record) -> str:
    lines, words = [], []
    for place, (method, rows) in enumerate(_drawn(summary).items()):
        found = [row for row in rows if (row.get("tested") or {}).get("mean") is not None]
        x, drawn = np.array([row["sites"] for row in found], float), look(method, place)
        for name, dash, label in (("mean", "-", method), ("worst", ":", f"worst, {method}")):
            y = np.array([row["tested"][name] for row in found], float)
            lines.append(Line(label, x, y, colour=drawn.colour, dash=dash))
        values = (
            f"{score(row['tested']['mean'])} (worst site {score(row['tested']['worst'])}) at "
            f"{row['sites']:,}"
            for row in found
        )
        words.append(f"{method} {', '.join(values)}")
    what = f"test {metric(summary)}"
    lines = [line for line in lines if len(line.x)]
    alt = f"{what} by sites: {'; '.join(words)}."
    svg = rung_lines("scores", lines, ylabel=what, alt=alt, logarithmic=False) if lines else ""
    caption = (
        "Line: mean over the sites that were scored. Dotted: the worst of them, which is lower by "
        f"chance the more sites are scored.{_left_out(summary)}"
    )
    return page.figure("How good networks are", svg, caption)


def phases_figure(summary: Record) -> str:
    """Return where the time of a version goes."""
    ladders = _drawn(summary)
    panels = [Stacks(method, _names(rows), phase_stack(rows)) for method, rows in ladders.items()]
    colours = dict(zip(PHASES.values(), _PHASE_COLOURS, strict=True))
    alt = f"Bars of phases; longest are {_longest(panels, seconds)}."
    svg = stacked_bars("phases", panels, colours, ylabel="seconds per version", alt=alt)
    caption = (
        "Medians of phases, stretched so that they add up to the median time of a version. "
        f"Training: time of sites by processes side by side.{_left_out(summary)}"
    )
    return page.figure("Where the time goes", svg, caption)


def _memory(summary: Record) -> str:
    ladders, rows = _drawn(summary), summary["rows"]
    in_gib = max(row["total_pss_mib"] for row in rows) > _MANY_MIB
    kinds, unit = kinds_of(rows), 1024 if in_gib else 1
    panels = [
        Stacks(
            method,
            _names(rows),
            {kind: [_pss(row, kind) / unit for row in rows] for kind in kinds},
        )
        for method, rows in ladders.items()
    ]
    left = itertools.cycle((3, 5))  # of kinds that are not known
    colours = {kind: SERIES[_KIND_COLOURS.get(kind, next(left))] for kind in kinds}
    totals = _longest(panels, lambda value: memory(unit * value))
    svg = stacked_bars(
        "memory",
        panels,
        colours,
        ylabel="GiB" if in_gib else "MiB",
        alt=f"Bars of kinds of processes; highest are {totals}.",
    )
    caption = f"PSS: pages that processes share count once.{_left_out(summary)}"
    return page.figure("Memory", svg, caption)


def _bytes(summary: Record) -> str:
    rows = summary["rows"]
    many = max(row["bytes_down"] + row["bytes_up"] for row in rows) > _MANY_BYTES
    unit, word = (1e9, "GB") if many else (1e6, "MB")
    panels = [
        Stacks(
            method,
            _names(rows),
            {way: [row[f"bytes_{way}"] / unit for row in rows] for way in ("down", "up")},
        )
        for method, rows in _drawn(summary).items()
    ]
    alt = f"Bars of bytes; most are {_longest(panels, lambda value: f'{digits(value)} {word}')}."
    colours = {"down": SERIES[1], "up": SERIES[4]}
    svg = stacked_bars("bytes", panels, colours, ylabel=f"{word} per version", alt=alt)
    caption = (
        "Down: networks, of which one that sites share travels once to each process. Up: answers."
        f"{_left_out(summary)}"
    )
    return page.figure("Bytes moved", svg, caption)


def _longest(panels: Sequence[Stacks], write: Callable[[float], str]) -> str:
    """Say of every bar its height and its two largest parts."""
    told = []
    for stacks in panels:
        for number, (name, total) in enumerate(zip(stacks.names, stacks.totals(), strict=True)):
            parts = {part: heights[number] for part, heights in stacks.parts.items()}
            largest = sorted(parts, key=lambda part: -parts[part])[:2]
            shares = ", ".join(
                f"{part} {100 * parts[part] / (total or 1):.0f} %" for part in largest
            )
            told.append(f"{shares} of {write(total)} ({stacks.title}, {name} sites)")
    return "; ".join(told)


def _drawn(summary: Record) -> dict[str, list[Record]]:
    ladders = by_method(summary)
    return {method: ladders[method] for method in foremost(list(ladders))}


def _left_out(summary: Record) -> str:
    count = len(by_method(summary))
    return f" {MAX_METHODS} of {count} methods; the tables have all." if count > MAX_METHODS else ""


def _names(rows: Sequence[Record]) -> tuple[str, ...]:
    return tuple(f"{row['sites']:,}" for row in rows)


def _pss(row: Record, kind: str) -> float:
    return row["memory"][kind]["pss_mib"] if kind in row["memory"] else 0.0
