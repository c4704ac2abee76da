"""The grid of tiles at a physical scale. Pure."""

from __future__ import annotations

import numpy as np


def tile_size0(slide_mpp: float, tile_px: int, target_mpp: float) -> float:
    """Return the side of a tile in level-0 pixels; in general not a whole number."""
    return tile_px * target_mpp / slide_mpp


def grid(
    extent_px: tuple[int, int],
    slide_mpp: float,
    tile_px: int,
    stride_px: int,
    target_mpp: float,
) -> np.ndarray:
    """Return where the tiles begin that lie wholly inside the slide.

    Every coordinate is rounded from its own exact place, so errors do not add up over the slide.

    Args:
        extent_px: Width and height of level 0.
        slide_mpp: Micrometres per pixel of level 0.
        tile_px: Side of a tile in pixels at ``target_mpp``.
        stride_px: Step between tiles in pixels at ``target_mpp``.
        target_mpp: Micrometres per pixel of the tiles.

    Returns:
        int64 (N, 2): x and y of the top left corners in level-0 pixels, row by row.
    """
    side0 = tile_size0(slide_mpp, tile_px, target_mpp)
    stride0 = stride_px * target_mpp / slide_mpp
    xs, ys = (_starts(extent, side0, stride0) for extent in extent_px)
    y, x = np.meshgrid(ys, xs, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _starts(extent: int, side0: float, stride0: float) -> np.ndarray:
    fuzz = 1e-6  # pixels; so that a tile as large as the slide is not lost to the last bit
    count = max(0, int((extent - side0 + 0.5) / stride0) + 1)
    starts = np.rint(np.arange(count) * stride0).astype(np.int64)
    return starts[starts + side0 <= extent + fuzz]
