"""Pictures of distances between sites: a map and a shaded square."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator

from rayfed_hn.reporting.figures import WIDTH
from rayfed_hn.reporting.theme import INK, MUTED, SERIES, drawing, new_axes, printable, to_svg

_MAX_NAMES = 30  # on a map
_HIDDEN = 0.05  # share of a name that may cover something; else it is left out
_SMALLEST, _LARGEST = 18.0, 170.0  # areas of dots in square points
_NUMBERED = 8  # squares of at most so many sites hold their numbers
_SHADES = 24
_DARKEST = 0.6  # opacity; text on it stays readable in both themes
# Places of a name around its dot: offset in points, horizontal and vertical alignment.
_PLACES = (
    (1, 0, "left", "center"),
    (-1, 0, "right", "center"),
    (0, 1, "center", "bottom"),
    (0, -1, "center", "top"),
    (0.7, 0.7, "left", "bottom"),
    (0.7, -0.7, "left", "top"),
    (-0.7, 0.7, "right", "bottom"),
    (-0.7, -0.7, "right", "top"),
)


def point_map(
    name: str, points_M2: np.ndarray, names: Sequence[str], weights_M: np.ndarray, *, alt: str
) -> str:
    """Draw sites as named dots of a plane with one scale in both directions.

    Args:
        name: Unique in the page.
        points_M2: Positions.
        names: Of the sites.
        weights_M: What the areas of dots stand for; at least 0.
        alt: Text for those who do not see it.
    """
    areas_M = _SMALLEST + (_LARGEST - _SMALLEST) * weights_M / max(float(weights_M.max()), 1.0)
    areas_M *= min(1.0, _MAX_NAMES / len(names))
    with drawing():
        figure, axes = new_axes(WIDTH, 3.6)
        axes.scatter(*points_M2.T, s=areas_M, color=SERIES[1], alpha=0.7, linewidth=0)
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.16)
        axes.set_xlabel("first direction")
        axes.set_ylabel("second direction")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %".replace("-", "−"))
        _name_points(figure, axes, points_M2, names, np.sqrt(areas_M / np.pi))
        return to_svg(figure, name, alt)


def _name_points(
    figure: Figure, axes: Axes, points_M2: np.ndarray, names: Sequence[str], radii_M: np.ndarray
) -> None:
    """Write names where they cover neither each other nor dots; outer ones choose first."""
    outer_first = np.argsort(-np.linalg.norm(points_M2, axis=1), kind="stable")
    left = _MAX_NAMES
    figure.draw_without_rendering()  # fixes the layout that positions are measured in
    centres_M2 = axes.transData.transform(points_M2)
    reach_M1 = radii_M[:, None] * figure.dpi / 72
    taken_N4 = np.hstack([centres_M2 - reach_M1, centres_M2 + reach_M1])
    room_4 = np.array(axes.get_window_extent().extents)
    for number in map(int, outer_first):
        gap = float(radii_M[number]) + 2.5
        tried = [_name(axes, points_M2[number], names[number], gap, place) for place in _PLACES]
        boxes = [np.array(text.get_window_extent().extents) for text in tried]
        hidden = [_common(box_4, taken_N4) + 1 - _common(box_4, room_4[None]) for box_4 in boxes]
        best = hidden.index(min(hidden))
        if left > 0 and hidden[best] <= _HIDDEN:
            tried.pop(best)
            taken_N4 = np.vstack([taken_N4, boxes[best]])
            left -= 1
        for text in tried:
            text.remove()


def _name(
    axes: Axes, point_2: np.ndarray, name: str, gap: float, place: tuple[float, float, str, str]
) -> Annotation:
    x, y, horizontal, vertical = place
    return axes.annotate(
        printable(name, 18),
        xy=(float(point_2[0]), float(point_2[1])),
        xytext=(gap * x, gap * y),
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        color=INK,
        fontsize=8.5,
        in_layout=False,  # else the layout in which places were found would change
    )


def _common(box_4: np.ndarray, others_N4: np.ndarray) -> float:
    """Share of a box that it has in common with others; boxes are x0, y0, x1, y1."""
    low_N2, high_N2 = (
        np.maximum(box_4[:2], others_N4[:, :2]),
        np.minimum(box_4[2:], others_N4[:, 2:]),
    )
    areas_N = (high_N2 - low_N2).clip(min=0).prod(axis=1)
    return float(areas_N.sum() / (box_4[2:] - box_4[:2]).prod())


def distance_square(
    name: str, distances_MM: np.ndarray, names: Sequence[str], *, percent: bool, alt: str
) -> str:
    """Draw distances as a square of shades: the darker, the closer.

    Shades span the distances that occur, but at least a fifth of the largest: what is nearly the
    same looks nearly the same.

    Args:
        name: Unique in the page.
        distances_MM: Symmetric.
        names: Of rows and columns.
        percent: Whether numbers are shares, to be written as percentages.
        alt: Text for those who do not see it.
    """
    count = len(names)
    apart = distances_MM[~np.eye(count, dtype=bool)]
    high = float(apart.max())
    span = max(high - float(apart.min()), 0.2 * high) or 1.0
    with drawing():
        figure, axes = new_axes(WIDTH, WIDTH * 0.92)
        _shade(axes, ((high - distances_MM) / span).clip(0, 1))
        if count <= _NUMBERED:
            _write_numbers(axes, distances_MM * (100 if percent else 1))
        size = 8.5 if count <= 12 else 6.5
        labels = [printable(label, 18) for label in names]
        axes.set_xticks(range(count), labels, rotation=90, fontsize=size, color=INK)
        axes.set_yticks(range(count), labels, fontsize=size, color=INK)
        axes.plot([-0.5, count - 0.5], [-0.5, count - 0.5], color=MUTED, linewidth=0.6)
        axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
        axes.grid(visible=False)
        return to_svg(figure, name, alt)


def _shade(axes: Axes, closeness_MM: np.ndarray) -> None:
    """Fill the cells off the diagonal; those of one shade are one path, as pages must stay small.

    Args:
        axes: Cells are squares of side 1 around whole numbers.
        closeness_MM: 0 to 1; 0 is left blank.
    """
    shade_MM = np.rint(closeness_MM * _SHADES).astype(int)
    np.fill_diagonal(shade_MM, 0)
    square = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]])
    for shade in range(1, _SHADES + 1):
        cells = np.argwhere(shade_MM == shade)
        if not len(cells):
            continue
        path = Path.make_compound_path(*(Path(square + cell[::-1], closed=True) for cell in cells))
        opacity = _DARKEST * shade / _SHADES
        axes.add_patch(PathPatch(path, color=SERIES[1], alpha=opacity, linewidth=0))


def _write_numbers(axes: Axes, values_MM: np.ndarray) -> None:
    """Three digits of the largest value, and as many decimals of the others."""
    high = float(values_MM.max())
    decimals = max(0, 2 - math.floor(math.log10(high))) if high > 0 else 0
    for row, column in np.argwhere(~np.eye(len(values_MM), dtype=bool)):
        text = f"{values_MM[row, column]:.{decimals}f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=INK)
