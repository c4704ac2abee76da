"""Drawings of outcomes: confusion matrices and survival curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from rayfed_hn.evaluation.survival import kaplan_meier
from rayfed_hn.reporting.figures import HEIGHT, WIDTH
from rayfed_hn.reporting.theme import (
    INK,
    MUTED,
    RULE,
    SERIES,
    drawing,
    new_axes,
    printable,
    to_svg,
)

_DARKEST = 0.55  # opacity of a full cell: its number stays readable on it in light and dark
_MAX_NUMBERED = 14  # classes; the cells of more are too small for numbers


@dataclass(frozen=True)
class Survivors:
    """A group of cases: how long each was observed, and whether that ended with the event."""

    label: str
    time_B: np.ndarray
    event_B: np.ndarray
    colour: str
    dash: str

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Times from 0 to the end of observation, and the share without event from each on."""
        time_V, share_V = kaplan_meier(self.time_B, self.event_B)
        after_V = np.concatenate([[1.0], share_V])
        return (
            np.concatenate([[0.0], time_V, [self.time_B.max()]]),
            np.concatenate([after_V, after_V[-1:]]),
        )

    def at_the_end(self) -> float:
        """The share without event when observation ends."""
        return float(self.curve()[1][-1])

    def at_risk(self, moment: float) -> int:
        """How many are still observed just before a moment."""
        return int((self.time_B >= moment).sum())


def confusion_matrix(
    name: str, classes: Sequence[str], counts_KK: np.ndarray, *, what: str, alt: str
) -> str:
    """Draw true classes as rows and predicted ones as columns, shaded by the share of the row.

    Args:
        name: Unique in the page.
        classes: Their names.
        counts_KK: Bags by true and by predicted class.
        what: A class or a grade, for the axes.
        alt: Text for those who do not see it.
    """
    num_classes = len(classes)
    share_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    with drawing():
        figure, axes = new_axes(WIDTH, HEIGHT)
        for row, column in np.ndindex(*counts_KK.shape):
            shade = _DARKEST * float(share_KK[row, column])
            corner = column - 0.5, row - 0.5
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=SERIES[1], alpha=shade, linewidth=0))
            if num_classes <= _MAX_NUMBERED:
                count = int(counts_KK[row, column])
                style = {"color": INK if count else MUTED, "fontsize": 10 if num_classes < 7 else 8}
                axes.text(column, row, str(count), ha="center", va="center", **style)
        _class_axes(axes, classes, counts_KK.sum(axis=1), what)
        return to_svg(figure, name, alt)


def _class_axes(axes: Axes, classes: Sequence[str], sizes_K: np.ndarray, what: str) -> None:
    names = [printable(name, 14) for name in classes]
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
    crowded = max(map(len, names)) * len(names) > 30
    turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(range(len(names)), names, color=INK, **turned)
    axes.set_yticks(
        range(len(names)),
        [f"{name} ({size})" for name, size in zip(names, sizes_K.tolist(), strict=True)],
        color=INK,
    )
    axes.set_xlabel(f"predicted {what}")
    axes.set_ylabel(f"true {what} (bags)")
    axes.grid(visible=False)
    for edge in np.arange(len(names) - 1) + 0.5:
        axes.axhline(edge, color=RULE, linewidth=0.6)
        axes.axvline(edge, color=RULE, linewidth=0.6)


def survival_curves(name: str, groups: Sequence[Survivors], *, alt: str) -> str:
    """Draw Kaplan-Meier curves with ticks where observation ended, and the cases at risk below.

    Args:
        name: Unique in the page.
        groups: At least one case in each.
        alt: Text for those who do not see it.
    """
    end = max(float(group.time_B.max()) for group in groups)
    with drawing():
        figure = Figure(figsize=(WIDTH, HEIGHT))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 0.1 * len(groups)])
        for group in groups:
            _draw_survivors(above, group)
        above.set(xlim=(0, end * 1.03), ylim=(0, 1.04), ylabel="share without event")
        above.grid(visible=False, axis="x")
        figure.legend(loc="outside upper center", ncols=len(groups), frameon=False)
        moments = [t for t in MaxNLocator(5).tick_values(0, end) if 0 <= t <= end]
        above.set_xticks(moments)
        above.tick_params(labelbottom=False)
        below.set_xticks(moments, [f"{moment:g}" for moment in moments])
        below.set_xlabel("time, in the manifest's unit")
        for row, group in enumerate(groups):
            for moment in moments:
                below.text(
                    moment, row, str(group.at_risk(moment)), ha="center", va="center", fontsize=8.5
                )
        below.set_yticks(range(len(groups)), [group.label for group in groups], color=INK)
        below.set_ylim(len(groups) - 0.4, -0.6)
        below.tick_params(axis="y", pad=14)  # the first number is centred on the axis
        below.grid(visible=False)
        below.spines["left"].set_visible(False)
        return to_svg(figure, name, alt)


def _draw_survivors(axes: Axes, group: Survivors) -> None:
    x, y = group.curve()
    axes.step(x, y, group.dash, where="post", color=group.colour, label=group.label)
    censored = np.sort(group.time_B[~group.event_B])
    height = y[np.searchsorted(x[:-1], censored, side="right") - 1]
    axes.plot(
        censored,
        height,
        linestyle="none",
        marker="|",
        markersize=6,
        markeredgewidth=1,
        color=group.colour,
    )
