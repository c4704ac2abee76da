"""The pictures of a search: every value is a trial's, and stands in the table too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from rayfed_hn.evaluation.markdown import number
from rayfed_hn.evaluation.subject import Record
from rayfed_hn.reporting import page
from rayfed_hn.reporting.figures import WIDTH, Dot, Line, dot_plot, line_chart
from rayfed_hn.reporting.rung_charts import log_ticks
from rayfed_hn.reporting.theme import INK, MUTED, SERIES, drawing, new_axes, printable, to_svg
from rayfed_hn.reporting.tune_words import Summary, setting

_MOST_CELLS = 12  # of a grid, a side: more numbers cannot be read
_DARKEST = 0.55  # of a cell's colour: its number must stand out in light and in dark
_MOST_KEYS = 8
_LESS_IS_BETTER = ("epsilon",)
_SPREAD = 0.12  # of dots above one value that has no order


def finished(summary: Summary) -> list[Record]:
    """Return trials that made all versions."""
    return [
        r
        for r in summary["trials"]
        if r["status"] == "finished" and r["validation_metric"] is not None
    ]


def swept(summary: Summary) -> tuple[str, str] | None:
    """Return the two keys of a grid that is drawn; of more, those that mattered most."""
    keys = [key for key, space in summary["space"].items() if space.startswith("grid(")]
    shares = {row["key"]: row["share"] for row in summary["importance"]}
    keys.sort(key=lambda key: -shares.get(key, 0.0))
    drawn = [k for k in keys if 1 < len(_levels(finished(summary), k)) <= _MOST_CELLS]
    return (drawn[0], drawn[1]) if len(drawn) > 1 else None


def heatmap(summary: Summary) -> str:
    """Return the validation metric of every pair of values; nothing without two grids."""
    keys, trials = swept(summary), finished(summary)
    if keys is None:
        return ""
    across, down = keys
    columns, rows = _levels(trials, across), _levels(trials, down)
    means = np.full((len(rows), len(columns)), np.nan)
    for i, low in enumerate(rows):
        for j, high in enumerate(columns):
            cell = [
                r["validation_metric"]
                for r in trials
                if (r["settings"][down], r["settings"][across]) == (low, high)
            ]
            means[i, j] = np.mean(cell) if cell else np.nan
    with drawing():
        figure, axes = new_axes(WIDTH, max(2.4, 1.1 + 0.42 * len(rows)))
        _draw_cells(axes, means)
        axes.set_xticks(range(len(columns)), [printable(setting(c), 10) for c in columns])
        axes.set_yticks(range(len(rows)), [printable(setting(r), 10) for r in rows])
        axes.set(xlabel=across, ylabel=down)
        told = "; ".join(
            f"{down} {setting(low)}, {across} {setting(high)}: {_cell(means[i, j])}"
            for i, low in enumerate(rows)
            for j, high in enumerate(columns)
        )
        svg = to_svg(figure, "grid", f"Validation {summary['metric']}. {told}.")
    others = len(summary["space"]) > len(keys)
    caption = f"Validation {summary['metric']} of every pair of values"
    caption += ", mean over what else was tried." if others else "."
    return page.figure("The grid", svg, caption)


def _draw_cells(axes: Axes, means: np.ndarray) -> None:
    """Draw cells in one hue, the fuller the higher, with their numbers."""
    low, high = (float(f(means)) for f in (np.nanmin, np.nanmax))
    for (i, j), value in np.ndenumerate(means):
        if not np.isnan(value):
            share = (value - low) / (high - low) if high > low else 0.0
            filled = {"facecolor": SERIES[1], "alpha": _DARKEST * share, "linewidth": 0}
            axes.add_patch(Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, **filled))
        axes.text(j, i, _cell(value), ha="center", va="center", color=INK, fontsize=8.5)
    axes.set_xlim(-0.5, means.shape[1] - 0.5)
    axes.set_ylim(means.shape[0] - 0.5, -0.5)
    axes.grid(visible=False)


def _cell(value: float) -> str:
    return "–" if math.isnan(value) else number(float(value))


def _levels(trials: Sequence[Record], key: str) -> list[Any]:
    """Return the values of a key in their order; what has none, by its name."""
    found = list(dict.fromkeys(r["settings"][key] for r in trials))
    if all(_is_number(value) for value in found):
        return sorted(found)
    return sorted(found, key=lambda value: (not _is_number(value), str(value)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def by_key(summary: Summary) -> list[str]:
    """Return the metric of every finished trial over every key, most important keys first."""
    shares = {row["key"]: row["share"] for row in summary["importance"]}
    keys = sorted(summary["space"], key=lambda key: (-shares.get(key, 0.0), key))
    return [_scatter(summary, key, n) for n, key in enumerate(keys[:_MOST_KEYS])]


def _scatter(summary: Summary, key: str, position: int) -> str:
    trials = finished(summary)
    levels = _levels(trials, key)
    ordered = all(_is_number(value) for value in levels)
    log = summary["space"][key].startswith("loguniform(")
    with drawing():
        figure, axes = new_axes(WIDTH, 2.3)
        for record in trials:
            value = record["settings"][key]
            x = value if ordered else levels.index(value) + _aside(record["trial"])
            _dot(axes, x, record["validation_metric"], record["trial"] == summary["best"])
        if log:
            _make_logarithmic(axes, [r["settings"][key] for r in trials])
        if not ordered:
            axes.set_xticks(range(len(levels)), [printable(setting(v), 14) for v in levels])
            axes.set_xlim(-0.5, len(levels) - 0.5)
        axes.set(xlabel=key, ylabel=f"validation {summary['metric']}")
        told = "; ".join(
            f"{setting(r['settings'][key])}: {number(r['validation_metric'])}" for r in trials
        )
        svg = to_svg(figure, f"key-{position}", f"{key}. {told}.")
    return page.figure(key, svg, "A dot a trial that made all versions; the best is a diamond.")


def _make_logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """Let the horizontal axis be logarithmic, with few numbers that can be read."""
    ticks = log_ticks(min(values), max(values))
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _aside(trial: int) -> float:
    """Return where a dot stands beside its value, so that equal ones are seen."""
    return _SPREAD * ((trial * 0.618) % 1 - 0.5)


def _dot(axes: Axes, x: float, y: float, chosen: bool) -> None:
    colour, marker = (SERIES[0], "D") if chosen else (SERIES[1], "o")
    axes.plot([x], [y], linestyle="none", marker=marker, markersize=5, color=colour, zorder=3)


def shares(summary: Summary) -> str:
    """Return how much of the variance every key explains; nothing where that was not judged."""
    rows = summary["importance"]
    if not rows:
        return ""
    svg = dot_plot(
        "importance",
        [Dot(row["key"], 100 * row["share"]) for row in rows],
        xlabel="% of the variance",
        alt="; ".join(f"{row['key']} {100 * row['share']:.0f} per cent" for row in rows) + ".",
    )
    return page.figure(
        "What mattered",
        svg,
        "Share of the variance between trials that each key explains alone, at version "
        f"{rows[0]['version']}, adjusted for the number of its values.",
    )


def curves(summary: Summary, lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the validation metric of every trial over versions."""
    drawn = [_line(record) for record in lines if len(record["curve"]) > 1]
    if not drawn:
        return ""
    best = next((r for r in lines if r["trial"] == summary["best"]), None)
    told = f"Lines of {len(drawn)} trials"
    if best is not None:
        told += f"; the best, trial {best['trial']}, ends at {number(best['curve'][-1])}"
    svg = line_chart("trials", drawn, ylabel=f"validation {summary['metric']}", alt=f"{told}.")
    stopped = sum(r["status"] == "stopped" for r in lines)
    about = f" {stopped} were stopped early." if stopped else ""
    return page.figure("Trials over versions", svg, f"Mean over divisions of the cases.{about}")


