"""Figures of reports: values in, SVG text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from rayfed_hn.reporting.theme import (
    INK,
    MUTED,
    RULE,
    SERIES,
    Look,
    drawing,
    new_axes,
    printable,
    to_svg,
)

WIDTH = 4.3  # inches
HEIGHT = 2.75  # inches, at most where that can be read: three stand side by side on a screen
_MAX_LABELS = 6  # lines with a name; more lines are drawn as a crowd


@dataclass(frozen=True)
class Dot:
    """A value with its interval in one row of a dot plot; without bounds, a dot alone."""

    row: str
    value: float
    low: float | None = None
    high: float | None = None
    look: Look = field(default_factory=Look)
    series: str = ""


@dataclass(frozen=True)
class Line:
    """A line over versions, with a band where bounds are given; NaN leaves a gap."""

    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    colour: str = SERIES[1]
    dash: str = "-"


@dataclass(frozen=True)
class Roc:
    """The ROC curve of one panel."""

    title: str
    false_rate: np.ndarray
    true_rate: np.ndarray
    note: str = ""


def dot_plot(
    name: str, dots: Sequence[Dot], *, xlabel: str, alt: str, reference: float | None = None
) -> str:
    """Draw rows of dots with intervals; dots of several series share a row, one below another.

    Args:
        name: Unique in the page.
        dots: Rows appear from top to bottom in the order of first mention.
        xlabel: What the values are.
        alt: Text for those who do not see it.
        reference: A vertical line, drawn where it is in sight.
    """
    rows = list(dict.fromkeys(dot.row for dot in dots))
    series = list(dict.fromkeys(dot.series for dot in dots))
    with drawing():
        figure, axes = new_axes(WIDTH, _dots_height(len(rows), len(series)))
        for dot in dots:
            shift = 0.5 * (series.index(dot.series) - (len(series) - 1) / 2) / max(len(series), 2)
            _draw_dot(axes, dot, rows.index(dot.row) + shift)
        axes.set_yticks(range(len(rows)), [printable(row, 28) for row in rows], color=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(xlabel)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        low, high = axes.get_xlim()
        if reference is not None and low - 0.1 <= reference <= high + 0.1:
            axes.axvline(reference, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)
        if len(series) > 1:
            _key(figure, axes)
        return to_svg(figure, name, alt)


def line_chart(
    name: str,
    lines: Sequence[Line],
    *,
    ylabel: str,
    alt: str,
    xlabel: str = "version",
    log: bool = False,
) -> str:
    """Draw lines, over versions if nothing else is said, with their names at their ends.

    More than six lines become a grey crowd with its median; only the lowest and the highest end
    are named.
    """
    crowd = len(lines) > _MAX_LABELS
    with drawing():
        figure, axes = new_axes(WIDTH, 2.7)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        for line in lines:
            colour, width = (MUTED, 0.7) if crowd else (line.colour, 1.7)
            alpha = 0.35 if crowd else 1.0
            dash = "-" if crowd else line.dash
            axes.plot(line.x, line.y, dash, color=colour, linewidth=width, alpha=alpha)
            if line.low is not None and line.high is not None and not crowd:
                axes.fill_between(
                    line.x, line.low, line.high, color=line.colour, alpha=0.16, linewidth=0
                )
        named = _ends_of_crowd(lines) if crowd else list(lines)
        if crowd:
            median = _median(lines)
            axes.plot(median.x, median.y, color=median.colour, linewidth=2.2)
            named.append(median)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(visible=False, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        name_ends(axes, named)
        return to_svg(figure, name, alt)


def roc_panels(name: str, curves: Sequence[Roc], *, alt: str) -> str:
    """Draw one small square panel per curve, at most four in a row."""
    num_columns, num_rows, height = _grid_of(len(curves))
    with drawing():
        figure = Figure(figsize=(WIDTH, height))
        grid = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True, sharey=True)
        for panel, curve in zip(grid.flat, curves, strict=False):
            panel.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
            panel.plot(curve.false_rate, curve.true_rate, color=SERIES[1], clip_on=False)
            panel.set_title(printable(curve.title, 16), fontsize=8.5, loc="left", color=INK)
            panel.text(0.97, 0.05, curve.note, ha="right", va="bottom", fontsize=8, color=INK)
            panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[0, 1], yticks=[0, 1])
        for panel in list(grid.flat)[len(curves) :]:
            panel.set_visible(False)
        figure.supxlabel("false positive rate", fontsize=9, color=MUTED)
        figure.supylabel("true positive rate", fontsize=9, color=MUTED)
        return to_svg(figure, name, alt)


def bar_chart(name: str, bars: Mapping[str, int], *, xlabel: str, ylabel: str, alt: str) -> str:
    """Draw counts as upright bars with their numbers on top, in the order of ``bars``."""
    with drawing():
        figure, axes = new_axes(WIDTH, 2.4)
        drawn = axes.bar(range(len(bars)), list(bars.values()), color=SERIES[1], width=0.7)
        axes.bar_label(drawn, padding=2, color=INK, fontsize=8.5)
        axes.set_xticks(range(len(bars)), [printable(label) for label in bars])
        axes.set_xlim(-0.6, max(len(bars), 4) - 0.4)  # a bar alone is no wall
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        return to_svg(figure, name, alt)


def _dots_height(num_rows: int, num_series: int) -> float:
    """Return the height of a dot plot in inches: rows come closer where there are many."""
    step, least = (0.34, 0.22) if num_series < 3 else (0.42, 0.26)
    frame = 0.95  # axis, its name, and the key
    step = max(least, min(step, (HEIGHT - frame) / max(num_rows, 1)))
    return frame + step * max(num_rows, 3)


def _grid_of(num_panels: int) -> tuple[int, int, float]:
    """Return columns, rows and height in inches that make square panels the largest."""
    names = 0.45  # inches, of both axes

    def side(columns: int) -> float:
        return min((WIDTH - names) / columns, (HEIGHT - names) / -(-num_panels // columns))

    columns = max(range(1, min(num_panels, 4) + 1), key=side)
    rows = -(-num_panels // columns)
    return columns, rows, names + rows * max(side(columns), 0.6)


def _draw_dot(axes: Axes, dot: Dot, y: float) -> None:
    colour = dot.look.colour
    if dot.low is not None and dot.high is not None:
        axes.plot([dot.low, dot.high], [y, y], color=colour, solid_capstyle="butt")
    axes.plot(
        [dot.value],
        [y],
        linestyle="none",
        marker=dot.look.marker,
        markersize=6,
        color=colour,
        fillstyle=dot.look.fill,
        markerfacecoloralt="none",
        markeredgewidth=1.5,
        label=printable(dot.series).lstrip("_"),
    )


def _key(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(reversed(labels), reversed(handles), strict=True))
    order = [label for label in dict.fromkeys(labels) if label]
    figure.legend(
        [unique[label] for label in order],
        order,
        loc="outside upper center",
        ncols=min(len(order), 4),
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.2,
    )


def _median(lines: Sequence[Line]) -> Line:
    versions = np.unique(np.concatenate([line.x for line in lines]))
    columns: list[list[float]] = [[] for _ in versions]
    for line in lines:
        for at, value in zip(np.searchsorted(versions, line.x), line.y, strict=True):
            if not np.isnan(value):
                columns[at].append(float(value))
    middle = np.array([np.median(column) if column else np.nan for column in columns])
    return Line(f"median of {len(lines)}", versions, middle, colour=SERIES[0])


def _ends_of_crowd(lines: Sequence[Line]) -> list[Line]:
    ending = [line for line in lines if _end(line) is not None]
    ending.sort(key=lambda line: line.y[~np.isnan(line.y)][-1])
    extremes = [ending[0], ending[-1]] if len(ending) > 1 else ending
    return [replace(line, colour=MUTED) for line in extremes]


def _end(line: Line) -> tuple[float, float] | None:
    defined = np.flatnonzero(~np.isnan(line.y))
    return (float(line.x[defined[-1]]), float(line.y[defined[-1]])) if len(defined) else None


def name_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Write the names of lines right of the axes, moved apart where their ends are close."""
    ends = [(line, end) for line in lines if (end := _end(line)) is not None]
    ends.sort(key=lambda pair: pair[1][1])
    if not ends:
        axes.text(0.5, 0.5, "undefined throughout", transform=axes.transAxes, ha="center")
        return
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform(end)[1]) for _, end in ends]
    for (line, end), height in zip(ends, spread(heights, 0.085), strict=True):
        axes.plot(*end, marker="o", markersize=3.5, color=line.colour, clip_on=False)
        axes.annotate(
            printable(line.label, 18),
            xy=end,
            xytext=(1.04, height),
            textcoords="axes fraction",
            va="center",
            color=INK,
            fontsize=8.5,
            arrowprops={"arrowstyle": "-", "color": RULE, "linewidth": 0.8, "shrinkB": 3},
        )


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Return ascending positions moved so that neighbours are ``gap`` apart within 0 to 1.

    Positions that are too close form a block around their common mean (isotonic regression).
    """
    shifted = np.asarray(positions, float) - gap * np.arange(len(positions))
    blocks: list[list[float]] = []  # sum, size
    for value in shifted:
        blocks.append([float(value), 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, size = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + size]
    flat = np.concatenate([np.full(int(size), total / size) for total, size in blocks])
    apart = flat + gap * np.arange(len(positions))
    upper = 1 - gap * np.arange(len(positions))[::-1]
    lower = gap * np.arange(len(positions))
    return [float(v) for v in np.maximum(np.minimum(apart, upper), lower)]
