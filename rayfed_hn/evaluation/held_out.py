"""Out-of-fold scores as arrays, with the bags of every site in one order for all methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rayfed_hn.evaluation.cells import Arm
from rayfed_hn.evaluation.judging import Truth
from rayfed_hn.evaluation.out_of_fold import Scores


@dataclass(frozen=True)
class Reading:
    """What was predicted of bags out of fold in one seed, and what is true of them."""

    truth: Truth
    predictions_BS: np.ndarray


class HeldOut:
    """Out-of-fold scores of all arms, seeds and sites, as far as they are complete.

    Args:
        scores: All of a comparison.

    Attributes:
        sites: All of them, by name.
        case_B: Of every site, the number of the case of every bag, from 0.
    """

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self.sites = sorted(scores.num_bags)
        self.case_B: dict[str, np.ndarray] = {}
        self._readings: dict[tuple[Arm, str], tuple[Reading, ...]] = {}
        for arm in scores.arms:
            for site in self.sites:
                found = [self._read(arm, seed, site) for seed in scores.seeds]
                complete = tuple(reading for reading in found if reading is not None)
                if len(complete) == len(found):
                    self._readings[arm, site] = complete

    def _read(self, arm: Arm, seed: object, site: str) -> Reading | None:
        records = self.scores.of(arm, seed, site)
        if not records:
            return None
        unit = self.scores.unit
        records = sorted(records, key=lambda record: record[unit])
        if site not in self.case_B:
            cases = [record.get("case", record[unit]) for record in records]
            self.case_B[site] = np.unique(cases, return_inverse=True)[1]
        return Reading(*self.scores.judge.read(records))

    def num_cases(self, sites: Sequence[str]) -> int:
        """Cases of some sites that anybody has scored completely."""
        return sum(int(self.case_B[site].max()) + 1 for site in sites if site in self.case_B)

    def of(self, arm: Arm, site: str) -> tuple[Reading, ...] | None:
        """Return a reading for every seed, or None unless all are complete."""
        return self._readings.get((arm, site))

    def together(self, arm: Arm) -> tuple[Reading, ...] | None:
        """Return likewise the bags of all sites, one site after the other."""
        parts = [self.of(arm, site) for site in self.sites]
        known = [part for part in parts if part is not None]
        if not parts or len(known) < len(parts):
            return None
        return tuple(_joined(seeds) for seeds in zip(*known, strict=True))

    def cases_together(self) -> np.ndarray:
        """Return the case of every bag of ``together``; those of different sites differ."""
        first, parts = 0, []
        for site in self.sites:
            parts.append(first + self.case_B[site])
            first = int(parts[-1].max()) + 1
        return np.concatenate(parts)


def _joined(readings: Sequence[Reading]) -> Reading:
    truths = [reading.truth for reading in readings]
    truth = Truth(
        np.concatenate([truth.label_B for truth in truths]),
        np.concatenate([truth.time_B for truth in truths]),
        np.concatenate([truth.event_B for truth in truths]),
    )
    return Reading(truth, np.concatenate([reading.predictions_BS for reading in readings]))
