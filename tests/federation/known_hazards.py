"""A federation whose cases have known hazards, and how well whoever knows them ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tiny_federations import DIM, create, write

from rayfed_hn.evaluation.survival import concordance_index
from rayfed_hn.federation.messages import Scores

SITES = ("a", "b", "c")
NUM_CASES = 360  # of a site; half of them train
STRENGTH = 2.5
NOISE = 0.1


@dataclass(frozen=True)
class KnownHazards:
    """The store, and the log-hazard of every case by its time, which no two share."""

    root: Path
    hazard_by_time: dict[float, float]

    def of(self, scores: Scores) -> np.ndarray:
        """Log-hazards of the bags that a site scored."""
        return np.array([self.hazard_by_time[float(time)] for time in scores.time_B])


def make(root: Path, seed: int) -> KnownHazards:
    """Exponential times to an event of log-hazard STRENGTH z, and independent censoring.

    z, standard normal over cases, is the first feature of a case's instances up to their noise.
    Sites differ in how their other features are shifted and in how early they censor.
    """
    create(root)
    rng, hazard_by_time = np.random.default_rng(seed), dict[float, float]()
    for number, site in enumerate(SITES):
        for case in range(NUM_CASES):
            z = rng.normal()
            time = 10 * rng.exponential() * np.exp(-STRENGTH * z)
            end = (20 + 10 * number) * rng.exponential()
            features_ND = rng.normal(0.2 * number, 1, (int(rng.integers(4, 9)), DIM))
            features_ND[:, 0] = z + NOISE * rng.normal(size=len(features_ND))
            seen = float(min(time, end))
            about = {"features_ND": features_ND, "time": seen, "event": bool(time <= end)}
            write(root, site, f"{site}{case}", "", **about)
            hazard_by_time[seen] = STRENGTH * z
    assert len(hazard_by_time) == NUM_CASES * len(SITES)
    return KnownHazards(root, hazard_by_time)


def concordance(scores: Sequence[Scores], risks: Sequence[np.ndarray]) -> float:
    """Of the bags of some sites together."""
    times, events = (
        np.concatenate([getattr(s, name) for s in scores]) for name in ("time_B", "event_B")
    )
    found = concordance_index(times, events, np.concatenate(risks))
    assert found is not None
    return found
