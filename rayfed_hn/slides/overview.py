"""The pixels of a slide that a picture of its attention needs, read in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rayfed_hn.errors import SetAside
from rayfed_hn.slides.slide import Slide, open_slide


class Overview:
    """An open slide, as far as it is that of a bag.

    Args:
        path: The slide's file.
        mpp: Micrometres per pixel of level 0 that the bag was made with; None: as the file says.
        corner: Where the farthest tiles of the bag begin (x, y), level-0 pixels.

    Raises:
        SetAside: It cannot be read, or its tiles would lie outside of it.
    """

    def __init__(self, path: Path, mpp: float | None, corner: tuple[int, int]) -> None:
        self._slide: Slide = open_slide(path, mpp)
        self.extent, self.mpp = self._slide.extent_px, self._slide.mpp
        if self.extent[0] <= corner[0] or self.extent[1] <= corner[1]:
            self.close()
            raise SetAside(
                f"is {self.extent[0]} x {self.extent[1]} pixels, and the bag has tiles as far "
                f"as ({corner[0]}, {corner[1]})",
                "give the file that the bag was made from",
            )

    def picture(self, side_px: int) -> NDArray[np.uint8]:
        """The whole slide, uint8 RGB, no side longer than about ``side_px``."""
        return self._slide.thumbnail(self.mpp * max(1.0, max(self.extent) / side_px))

    def tiles(
        self, coords_N2: NDArray[np.int64], tile_size0: float, side_px: int
    ) -> NDArray[np.uint8]:
        """Some tiles, uint8 RGB (N, side_px, side_px, 3).

        Args:
            coords_N2: Top left corners in level-0 pixels.
            tile_size0: Their side in level-0 pixels.
            side_px: Side of the result.
        """
        tiles_NHW3 = np.empty((len(coords_N2), side_px, side_px, 3), np.uint8)
        self._slide.read_tiles(coords_N2, side_px, self.mpp * tile_size0 / side_px, tiles_NHW3)
        return tiles_NHW3

    def close(self) -> None:
        """Close the file."""
        self._slide.close()
