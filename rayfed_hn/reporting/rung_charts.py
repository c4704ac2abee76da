"""Drawings over numbers of sites: lines on two logarithmic axes, and stacks of bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from rayfed_hn.reporting.figures import WIDTH, Line, name_ends
from rayfed_hn.reporting.scale_rows import digits
from rayfed_hn.reporting.theme import INK, MUTED, drawing, new_axes, printable, to_svg

_STEPS = (1, 2, 5)  # times powers of ten: ticks of a logarithmic axis
_MAX_TICKS = 7
_MAX_LEVEL = 5  # names of numbers of sites, side by side; more are turned
_MAX_COLUMNS = 2  # of panels
_CROWDED = 16  # characters below a panel that is half as wide as the picture


@dataclass(frozen=True)
class Stacks:
    """One panel of stacked bars.

    Attributes:
        title: Above it.
        names: Below the bars.
        parts: From what a part is to its heights in every bar; the first are lowest.
    """

    title: str
    names: tuple[str, ...]
    parts: Mapping[str, Sequence[float]]

    def totals(self) -> list[float]:
        """The heights of the bars."""
        return [float(sum(heights)) for heights in zip(*self.parts.values(), strict=True)]


def rung_lines(
    name: str, lines: Sequence[Line], *, ylabel: str, alt: str, logarithmic: bool = True
) -> str:
    """Draw lines over numbers of sites, with their names at their ends.

    Args:
        name: Unique in the page.
        lines: Of positive values, or of any where the axis is not logarithmic.
        ylabel: What the values are.
        alt: Text for those who do not see it.
        logarithmic: Whether the axis of the values is.
    """
    sites = np.unique(np.concatenate([line.x for line in lines]))
    values = np.concatenate([line.y for line in lines])
    with drawing():
        figure, axes = new_axes(WIDTH, 2.7)
        for line in lines:
            axes.plot(line.x, line.y, line.dash, color=line.colour, marker="o", markersize=3.5)
        axes.set(xscale="log", xlabel="sites", ylabel=ylabel)
        axes.set_xlim(sites[0] / 1.3, sites[-1] * 1.3)
        axes.xaxis.set_major_locator(FixedLocator(sites.tolist()))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if logarithmic:
            ticks = log_ticks(float(values.min()), float(values.max()))
            axes.set_yscale("log")
            axes.set_ylim(ticks[0], ticks[-1])
            axes.yaxis.set_major_locator(FixedLocator(ticks))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.15g}")
        else:
            room = max(0.05 * float(values.max() - values.min()), 0.01)
            axes.set_ylim(values.min() - room, values.max() + room)
        axes.tick_params(axis="x", labelrotation=40 if len(sites) > _MAX_LEVEL else 0)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
        axes.grid(visible=False, axis="x")
        name_ends(axes, lines)
        return to_svg(figure, name, alt)


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers that enclose positive values, few enough to be written at an axis."""
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    for steps in (_STEPS, (1, 3), (1,)):
        # "5e-2" is read as the float nearest to it; a product with a power of ten is not.
        every = [float(f"{step}e{exponent}") for exponent in exponents for step in steps]
        below = max(i for i, tick in enumerate(every) if tick <= low)
        above = min(i for i, tick in enumerate(every) if tick >= high and i > below)
        if above - below < _MAX_TICKS:
            break
    return every[below : above + 1]


def stacked_bars(
    name: str, panels: Sequence[Stacks], colours: Mapping[str, str], *, ylabel: str, alt: str
) -> str:
    """Draw panels of stacked bars on one scale, with the heights of whole bars above them.

    Args:
        name: Unique in the page.
        panels: All of the same parts.
        colours: Of every part.
        ylabel: What heights are.
        alt: Text for those who do not see it.
    """
    num_columns = min(len(panels), _MAX_COLUMNS)
    num_rows = -(-len(panels) // num_columns)
    with drawing():
        figure = Figure(figsize=(WIDTH, 0.75 + 1.95 * num_rows))
        grid = figure.subplots(num_rows, num_columns, squeeze=False, sharey=True)
        for axes, stacks in zip(grid.flat, panels, strict=False):
            _draw_stacks(axes, stacks, colours, crowded=_CROWDED * _MAX_COLUMNS // num_columns)
        highest = max(total for stacks in panels for total in stacks.totals())
        for axes in grid.flat:
            axes.set_ylim(0, 1.12 * highest or 1)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        figure.supxlabel("sites", fontsize=9, color=MUTED)
        figure.supylabel(ylabel, fontsize=9, color=MUTED)
        _key(figure, {part: colours[part] for part in panels[0].parts})
        return to_svg(figure, name, alt)


def _draw_stacks(axes: Axes, stacks: Stacks, colours: Mapping[str, str], *, crowded: int) -> None:
    places, bottom = range(len(stacks.names)), np.zeros(len(stacks.names))
    for part, heights in stacks.parts.items():
        axes.bar(places, heights, bottom=bottom, color=colours[part], width=0.7)
        bottom = bottom + np.asarray(heights, float)
    for place, total in zip(places, stacks.totals(), strict=True):
        axes.annotate(
            digits(total),
            (place, total),
            (0, 2),
            textcoords="offset points",
            ha="center",
            color=INK,
            fontsize=8,
        )
    turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    is_crowded = sum(map(len, stacks.names)) > crowded
    axes.set_xticks(places, stacks.names, fontsize=8, **(turned if is_crowded else {}))
    axes.set_xlim(-0.6, max(len(stacks.names), 3) - 0.4)  # a bar alone is no wall
    axes.set_title(printable(stacks.title, 24), fontsize=8.5, loc="left", color=INK)
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.15g}")


def _key(figure: Figure, colours: Mapping[str, str]) -> None:
    figure.legend(
        [Patch(color=colour) for colour in colours.values()],
        [printable(part) for part in colours],
        loc="outside upper center",
        ncols=min(len(colours), 4),
        frameon=False,
        handlelength=0.9,
        handletextpad=0.4,
        columnspacing=1.2,
    )
