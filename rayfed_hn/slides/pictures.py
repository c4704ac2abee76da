"""A slide as a picture: what was taken for tissue, and which tiles were cut. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage.measure import find_contours

SIDE_PX = (900, 1600)  # limits of the longer side; what is smaller is enlarged
TISSUE_COLOUR = (0, 158, 96)  # green is what neither stain is, and reads without colour as well
TILE_COLOUR = (12, 20, 40)
TISSUE_WIDTH = 1 / 280  # of the longer side
TILE_OPACITY = (0.25, 0.75)  # of small tiles, whose lines lie close, and of large ones
SMALL_TILE_PX, LARGE_TILE_PX = 6.0, 40.0
FINE = 2  # lines are drawn so many times larger and reduced, which smooths them


def draw_slide(
    thumbnail_HW3: NDArray[np.uint8],
    mask_HW: NDArray[np.bool_],
    coords_N2: NDArray[np.int64],
    tile_size0: float,
    extent_px: tuple[int, int],
) -> Image.Image:
    """Draw the outlines of the tissue and of the tiles onto a slide.

    Args:
        thumbnail_HW3: uint8 RGB picture of the whole slide.
        mask_HW: bool, True on tissue; covers the slide too, at any size.
        coords_N2: Top left corners (x, y) of the tiles in level-0 pixels; may be none.
        tile_size0: Side of a tile in level-0 pixels.
        extent_px: Width and height of level 0.

    Returns:
        RGB picture in the slide's proportions, its longer side within ``SIDE_PX``.
    """
    size = _size((thumbnail_HW3.shape[1], thumbnail_HW3.shape[0]))
    picture = Image.fromarray(thumbnail_HW3).resize(size, Image.Resampling.LANCZOS)
    per_px0 = np.array(size) / extent_px
    grid = _tile_lines(size, coords_N2 * per_px0, tile_size0 * per_px0)
    picture.paste(TILE_COLOUR, mask=grid)
    picture.paste(TISSUE_COLOUR, mask=_tissue_lines(size, mask_HW))
    return picture


def _size(size: tuple[int, int]) -> tuple[int, int]:
    longer = int(np.clip(max(size), *SIDE_PX))
    return (
        max(1, round(size[0] * longer / max(size))),
        max(1, round(size[1] * longer / max(size))),
    )


def _tile_lines(
    size: tuple[int, int], corners_N2: NDArray[np.float64], side: NDArray[np.float64]
) -> Image.Image:
    """Return how much of every pixel the outlines of the tiles cover; neighbours share a line."""
    canvas, pen = _canvas(size)
    low_N2 = np.rint(corners_N2 * FINE).astype(int)
    high_N2 = np.minimum(np.rint((corners_N2 + side) * FINE).astype(int), np.array(canvas.size) - 1)
    reach = (side.mean() - SMALL_TILE_PX) / (LARGE_TILE_PX - SMALL_TILE_PX)
    opacity = round(255 * float(np.interp(reach, (0, 1), TILE_OPACITY)))
    for (left, top), (right, bottom) in zip(low_N2.tolist(), high_N2.tolist(), strict=True):
        pen.rectangle((left, top, right, bottom), outline=opacity, width=FINE)
    return canvas.resize(size, Image.Resampling.BOX)


def _tissue_lines(size: tuple[int, int], mask_HW: NDArray[np.bool_]) -> Image.Image:
    canvas, pen = _canvas(size)
    share = Image.fromarray(mask_HW.astype(np.uint8) * np.uint8(255))
    share.thumbnail(size, Image.Resampling.BOX)  # finer than the picture, it would only be slower
    shares_HW = np.pad(np.asarray(share, np.float32) / 255, 1)  # so that outlines close at edges
    width = max(FINE, round(max(canvas.size) * TISSUE_WIDTH))
    scale = np.array(canvas.size) / share.size
    inset = width / 2  # a line on the very edge would be cut in half
    for line in find_contours(shares_HW, 0.5):
        points = (line[:, ::-1] - 0.5) * scale
        points = np.clip(points, inset, np.array(canvas.size) - 1 - inset)
        pen.line([(x, y) for x, y in points.tolist()], fill=255, width=width, joint="curve")
    return canvas.resize(size, Image.Resampling.BOX)


def _canvas(size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("L", (size[0] * FINE, size[1] * FINE))
    return canvas, ImageDraw.Draw(canvas)