def _line(record: Mapping[str, Any]) -> Line:
    values = np.array([np.nan if v is None else v for v in record["curve"]], float)
    colour = SERIES[record["trial"] % len(SERIES)]
    return Line(f"trial {record['trial']}", np.arange(len(values)), values, colour=colour)


def front(summary: Summary) -> str:
    """Return the metric against the second objective; nothing if there is none."""
    if len(summary["objectives"]) < 2:
        return ""
    name = summary["objectives"][1]
    trials = [r for r in finished(summary) if r[name] is not None]
    chosen = [next(r for r in trials if r["trial"] == n) for n in summary["front"]]
    if not chosen:
        return ""
    with drawing():
        figure, axes = new_axes(WIDTH, 2.7)
        for record in trials:
            if record["trial"] not in summary["front"]:
                axes.plot(record[name], record["validation_metric"], "o", color=MUTED, markersize=4)
        xs, ys = ([r[key] for r in chosen] for key in (name, "validation_metric"))
        # Best amounts come first: from each on, its metric is had until the next one.
        axes.step(xs, ys, where="post", color=SERIES[0])
        axes.plot(xs, ys, "D", color=SERIES[0], markersize=5)
        if min(r[name] for r in trials) > 0:
            _make_logarithmic(axes, [r[name] for r in trials])
        axes.set(xlabel=name, ylabel=f"validation {summary['metric']}")
        told = "; ".join(
            f"{name} {setting(r[name])}: {number(r['validation_metric'])}" for r in chosen
        )
        svg = to_svg(figure, "front", f"The front. {told}.")
    better = "less" if name in _LESS_IS_BETTER else "more"
    return page.figure(
        f"What {name} costs",
        svg,
        f"Diamonds: settings that no other beats in both ({better} {name} is better); grey: the "
        "others.",
    )
