"""Where the JPEG tiles of an SVS or TIFF lie, for files whose structure is understood in full.

A picture of the file counts only if it is tiled and OpenSlide reports a level of the very same
size. Label, macro and thumbnail never are: OpenSlide keeps them apart from the levels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from rayfed_hn.slides import jpeg_stream, tiff
from rayfed_hn.slides.truncation import num_tiles, reach_behind

# Of these OpenSlide does no more than put tile beside tile; others overlap or are shifted.
VENDORS = ("aperio", "generic-tiff")
MAX_TILE_PX = 4096  # side; some tiles are held in memory
_JPEG, _RGB, _YCBCR = 7, 2, 6


@dataclass(frozen=True, eq=False)
class Tiles:
    """The tiles of one picture, row by row.

    Attributes:
        size: Width and height of the picture.
        tile: Width and height of a tile.
        across: Tiles in a row.
        prefix: What a tile's data lack in front to be a whole JPEG.
        offsets_N: int64, where each begins in the file.
        lengths_N: int64, bytes of each; 0 where none was written.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    across: int
    prefix: bytes
    offsets_N: NDArray[np.int64]
    lengths_N: NDArray[np.int64]


def find_tiles(path: Path, vendor: str, sizes: Sequence[tuple[int, int]]) -> list[Tiles] | None:
    """Return the tiles of every level, or None for anything out of the ordinary.

    Args:
        path: The file.
        vendor: What OpenSlide takes it for.
        sizes: Width and height of the levels that OpenSlide reports.

    Raises:
        OSError: The file cannot be read.
    """
    if vendor not in VENDORS:
        return None
    try:
        with path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size
            tiled = [d for d in tiff.directories(file, end) if tiff.TILE_OFFSETS in d]
            levels = [_tiles(_only(tiled, size), end) for size in sizes]
            for tiles in levels:
                _check_first(file.fileno(), tiles)
    except (tiff.BehindEnd, tiff.Malformed, ValueError):
        return None
    # OpenSlide draws what is missing of an Aperio level from the next finer one.
    if vendor == "aperio" and any((tiles.lengths_N == 0).any() for tiles in levels[1:]):
        return None
    return levels


def _only(tiled: list[tiff.Directory], size: tuple[int, int]) -> tiff.Directory:
    same = [d for d in tiled if (d.number(tiff.WIDTH), d.number(tiff.HEIGHT)) == size]
    if len(same) != 1:
        raise ValueError("no such picture, or several")
    return same[0]


def _tiles(directory: tiff.Directory, end: int) -> Tiles:
    number = directory.number
    photometric = number(tiff.PHOTOMETRIC)
    tile = number(tiff.TILE_WIDTH), number(tiff.TILE_HEIGHT)
    plain = (
        number(tiff.COMPRESSION) == _JPEG
        and photometric in (_RGB, _YCBCR)
        and directory.numbers(tiff.BITS).tolist() == [8, 8, 8]
        and number(tiff.SAMPLES) == 3
        and number(tiff.PLANAR, 1) == 1
        and number(tiff.FILL_ORDER, 1) == 1
        and max(tile) <= MAX_TILE_PX
    )
    across, down = num_tiles(directory)
    offsets, lengths = directory.numbers(tiff.TILE_OFFSETS), directory.numbers(tiff.TILE_BYTES)
    if not plain or not len(offsets) == len(lengths) == across * down:
        raise ValueError("not tiles that we know")
    longest = 4 * 3 * tile[0] * tile[1] + 2**16  # far more than any JPEG of this size takes
    if reach_behind(offsets, lengths, end) or int(lengths.max()) > longest:
        raise ValueError("tiles that cannot be")
    return Tiles(
        size=(number(tiff.WIDTH), number(tiff.HEIGHT)),
        tile=tile,
        across=across,
        prefix=jpeg_stream.prefix_of(directory.data(tiff.JPEG_TABLES), photometric == _RGB),
        offsets_N=offsets.astype(np.int64),
        lengths_N=lengths.astype(np.int64),
    )


def _check_first(descriptor: int, tiles: Tiles) -> None:
    """Look at the header of the first tile that there is: size, colours and subsampling."""
    written = np.flatnonzero(tiles.lengths_N)
    if len(written) == 0:
        return
    number = written[0]
    data = os.pread(descriptor, int(tiles.lengths_N[number]), int(tiles.offsets_N[number]))
    header = simplejpeg.decode_jpeg_header(jpeg_stream.splice(tiles.prefix, data))
    height, width, colours, subsampling = header
    known = colours in ("RGB", "YCbCr") and subsampling in jpeg_stream.SUBSAMPLINGS
    if (width, height) != tiles.tile or not known:
        raise ValueError("not a JPEG that we know")
