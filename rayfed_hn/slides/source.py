"""What a slide gets its pixels from: levels, and windows of them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Level(NamedTuple):
    """One size of the picture.

    Attributes:
        width: In pixels of this level.
        height: In pixels of this level.
        downsample: Level-0 pixels per pixel; rarely a whole number.
    """

    width: int
    height: int
    downsample: float


class PixelSource(Protocol):
    """An open file; reading from several threads is safe.

    Attributes:
        name: What reads the pixels: jpeg-tiff, openslide or image.
        levels: Finest first; the first is the slide at its full size.
    """

    name: str
    levels: tuple[Level, ...]

    def begin(self, level: int, start: int) -> float:
        """Return where a window that should begin at pixel ``start`` of a level does begin."""
        ...

    def read_into(self, level: int, x: int, y: int, out_HW3: NDArray[np.uint8]) -> None:
        """Read a window of a level, as large as the array, into it.

        Args:
            level: Which level.
            x: Left edge in pixels of that level.
            y: Top edge in pixels of that level.
            out_HW3: uint8 RGB. White where the slide has ended or is transparent.

        Raises:
            SetAside: The slide is damaged there.
        """
        ...

    def close(self) -> None:
        """Close the file; reading is over."""
        ...
