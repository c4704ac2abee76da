"""Decoded tiles that may be needed again; bounded, and safe between threads.

Fresh memory costs as much as half a decode (the kernel clears it page by page), so the memory of
tiles that are dropped is used again. That is why tiles never leave the cache but by copying.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

# Two rows of 256 px tiles of a slide 170,000 px wide: a grid that does not match the file's tiles
# comes back to each of them one row of its own later.
MAX_CACHE_BYTES = 256 * 2**20
_MAX_SPARE = 8  # more than threads that decode at once


class TileCache:
    """Keeps the tiles that were used last.

    Args:
        max_bytes: What they may take together, however much is asked for.
    """

    def __init__(self, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._limit = 0
        self._bytes = 0
        self._tiles: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._spare: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    def reserve(self, num_bytes: int) -> None:
        """Let tiles take this much from now on, if that is more than before."""
        self._limit = max(self._limit, min(num_bytes, self._max_bytes))

    def copy(
        self, key: tuple[int, int], corner: tuple[int, int], place_HW3: NDArray[np.uint8]
    ) -> bool:
        """Copy the part of a tile from ``corner`` (x, y) on; returns whether it is here."""
        with self._lock:
            tile_HW3 = self._tiles.get(key)
            if tile_HW3 is None:
                return False
            self._tiles.move_to_end(key)
            height, width, _ = place_HW3.shape
            x, y = corner
            place_HW3[...] = tile_HW3[y : y + height, x : x + width]
            return True

    def room(self, width: int, height: int) -> NDArray[np.uint8]:
        """Return memory for a tile, uint8 (H, W, 3), to be handed to ``put`` or ``give_back``."""
        shape = height, width, 3
        with self._lock:
            for i, spare in enumerate(self._spare):
                if spare.shape == shape:
                    return self._spare.pop(i)
        return np.empty(shape, np.uint8)

    def put(self, key: tuple[int, int], tile_HW3: NDArray[np.uint8]) -> None:
        """Keep a tile, at the cost of those that were not used for longest."""
        with self._lock:
            if key in self._tiles:  # another thread was faster
                self._spare.append(tile_HW3)
            else:
                self._tiles[key] = tile_HW3
                self._bytes += tile_HW3.nbytes
            while self._bytes > self._limit:
                dropped = self._tiles.popitem(last=False)[1]
                self._bytes -= dropped.nbytes
                self._spare.append(dropped)
            del self._spare[:-_MAX_SPARE]

    def give_back(self, tile_HW3: NDArray[np.uint8]) -> None:
        """Let others have the memory of a tile that is not kept."""
        with self._lock:
            self._spare.append(tile_HW3)
            del self._spare[:-_MAX_SPARE]

    def clear(self) -> None:
        """Let go of all tiles."""
        with self._lock:
            self._tiles.clear()
            self._spare.clear()
            self._bytes = 0
