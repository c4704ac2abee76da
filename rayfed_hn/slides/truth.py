"""How much of every tile is tumour, by a slide's truth mask.

Shapes: N tiles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def tumour_shares(
    truth: NDArray[np.bool_],
    coords_N2: NDArray[np.int64],
    tile_size0: float,
    mpp: float,
    truth_mpp: float,
) -> NDArray[np.float64]:
    """Share of every tile's area that a mask marks, float64 (N,), 0 to 1.

    Exact for tiles that begin or end within a cell of the mask: a cell counts by the part of it
    that the tile covers. What lies beyond the mask is not marked.

    Args:
        truth: The mask (H, W), of the slide from its top left corner.
        coords_N2: Top left corners (x, y) of the tiles in level-0 pixels.
        tile_size0: Side of a tile in level-0 pixels.
        mpp: Micrometres per pixel of level 0.
        truth_mpp: Micrometres per cell of the mask.

    Raises:
        ValueError: A side or a scale is not above 0.
    """
    if min(tile_size0, mpp, truth_mpp) <= 0:
        raise ValueError(f"no tile: {tile_size0} px at {mpp} um/px, mask at {truth_mpp} um")
    height, width = truth.shape
    # The integral of the mask is linear within a cell in either direction, so that bilinear
    # interpolation between its corners is exact.
    integral = np.zeros((height + 1, width + 1))
    integral[1:, 1:] = truth.astype(np.float64).cumsum(axis=0).cumsum(axis=1)
    begin_N2 = coords_N2 * (mpp / truth_mpp)
    side = tile_size0 * mpp / truth_mpp
    (left, top), (right, bottom) = begin_N2.T, (begin_N2 + side).T
    corners = ((bottom, right, 1), (bottom, left, -1), (top, right, -1), (top, left, 1))
    area_N = sum(sign * _interpolate(integral, y, x) for y, x, sign in corners)
    return np.clip(area_N / side**2, 0.0, 1.0)


def _interpolate(
    plane: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bilinear values of a plane at points, which are held inside it."""
    y, x = (np.clip(v, 0, n - 1) for v, n in ((y, plane.shape[0]), (x, plane.shape[1])))
    row, column = (
        np.minimum(v.astype(np.int64), n - 2) for v, n in ((y, plane.shape[0]), (x, plane.shape[1]))
    )
    down, right = y - row, x - column
    upper = plane[row, column] * (1 - right) + plane[row, column + 1] * right
    lower = plane[row + 1, column] * (1 - right) + plane[row + 1, column + 1] * right
    return upper * (1 - down) + lower * down
