"""Attention as colours over a picture of the slide.

Percentiles, not raw attention: a softmax over thousands of tiles gives most of them nothing that
an eye could see. Shapes: N tiles, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np
from numpy.typing import NDArray

from rayfed_hn.prediction.heat import Heat

# Violet to yellow in even steps of lightness: the order is seen by the colour-blind, and in print
# without colours. Beneath it the slide is grey, for haematoxylin is as blue as the lower end.
COLOURS = matplotlib.colormaps["viridis"]
OPACITY = 0.55
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
# Lower bounds of percentile, and what tiles from there on are called.
GRADES = ((99.0, "top 1 %"), (90.0, "top 10 %"), (50.0, "upper half"), (0.0, "lower half"))


@dataclass(frozen=True, eq=False)
class Ground:
    """What attention is drawn on.

    Attributes:
        picture_HW3: The whole slide, uint8 RGB; white where there are no pixels.
        extent: Width and height of level 0 in pixels, which the picture shows.
        mpp: Micrometres per pixel of level 0, if known.
        blank: Whether it is not the slide.
    """

    picture_HW3: NDArray[np.uint8]
    extent: tuple[int, int]
    mpp: float | None
    blank: bool

    @property
    def picture_mpp(self) -> tuple[float, float] | None:
        """Micrometres per pixel of the picture, along x and y: its sides are whole pixels."""
        height, width, _ = self.picture_HW3.shape
        if self.mpp is None:
            return None
        return self.mpp * self.extent[0] / width, self.mpp * self.extent[1] / height

    @property
    def opacity(self) -> float:
        """Of the colours."""
        return 1.0 if self.blank else OPACITY


def blank_ground(heat: Heat, side_px: int) -> Ground:
    """White, as large as the tiles need.

    Args:
        heat: What will be drawn on it.
        side_px: Its longer side, in pixels.
    """
    width, height = heat.extent
    scale = min(1.0, side_px / max(width, height))
    shape = max(1, round(height * scale)), max(1, round(width * scale)), 3
    return Ground(np.full(shape, 255, np.uint8), (width, height), heat.mpp, True)


def grade_of(percentile: float) -> str:
    """What a tile of this percentile is called."""
    # A percentile counts the tile itself: of a hundred tiles the highest alone is above 99.
    return next((name for bound, name in GRADES if percentile > bound), GRADES[-1][1])


def plane(heat: Heat, extent: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Percentile of every pixel, (H, W); the mean where tiles overlap, NaN where there is none.

    Args:
        heat: Of the slide.
        extent: Width and height of level 0 that the picture shows.
        shape: (H, W).
    """
    scale = np.array([shape[1] / extent[0], shape[0] / extent[1]])
    limit = np.array([shape[1], shape[0]])
    begin_N2 = np.clip(np.rint(heat.coords_N2 * scale).astype(int), 0, limit - 1)
    end_N2 = np.rint((heat.coords_N2 + heat.tile_size0) * scale).astype(int)
    end_N2 = np.clip(end_N2, begin_N2 + 1, limit)
    (left, top), (right, bottom) = begin_N2.T, end_N2.T
    # Corners of rectangles, summed twice, fill them all at one go.
    sums = np.zeros((2, shape[0] + 1, shape[1] + 1))
    corners = ((top, left, 1.0), (top, right, -1.0), (bottom, left, -1.0), (bottom, right, 1.0))
    for value_N, filled in zip((np.ones(len(heat)), heat.percentiles), sums, strict=True):
        for row, column, sign in corners:
            np.add.at(filled, (row, column), sign * value_N)
    count, total = sums.cumsum(axis=1).cumsum(axis=2)[:, :-1, :-1]
    covered = count > 0.5
    return np.where(covered, total / np.where(covered, count, 1.0), np.nan)


def overlay(heat: Heat, ground: Ground) -> NDArray[np.uint8]:
    """The picture, in grey beneath attention where there are tiles, uint8 RGB (H, W, 3)."""
    picture_HW3 = ground.picture_HW3
    percentile_HW = plane(heat, ground.extent, (picture_HW3.shape[0], picture_HW3.shape[1]))
    covered = np.isfinite(percentile_HW)
    result_HW3 = picture_HW3.copy()
    colours = 255 * COLOURS(percentile_HW[covered] / 100)[:, :3]
    grey = picture_HW3[covered] @ np.array(LUMINANCE)
    mixed = ground.opacity * colours + (1 - ground.opacity) * grey[:, None]
    result_HW3[covered] = np.rint(mixed).astype(np.uint8)
    return result_HW3
