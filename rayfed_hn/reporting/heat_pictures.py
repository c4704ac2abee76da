"""Attention as pictures for people: the slide with its heat, and the tiles at either end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from PIL import Image

from rayfed_hn.files import write_atomically
from rayfed_hn.prediction.heat import Heat, agreement
from rayfed_hn.reporting.heat_layer import COLOURS, Ground, overlay
from rayfed_hn.reporting.theme import INK, MUTED, RULE, drawing, printable

PANEL_PX, DPI = 1400, 200
BARS_UM = (50, 100, 200, 500, 1000, 2000, 5000, 10_000)  # lengths of the scale bar
BAR_SHARE = 0.25  # of the width, at most


def write_picture(path: Path, ground: Ground, heats: Sequence[Heat]) -> None:
    """Write a PNG: the slide if there are pixels, and the attention of every network beside it.

    Args:
        path: Where to.
        ground: What to draw on.
        heats: One network, or several to be compared.
    """
    pictures = [] if ground.blank else [("slide", ground.picture_HW3)]
    pictures += [(_title(heat), overlay(heat, ground)) for heat in heats]
    tall = ground.picture_HW3.shape[0] / ground.picture_HW3.shape[1]
    width = 5.0 if tall <= 1 else max(3.2, 5.0 / tall)
    with drawing():
        figure = Figure(figsize=(width * len(pictures) + 1.0, width * tall + 1.5))
        panels = figure.subplots(1, len(pictures), squeeze=False)[0]
        for axes, (title, picture_HW3) in zip(panels, pictures, strict=True):
            _panel(axes, title, picture_HW3)
        _scale_bar(panels[0], ground)
        scale = ScalarMappable(Normalize(0, 100), COLOURS)
        bar = figure.colorbar(scale, ax=list(panels), fraction=0.03, pad=0.02, alpha=ground.opacity)
        bar.set_label("attention: percentile of the slide's tiles\n(100: looked at most)")
        none = Patch(facecolor="white", edgecolor=RULE, label="no colour: no tile was taken")
        figure.legend(handles=[none], loc="outside lower left", frameon=False, fontsize=8)
        figure.suptitle(_headline(ground, heats), fontsize=10, color=INK)
        _save(path, figure)


def write_tiles(
    path: Path,
    heat: Heat,
    top: Sequence[tuple[int, NDArray[np.uint8]]],
    bottom: Sequence[tuple[int, NDArray[np.uint8]]],
) -> None:
    """Write a PNG with the tiles of the highest and of the lowest attention.

    Args:
        path: Where to.
        heat: Of the slide.
        top: Index and pixels (T, T, 3) of tiles, the highest first.
        bottom: The same, the lowest first.
    """
    columns = max(len(top), len(bottom))
    with drawing():
        figure = Figure(figsize=(max(4.0, 1.15 * columns + 0.6), 3.4))  # words need room
        rows = figure.subplots(2, columns, squeeze=False)
        for axes in rows.flat:
            axes.axis("off")
        for row, tiles in zip(rows, (top, bottom), strict=True):
            for axes, (index, tile_TT3) in zip(row, tiles, strict=False):
                _panel(axes, f"{heat.percentiles[index]:.3g}", tile_TT3, size=7)
        words = "percentile of attention above each: the highest, and the lowest below"
        name = f"{printable(heat.slide_id, 60)}, {printable(heat.network)}{_side(heat)}"
        figure.suptitle(f"{name}\n{words}", fontsize=8, color=INK)
        _save(path, figure)


def _title(heat: Heat) -> str:
    network = f"{printable(heat.run)}: {printable(heat.network)}"
    return f"{network}\nsays {printable(heat.said, 60)}"


def _headline(ground: Ground, heats: Sequence[Heat]) -> str:
    first = heats[0]
    words = f"{printable(first.slide_id, 60)} of {printable(first.site)}, {len(first):,} tiles"
    if len(heats) > 1:
        found = agreement(*heats[:2])
        words += "" if found is None else f"; rank correlation of the two {found:.2f}"
    return f"{words}\nno pixels of the slide: drawn on blank ground" if ground.blank else words


def _side(heat: Heat) -> str:
    return "" if heat.mpp is None else f"; tiles of {heat.tile_size0 * heat.mpp:.3g} µm"


def _panel(axes: Axes, title: str, picture_HW3: NDArray[np.uint8], size: float = 8.5) -> None:
    picture = Image.fromarray(picture_HW3)
    picture.thumbnail((PANEL_PX, PANEL_PX))
    axes.axis("on")
    axes.imshow(np.asarray(picture), interpolation="antialiased")
    axes.set_title(title, fontsize=size, color=MUTED)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


def _scale_bar(axes: Axes, ground: Ground) -> None:
    """Draw a bar of a round length at the lower left, where the scale is known."""
    if ground.mpp is None:
        return
    width_um = ground.mpp * ground.extent[0]
    fitting = [length for length in BARS_UM if length <= BAR_SHARE * width_um]
    if not fitting:
        return
    length = fitting[-1]
    name = f"{length} µm" if length < 1000 else f"{length / 1000:g} mm"
    share, place = length / width_um, axes.transAxes
    # On white, for the tissue beneath may be as dark as the ink.
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "transform": place}
    axes.add_patch(Rectangle((0.015, 0.015), share + 0.03, 0.1, **box))
    axes.add_patch(Rectangle((0.03, 0.03), share, 0.012, color=INK, transform=place))
    middle = 0.03 + share / 2
    axes.text(middle, 0.052, name, transform=place, fontsize=7, color=INK, ha="center")


def _save(path: Path, figure: Figure) -> None:
    write_atomically(
        path, lambda temporary: figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")
    )
