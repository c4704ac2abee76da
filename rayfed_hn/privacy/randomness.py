"""Where noise comes from.

Noise protects only as long as nobody can draw it again: a real site takes it from its machine's
entropy. Simulations repeat, and take it from a seed.
"""

from __future__ import annotations

import os
import secrets
from typing import Protocol

import numpy as np

_BITS = 53  # of a double's mantissa


class Randomness(Protocol):
    """A source of noise."""

    def normal(self, size: int) -> np.ndarray:
        """Independent standard normal numbers, float64 (size,)."""
        ...

    def secret(self) -> int:
        """A number that keys further draws."""
        ...


class Seeded:
    """Noise that repeats.

    Args:
        seed: Of all numbers.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.Generator(np.random.Philox(seed))

    def normal(self, size: int) -> np.ndarray:
        return self._rng.standard_normal(size)

    def secret(self) -> int:
        return int(self._rng.integers(2**63))


class Entropy:
    """The operating system's generator, of which nobody has the state.

    Normal numbers are made by Box and Muller's formulas in double precision. They are not hardened
    against attacks on the last bits of floating-point noise (Mironov 2012).
    """

    def normal(self, size: int) -> np.ndarray:
        pairs = -(-size // 2)
        raw = np.frombuffer(os.urandom(16 * pairs), np.uint64).reshape(2, pairs)
        uniform = (raw >> np.uint64(64 - _BITS)) * 2.0**-_BITS  # [0, 1)
        radius, angle = np.sqrt(-2.0 * np.log1p(-uniform[0])), 2.0 * np.pi * uniform[1]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]

    def secret(self) -> int:
        return secrets.randbits(256)
