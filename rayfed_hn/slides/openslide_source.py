"""Pixels as OpenSlide gives them: the reference for every other reader."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from rayfed_hn.errors import SetAside
from rayfed_hn.slides.source import Level
from rayfed_hn.slides.truncation import WHOLE


def open_handle(path: Path) -> openslide.OpenSlide | None:
    """Open a file, or return None if it is nothing that OpenSlide knows.

    Raises:
        SetAside: It is damaged.
    """
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        return None
    except (openslide.OpenSlideError, OSError) as error:
        raise SetAside("is damaged: OpenSlide cannot open it", WHOLE) from error


class OpenSlideSource:
    """A ``PixelSource`` over an open handle, which it closes in the end."""

    name = "openslide"

    def __init__(self, handle: openslide.OpenSlide) -> None:
        self._handle = handle
        # Kept here, because a handle that met an error answers nothing any more.
        self.levels = levels_of(handle)

    def close(self) -> None:
        """Close the handle."""
        self._handle.close()

    def begin(self, level: int, start: int) -> float:
        """Return where a window begins: OpenSlide takes whole level-0 pixels.

        Rounded down, so that what it blends where they are not whole pixels of the level too lies
        inside the slide.
        """
        return self._at(level, start) / self.levels[level].downsample

    def read_into(self, level: int, x: int, y: int, out_HW3: NDArray[np.uint8]) -> None:
        """Read a window of a level into an array; see ``PixelSource``."""
        at = self._at(level, x), self._at(level, y)
        size = out_HW3.shape[1], out_HW3.shape[0]
        try:
            picture = self._handle.read_region(at, level, size)
        except (openslide.OpenSlideError, OSError, ValueError) as error:
            # OpenSlide refuses every further call on this handle, so this ends the slide.
            raise SetAside("is damaged: a part of it cannot be decoded", WHOLE) from error
        out_HW3[...] = np.asarray(on_white(picture))

    def _at(self, level: int, start: int) -> int:
        return math.floor(start * self.levels[level].downsample + 1e-6)


def levels_of(handle: openslide.OpenSlide) -> tuple[Level, ...]:
    """Return the levels of an open slide."""
    sizes = zip(handle.level_dimensions, handle.level_downsamples, strict=True)
    return tuple(Level(*dimensions, downsample) for dimensions, downsample in sizes)


def on_white(picture: Image.Image) -> Image.Image:
    """Drop the alpha channel; transparent pixels are glass, not black."""
    if picture.getchannel("A").getextrema() == (255, 255):
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")
