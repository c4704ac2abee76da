"""The fast reader: decodes the JPEG tiles of SVS and TIFF files without OpenSlide in between.

libjpeg can decode a tile at 1/2, 1/4 or 1/8 of its size for less work: it leaves out the high
frequencies, which is nearly an area mean. Each such size is one more level, where the file has
none as coarse of its own.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from rayfed_hn.errors import SetAside
from rayfed_hn.slides import jpeg_stream
from rayfed_hn.slides.jpeg_layout import Tiles, find_tiles
from rayfed_hn.slides.source import Level
from rayfed_hn.slides.tile_cache import TileCache
from rayfed_hn.slides.truncation import WHOLE

FACTORS = (1, 2, 4, 8)
SAME_LEVEL = 1.02  # a level of the file this close to a scaled one takes its place


@dataclass(frozen=True, eq=False)
class _Scaled:
    """A level: the tiles of a picture, each decoded at 1/``factor`` of its size.

    Attributes:
        tile: Width and height of a tile once it is decoded.
        asked_N: bool, tiles that were asked for as a whole before.
    """

    tiles: Tiles
    factor: int
    tile: tuple[int, int]
    asked_N: NDArray[np.bool_]


class JpegTiff:
    """A ``PixelSource`` over an open file, which it closes in the end.

    Args:
        descriptor: The file, open for reading. It is read at positions, which threads can share.
        pictures: The tiles of the file's own levels.
        levels: The file's own levels.
    """

    name = "jpeg-tiff"

    def __init__(self, descriptor: int, pictures: list[Tiles], levels: tuple[Level, ...]) -> None:
        self._descriptor = descriptor
        self._cache = TileCache()
        pairs = _with_scaled(pictures, levels)
        self.levels = tuple(level for level, _ in pairs)
        self._scaled = [scaled for _, scaled in pairs]

    def close(self) -> None:
        """Close the file and forget its pixels."""
        descriptor, self._descriptor = self._descriptor, -1
        self._cache.clear()
        if descriptor >= 0:
            os.close(descriptor)

    def begin(self, level: int, start: int) -> float:
        """Return ``start``: any whole pixel will do."""
        return float(start)

    def read_into(self, level: int, x: int, y: int, out_HW3: NDArray[np.uint8]) -> None:
        """Read a window of a level into an array; see ``PixelSource``."""
        height, width, _ = out_HW3.shape
        limits = self.levels[level]
        left, right = max(x, 0), min(x + width, limits.width)
        top, bottom = max(y, 0), min(y + height, limits.height)
        if right - left < width or bottom - top < height:
            out_HW3[...] = 255
        if right <= left or bottom <= top:
            return
        tile_width, tile_height = self._scaled[level].tile
        rows = range(top // tile_height, -(-bottom // tile_height))
        # The next row of windows begins with the last of these rows, or shares them all.
        self._cache.reserve((len(rows) + 1) * 3 * tile_height * (limits.width + tile_width))
        for row in rows:
            low, high = max(top, row * tile_height), min(bottom, (row + 1) * tile_height)
            for column in range(left // tile_width, -(-right // tile_width)):
                start, stop = max(left, column * tile_width), min(right, (column + 1) * tile_width)
                corner = start - column * tile_width, low - row * tile_height
                place_HW3 = out_HW3[low - y : high - y, start - x : stop - x]
                self._paste(level, (column, row), corner, place_HW3)

    def _paste(
        self,
        level: int,
        where: tuple[int, int],
        corner: tuple[int, int],
        place_HW3: NDArray[np.uint8],
    ) -> None:
        """Put a tile, or the part of it from ``corner`` on, into its place."""
        scaled = self._scaled[level]
        number = where[1] * scaled.tiles.across + where[0]
        if self._cache.copy((level, number), corner, place_HW3):
            return
        height, width, _ = place_HW3.shape
        passing = (width, height) == scaled.tile and self._is_first(scaled, number)
        if passing and place_HW3.flags.c_contiguous:
            self._decode(scaled, number, place_HW3)
            return
        tile_HW3 = self._cache.room(*scaled.tile)
        self._decode(scaled, number, tile_HW3)
        x, y = corner
        place_HW3[...] = tile_HW3[y : y + height, x : x + width]
        if passing:
            self._cache.give_back(tile_HW3)
        else:
            self._cache.put((level, number), tile_HW3)

    def _is_first(self, scaled: _Scaled, number: int) -> bool:
        """Return whether a whole tile is asked for for the first time.

        On a grid that matches the tiles it is the last time too, so keeping it would only cost.
        """
        asked = bool(scaled.asked_N[number])
        scaled.asked_N[number] = True
        return not asked

    def _decode(self, scaled: _Scaled, number: int, out_HW3: NDArray[np.uint8]) -> None:
        length = int(scaled.tiles.lengths_N[number])
        if length == 0:  # never written: glass
            out_HW3[...] = 255
            return
        try:
            data = os.pread(self._descriptor, length, int(scaled.tiles.offsets_N[number]))
            decode(jpeg_stream.splice(scaled.tiles.prefix, data), scaled.factor, out_HW3)
        except (OSError, ValueError) as error:
            raise SetAside("is damaged: a part of it cannot be decoded", WHOLE) from error


def decode(jpeg: bytes, factor: int, out_HW3: NDArray[np.uint8]) -> None:
    """Decode a whole JPEG at 1/``factor`` of its size.

    Args:
        jpeg: The JPEG.
        factor: 1, 2, 4 or 8.
        out_HW3: uint8 RGB, C-contiguous, of exactly that size.

    Raises:
        ValueError: It is damaged, or of another size.
    """
    height, width, _ = out_HW3.shape
    # Asked before: memory is taken for the size that a header claims.
    if simplejpeg.decode_jpeg_header(jpeg)[:2] != (height * factor, width * factor):
        raise ValueError("a JPEG of another size")
    smallest = {"min_width": width, "min_height": height} if factor > 1 else {}
    # Strict, its default: else what is missing would be grey, with no word of it.
    simplejpeg.decode_jpeg(jpeg, "RGB", buffer=out_HW3, strict=True, **smallest)


def open_jpeg_tiff(path: Path, vendor: str, levels: tuple[Level, ...]) -> JpegTiff | None:
    """Open a file for direct decoding, or return None where that is not possible.

    Args:
        path: A file that OpenSlide can open.
        vendor: What OpenSlide takes it for.
        levels: The levels that OpenSlide reports; ours are exactly these, and scaled ones.
    """
    try:
        pictures = find_tiles(path, vendor, [(level.width, level.height) for level in levels])
        if pictures is None:
            return None
        return JpegTiff(os.open(path, os.O_RDONLY | os.O_CLOEXEC), pictures, levels)
    except OSError:
        return None


def _with_scaled(pictures: list[Tiles], levels: tuple[Level, ...]) -> list[tuple[Level, _Scaled]]:
    """Return the file's own levels and the scaled ones between and behind them, finest first."""
    pairs = []
    coarser = [*(level.downsample for level in levels[1:]), math.inf]
    for tiles, level, following in zip(pictures, levels, coarser, strict=True):
        for factor in FACTORS:
            down = level.downsample * factor
            parts = [n % factor for n in tiles.tile]
            if factor > 1 and (any(parts) or down * SAME_LEVEL > following):
                continue
            size = level.width // factor, level.height // factor
            tile = tiles.tile[0] // factor, tiles.tile[1] // factor
            asked = np.zeros(len(tiles.lengths_N), np.bool_)
            if min(size) > 0:
                pairs.append((Level(*size, down), _Scaled(tiles, factor, tile, asked)))
    return pairs
