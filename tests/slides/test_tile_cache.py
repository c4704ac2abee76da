from __future__ import annotations

import numpy as np

from rayfed_hn.slides.tile_cache import TileCache


def _tile(value: int, width: int = 8) -> np.ndarray:
    return np.full((8, width, 3), value, np.uint8)


def test_cache_is_bounded_and_drops_what_was_not_used_for_longest() -> None:
    cache, place = TileCache(max_bytes=10 * _tile(0).nbytes), np.empty((2, 3, 3), np.uint8)
    cache.reserve(10**9)
    for number in range(10):
        cache.put((0, number), _tile(number))
    assert cache.copy((0, 0), (5, 6), place)
    assert (place == 0).all()
    cache.put((0, 10), _tile(10, width=12))
    kept = [number for number in range(11) if cache.copy((0, number), (0, 0), place)]
    assert kept == [0, 3, 4, 5, 6, 7, 8, 9, 10]
    cache.clear()
    assert not cache.copy((0, 0), (0, 0), place)


def test_cache_gives_out_memory_that_nobody_uses() -> None:
    cache, place = TileCache(), np.empty((8, 8, 3), np.uint8)
    cache.reserve(2 * _tile(0).nbytes)
    for number in range(9):
        tile = cache.room(8, 8)
        tile[...] = number
        cache.put((0, number), tile)
        for kept in range(max(0, number - 1), number + 1):
            assert cache.copy((0, kept), (0, 0), place)
            assert (place == kept).all()
    assert cache.room(9, 8).shape == (8, 9, 3)
    first, second = cache.room(8, 8), cache.room(8, 8)
    assert first is not second
    cache.give_back(second)
    assert cache.room(8, 8) is second
