"""Tells a TIFF that was cut short, or that claims what cannot be, from a file that is no slide.

OpenSlide calls all of them "unsupported", or believes them, and a user needs to know which it is.
Only offsets are read; no picture is opened.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rayfed_hn.errors import SetAside
from rayfed_hn.slides import tiff

MAX_TILE_AREA = 2**28  # pixels; OpenSlide takes memory for a whole tile, and is killed by too much
WHOLE = "copy the file again from its source, or remove it from the manifest"


def refuse_cut_short(path: Path) -> None:
    """Refuse a TIFF whose directories or tiles lie behind its end or are fewer than it claims.

    Every other file passes, also a TIFF that is wrong in another way.

    Raises:
        SetAside: It is such a TIFF, or cannot be read at all.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            for directory in tiff.directories(file, size):
                if tiff.NDPI in directory:  # keeps the high halves of its offsets elsewhere
                    return
                _check_tiles(directory, size)
    except tiff.BehindEnd:
        raise SetAside(
            "is truncated: its contents go on behind the end of the file", WHOLE
        ) from None
    except tiff.Malformed:
        return
    except FileNotFoundError as error:
        raise SetAside("the file is missing", "correct its path in the manifest") from error
    except OSError as error:
        raise SetAside(f"the file cannot be read ({error.strerror})", "check the file") from error


def _check_tiles(directory: tiff.Directory, size: int) -> None:
    if directory.number(tiff.TILE_WIDTH) * directory.number(tiff.TILE_HEIGHT) > MAX_TILE_AREA:
        raise SetAside("is damaged: it claims tiles that are far too large", WHOLE)
    across, down = num_tiles(directory)
    # Counted before anything is read or believed: a header can claim 10^14 tiles.
    if across * down > directory.count(tiff.TILE_OFFSETS):
        raise SetAside("is damaged: it claims more tiles than it lists", WHOLE)
    starts, lengths = directory.numbers(tiff.TILE_OFFSETS), directory.numbers(tiff.TILE_BYTES)
    if len(starts) == len(lengths) and reach_behind(starts, lengths, size):
        raise tiff.BehindEnd


def num_tiles(directory: tiff.Directory) -> tuple[int, int]:
    """Return how many tiles a picture has across and down; (0, 0) where it has no tiles."""
    sides = directory.number(tiff.TILE_WIDTH), directory.number(tiff.TILE_HEIGHT)
    if 0 in sides:
        return 0, 0
    lengths = directory.number(tiff.WIDTH), directory.number(tiff.HEIGHT)
    return -(-lengths[0] // sides[0]), -(-lengths[1] // sides[1])


def reach_behind(starts: np.ndarray, lengths: np.ndarray, size: int) -> bool:
    """Return whether any piece goes beyond ``size``; safe against sums that wrap around."""
    end = np.uint64(size)
    return bool(((starts > end) | (lengths > end - np.minimum(starts, end))).any())
