"""Bags that tell at a glance which class they are of."""

from __future__ import annotations

import numpy as np

from rayfed_hn.bags.bag import Bag


def make_bag(rng: np.random.Generator, site: str, i: int, shift: float = 0.0) -> Bag:
    """A bag of 8 to 16 instances with 12 features; odd ones are positive."""
    num_tiles = int(rng.integers(8, 17))
    features_ND = rng.normal(0.1 * shift, 1, (num_tiles, 12)).astype(np.float32)
    if i % 2:
        features_ND[:3, :4] += 2.5
    return Bag(
        slide_id=f"{site}-{i}",
        case_id=f"{site}-case-{i}",
        site=site,
        label="tumour" if i % 2 else "normal",
        features_ND=features_ND,
        coords_N2=np.zeros((num_tiles, 2), np.int64),
        tissue_N=np.ones(num_tiles, np.float32),
        tile_size0=256.0,
        mpp=0.5,
    )
