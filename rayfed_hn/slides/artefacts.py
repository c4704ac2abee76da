"""What else than tissue covers a tile: blur, pen, black, white. Pure, and cheaper than decoding.

**Blur.** The Laplacian, which lives on next neighbours, is set against differences four pixels
apart, both on a picture of about one micrometre per pixel, block by block. Stain and contrast
cancel out: in focus the two are alike, out of focus the first is lost in the noise. A block without
contrast says nothing.

**Pen.** Haematoxylin and eosin both absorb green most (Ruifrok and Johnston, 2001), so by optical
density tissue keeps red below green; blue, green and black-blue inks absorb red most. Red ink
passes nearly all red and stops green and blue alike; blood stops more of the red, eosin less of the
blue. Neutral black is ink too. Strokes are far wider than a nucleus or a red cell, so only
blocks of which at least half is ink count. Blue ink over tissue looks like haematoxylin and mostly
stays unseen; over glass, or in green, black or red, it does not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rayfed_hn.bags.bag import ARTEFACTS
from rayfed_hn.config import ArtefactsConfig

VERSION = 1  # part of the recipe: raised when the same settings give other tiles or shares
DETAIL_UM = 1.0  # pitch that focus is judged at; finer pixels hold little but noise
BLOCK = 16  # side of a block in pixels of that pitch
MAX_STEP = 8
LAG = 4
MIN_CONTRAST = 3.0  # grey levels over LAG pixels; glass and JPEG's own blocks stay below
NOISE = 1.0  # grey levels of the Laplacian that sensor and JPEG leave where all is blurred
FEW_BLOCKS = 1 / 8  # so much of a tile must have contrast before it can be wholly blurred
MIN_RED_INK = 0.7  # optical density of red ink in green and in blue
MAX_RED_INK = 0.3  # and its density in red, relative to the lesser of these two
MIN_BLACK_INK = 0.6  # optical density of black ink in every channel
MAX_BLACK_INK_SPREAD = 0.2  # and how far its channels lie apart
_DENSITY = (-np.log10(np.arange(1, 257) / 256)).astype(np.float32)


def measure(
    tiles_NHW3: NDArray[np.uint8], mpp: float, config: ArtefactsConfig
) -> NDArray[np.float32]:
    """Measure how much of every tile each of ``ARTEFACTS`` covers.

    Args:
        tiles_NHW3: uint8 RGB tiles with sides of at least 32 pixels.
        mpp: Micrometres per pixel of the tiles.
        config: Thresholds.

    Returns:
        float32 (N, 4), shares from 0 to 1 in the order of ``ARTEFACTS``. Blur is the share of
        what has contrast, the others are shares of the area.
    """
    side = min(tiles_NHW3.shape[1:3])
    step = int(np.clip(round(DETAIL_UM / mpp), 1, min(MAX_STEP, side // BLOCK)))
    shares_N4 = np.empty((len(tiles_NHW3), len(ARTEFACTS)), np.float32)
    for tile_HW3, shares in zip(tiles_NHW3, shares_N4, strict=True):  # one at a time: cached
        # Every second pixel of the pitch is enough for colour.
        few = tile_HW3[step :: 2 * step, step :: 2 * step]
        few_3HW = np.ascontiguousarray(few.transpose(2, 0, 1))
        black, white = _black_and_white(few_3HW, config)
        shares[:] = _blur(tile_HW3, step, config), _pen(few_3HW, config), black, white
    return shares_N4


def _blur(tile_HW3: NDArray[np.uint8], step: int, config: ArtefactsConfig) -> float:
    grey_HW = _reduced(tile_HW3[..., 1], step)  # green, which both stains absorb
    detail, contrast = _block_means(_laplacian(grey_HW)), _block_means(_differences(grey_HW))
    telling = contrast > MIN_CONTRAST
    blurred = telling & (detail < NOISE + config.min_detail * contrast)
    return float(blurred.sum() / max(telling.sum(), FEW_BLOCKS * telling.size))


def _laplacian(grey_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """The size of four times a pixel less its neighbours; 0 at the edges."""
    size = np.zeros_like(grey_HW)
    inner = grey_HW[1:-1, 1:-1] * np.float32(4)
    inner -= grey_HW[:-2, 1:-1]
    inner -= grey_HW[2:, 1:-1]
    inner -= grey_HW[1:-1, :-2]
    inner -= grey_HW[1:-1, 2:]
    np.abs(inner, out=size[1:-1, 1:-1])
    return size


def _differences(grey_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean size of the differences over ``LAG`` pixels, across and down; less at the edges."""
    size, half = np.zeros_like(grey_HW), LAG // 2
    size[:, half:-half] = np.abs(grey_HW[:, LAG:] - grey_HW[:, :-LAG])
    size[half:-half] += np.abs(grey_HW[LAG:] - grey_HW[:-LAG])
    size *= np.float32(0.5)
    return size


def _pen(colours_3HW: NDArray[np.uint8], config: ArtefactsConfig) -> float:
    red, green, blue = _DENSITY.take(colours_3HW)
    low, high = np.minimum(green, blue), np.maximum(green, blue)
    ink = red - green > config.pen_excess
    ink |= (low > MIN_RED_INK) & (red < MAX_RED_INK * low)
    least, most = np.minimum(low, red), np.maximum(high, red)
    ink |= (least > MIN_BLACK_INK) & (most - least < MAX_BLACK_INK_SPREAD)
    return float((_block_means(ink.astype(np.float32), BLOCK // 2) >= 0.5).mean())


def _black_and_white(
    colours_3HW: NDArray[np.uint8], config: ArtefactsConfig
) -> tuple[float, float]:
    red, green, blue = colours_3HW
    black = np.maximum(np.maximum(red, green), blue) < config.black_level
    white = np.minimum(np.minimum(red, green), blue) > config.white_level
    return float(black.mean()), float(white.mean())


def _reduced(channel_HW: NDArray[np.uint8], step: int) -> NDArray[np.float32]:
    """Means of ``step`` x ``step`` pixels; what is left over at the far edges is dropped."""
    height, width = (n - n % step for n in channel_HW.shape)
    wide = channel_HW[:height, :width].astype(np.int16)  # holds sums up to MAX_STEP squared
    rows = sum(wide[i::step] for i in range(step))
    total = sum(rows[:, i::step] for i in range(step))  # pyright: ignore[reportIndexIssue]
    return np.asarray(total, np.float32) / np.float32(step**2)


def _block_means(picture_HW: NDArray[np.float32], block: int = BLOCK) -> NDArray[np.float32]:
    """Means of square blocks; a block that is cut off at the far edges is dropped."""
    rows, columns = (n // block for n in picture_HW.shape)
    whole = picture_HW[: rows * block, : columns * block]
    sums = whole.reshape(rows, block, -1).sum(1).reshape(rows, columns, block).sum(2)
    return sums / np.float32(block**2)
