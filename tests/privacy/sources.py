"""Sources of noise for tests."""

from __future__ import annotations

import numpy as np


class Silent:
    """No noise at all, so that what lies under it is seen."""

    def normal(self, size: int) -> np.ndarray:
        return np.zeros(size)

    def secret(self) -> int:
        return 7


class Counted:
    """Real noise, and how often it was asked for."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self.drawn = 0

    def normal(self, size: int) -> np.ndarray:
        self.drawn += size
        return self._rng.standard_normal(size)

    def secret(self) -> int:
        return int(self._rng.integers(2**63))
