"""A federation whose cases have known hazards, and how well an oracle that knows them ranks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tiny_federations import DIM, create, write

SITES = ("a", "b", "c")
NUM_CASES = 120


@dataclass(frozen=True)
class KnownHazards:
    """The store, and of every slide its log-hazard by (time, event), which no two share."""

    root: Path
    hazard: dict[tuple[float, bool], float]


def make(root: Path, seed: int) -> KnownHazards:
    """Exponential times to the event of hazard exp(1.5 z) / 10, and independent censoring.

    z, which is standard normal over cases, is the mean of the first feature of a case's instances
    up to their noise; sites differ in how their features are shifted and in how early they censor.
    """
    create(root)
    rng, hazard = np.random.default_rng(seed), {}
    for number, site in enumerate(SITES):
        for case in range(NUM_CASES):
            z = rng.normal()
            time = 10 * rng.exponential() * np.exp(-1.5 * z)
            end = (20 + 10 * number) * rng.exponential()
            features_ND = rng.normal(0.2 * number, 1, (int(rng.integers(4, 9)), DIM))
            features_ND[:, 0] = z + 0.3 * rng.normal(size=len(features_ND))
            event = bool(time <= end)
            follow_up = {"time": float(max(min(time, end), 1e-9)), "event": event}
            write(root, site, f"{site}{case}", "", features_ND=features_ND, **follow_up)
            hazard[follow_up["time"], event] = 1.5 * z
    return KnownHazards(root, hazard)
