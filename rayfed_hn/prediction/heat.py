"""Attention over a slide, as numbers. Pure: what draws it need not know of networks.

Shapes: N tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


@dataclass(frozen=True, eq=False)
class Heat:
    """Where a network looks on one slide.

    Attributes:
        slide_id, site: Of the slide.
        run: Name of the run's folder.
        network: Whose network, and which of them.
        said: What it predicts of the bag, in words.
        coords_N2: Top left corners (x, y) of the tiles in level-0 pixels, int64.
        tile_size0: Side of a tile in level-0 pixels.
        attention_N: Not negative, float64 (N,); adds up to 1 over the bag, which may be a case.
        mpp: Micrometres per pixel of level 0, if known.
    """

    slide_id: str
    site: str
    run: str
    network: str
    said: str
    coords_N2: NDArray[np.int64]
    tile_size0: float
    attention_N: NDArray[np.float64]
    mpp: float | None = None

    def __len__(self) -> int:
        return len(self.attention_N)

    @cached_property
    def percentiles(self) -> NDArray[np.float64]:
        """Percentile of every tile among those of the slide, above 0 to 100; ties share theirs."""
        return 100 * rankdata(self.attention_N, method="average") / len(self)

    @property
    def placed(self) -> bool:
        """Whether the tiles have places: features that others made may have none."""
        return len(self) == 1 or bool((self.coords_N2 != self.coords_N2[0]).any())

    @property
    def corner(self) -> tuple[int, int]:
        """Where the farthest tiles begin, level-0 pixels."""
        x, y = self.coords_N2.max(axis=0).tolist()
        return x, y

    @property
    def extent(self) -> tuple[int, int]:
        """Width and height that the tiles need, level-0 pixels."""
        width, height = np.ceil(self.coords_N2.max(axis=0) + self.tile_size0).astype(int)
        return int(width), int(height)


def agreement(one: Heat, other: Heat) -> float | None:
    """Spearman's rank correlation of two networks' attention; None on other tiles, or of equals."""
    if not np.array_equal(one.coords_N2, other.coords_N2):
        return None
    if min(np.ptp(one.percentiles), np.ptp(other.percentiles)) == 0:
        return None
    return float(np.corrcoef(one.percentiles, other.percentiles)[0, 1])
