"""Random state that is derived, never carried.

Every draw is keyed by what it is for, so that results do not depend on the number of workers,
on how sites are packed into actors, or on the order in which updates arrive.
"""

from __future__ import annotations

import hashlib


def derive(seed: int, purpose: str, *key: str | int) -> int:
    """Return a 63-bit seed for ``purpose``, the same on every machine and Python.

    Args:
        seed: The run's seed (``run.seed``).
        purpose: What the numbers are for, such as ``"local training"``.
        key: Whatever tells this draw from others of the same purpose (site, version, ...).
    """
    text = "\x1f".join([str(seed), purpose, *(f"{type(k).__name__}:{k}" for k in key)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
