"""What a file of features may hold at most, and what every reader checks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rayfed_hn.errors import SetAside

MAX_TILES = 2_000_000
MAX_FEATURES = 65_536
MAX_BYTES = 8 * 2**30  # as float32

REMEDY = "extract its features again, or remove it from the manifest"


def check_size(num_tiles: int, feature_dim: int) -> None:
    """Refuse a table before anything is allocated for it.

    Raises:
        SetAside: It is empty or absurdly large.
    """
    if 0 in (num_tiles, feature_dim):
        raise SetAside("has no tiles", "check how its tissue was found, or remove it")
    too_many = num_tiles > MAX_TILES or feature_dim > MAX_FEATURES
    if too_many or 4 * num_tiles * feature_dim > MAX_BYTES:
        raise SetAside(f"is too large ({num_tiles} tiles of {feature_dim} features)", REMEDY)


def as_float32(features: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the features as float32.

    Raises:
        SetAside: One of them is not finite, or becomes infinite.
    """
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite and is refused
        values = features.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise SetAside("has features that are not finite numbers", REMEDY)
    return values
