"""JPEG-tiled pyramids for the tests of the fast reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from skimage.data import astronaut

JPEG = {"compression": "jpeg", "photometric": "rgb", "metadata": None}
KINDS: dict[str, dict[str, Any]] = {
    "420": {"subsampling": (2, 2), "compressionargs": {"level": 90}},
    "422": {"subsampling": (2, 1), "compressionargs": {"level": 90}},
    "444": {"subsampling": (1, 1), "compressionargs": {"level": 90}},
    "rgb": {"subsampling": (1, 1), "compressionargs": {"level": 90, "outcolorspace": 2}},
}


def picture_of(width: int, height: int) -> np.ndarray:
    """A photograph, as much finer than its detail as slides are finer than their optics."""
    picture = Image.fromarray(astronaut()).resize((1536, 1536), Image.Resampling.BICUBIC)
    return np.asarray(picture)[200 : 200 + height, :width]


def write_pyramid(
    path: Path,
    *,
    kind: str = "420",
    tile: int = 256,
    steps: tuple[int, ...] = (1, 4),
    size: tuple[int, int] = (1100, 900),
    mpp: float = 0.25,
    bigtiff: bool = False,
    **options: Any,
) -> Path:
    picture = Image.fromarray(picture_of(*size))
    settings = JPEG | KINDS[kind] | options
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as file:
        for step in steps:
            level = picture.reduce(step) if step > 1 else picture
            file.write(
                np.asarray(level),
                tile=(tile, tile),
                subfiletype=int(step > 1),
                resolution=(1e4 / mpp / step, 1e4 / mpp / step),
                resolutionunit="CENTIMETER",
                **settings,
            )
    return path


def offsets_of(path: Path, page: int) -> tuple[int, int, list[int], list[int]]:
    """Where the values of TileByteCounts lie, their width in bytes, and all offsets and counts."""
    with tifffile.TiffFile(path) as file:
        picture = file.pages[page]
        assert isinstance(picture, tifffile.TiffPage)
        tag = picture.tags[325]
        width = tifffile.TIFF.DATA_FORMATS[tag.dtype][-1]
        sizes = {"B": 1, "H": 2, "I": 4, "Q": 8}
        return (
            tag.valueoffset,
            sizes[width],
            list(picture.dataoffsets),
            list(picture.databytecounts),
        )
