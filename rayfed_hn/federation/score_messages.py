"""What crosses the border of a site when a run is scored.

First every site tells how good its candidates for the mixture readout are on its validation bags;
then, knowing what all sites think of them, it scores its test bags.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rayfed_hn.config.task import MAX_CLASSES
from rayfed_hn.errors import MessageError
from rayfed_hn.evaluation.judging import Truth
from rayfed_hn.federation.wire import (
    MAX_BAGS,
    Message,
    expect,
    length,
    open_message,
    serialise,
    within,
)

MAX_CANDIDATES = 64
MAX_EVIDENCE = MAX_CLASSES  # numbers that a bag is predicted from
FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class CandidatesRequest:
    """Judge your candidates on your validation bags.

    Attributes:
        site: Who is asked.
        version: Of the last network.
        parameters: The last network, float32 (P,).
        shared_SP: Averages of the shared network at S moments of the run, float32 (S, P).
        turns_done: Turns of the site up to the last one whose update was taken. What the site
            trained after that is after the end.
    """

    site: str
    version: int
    parameters: np.ndarray
    shared_SP: np.ndarray
    turns_done: int


@dataclass(frozen=True)
class EvaluateRequest:
    """Score your test bags.

    Attributes:
        site: Who is asked.
        version: Of the last network.
        mean_metric_C: Mean validation metric of every candidate over the federation.
    """

    site: str
    version: int
    mean_metric_C: np.ndarray


@dataclass(frozen=True)
class CandidateMetrics:
    """Validation metric of a site's candidates.

    Attributes:
        site: Who sent it.
        version: Of the last network.
        metric_OC: One row for each of its O origins, float64; NaN where undefined.
    """

    site: str
    version: int
    metric_OC: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean over the origins where it is defined, float64 (C,); NaN where it is nowhere."""
        defined_OC = ~np.isnan(self.metric_OC)
        totals_C = np.where(defined_OC, self.metric_OC, 0.0).sum(axis=0)
        count_C = defined_OC.sum(axis=0)
        return np.where(count_C > 0, totals_C / np.maximum(count_C, 1), np.nan)

    def to_bytes(self) -> bytes:
        """The message as it leaves the site."""
        return serialise({"version": np.array([self.version]), "candidate_metrics": self.metric_OC})

    @classmethod
    def from_bytes(cls, message: Message, site: str) -> CandidateMetrics:
        """Read a message from a site. Raises ``MessageError`` if it is not one of these."""
        tensors = open_message(message, 8 * MAX_CANDIDATES * MAX_CANDIDATES)
        version = int(expect(tensors, "version", np.int64, (1,))[0])
        shape = tensors["candidate_metrics"].shape if "candidate_metrics" in tensors else (0, 0)
        metric_OC = expect(tensors, "candidate_metrics", np.float64, shape)
        if metric_OC.ndim != 2 or not metric_OC.size or metric_OC.shape[1] > MAX_CANDIDATES:
            raise MessageError(f"candidate metrics have the shape {metric_OC.shape}")
        within(metric_OC[~np.isnan(metric_OC)], 0, 1, "a validation metric")
        return cls(site, version, metric_OC)


@dataclass(frozen=True)
class Scores:
    """Test scores of a site under each readout. Slides and cases are salted hashes.

    Attributes:
        site: Who sent it.
        version: Of the last network.
        validation_metric: Of the last network, mean over origins; None where undefined.
        best_version_O: Version that each of its O origins chose on its validation bags, int64.
        origin_B: Which of the site's origins each bag is from (pooled training has several), int64.
        slide_B, case_B: Opaque numbers, int64.
        whole_case_B: Whether the bag is all slides of a case, or else a slide.
        label_B: Index of class, grade or interval of time, int64.
        time_B, event_B: Follow-up where time is predicted, float64 and bool.
        last_BE, best_BE, mixture_BE: What the task predicts from (``models/tasks.py``) under each
            readout, float32.
    """

    site: str
    version: int
    validation_metric: float | None
    best_version_O: np.ndarray
    origin_B: np.ndarray
    slide_B: np.ndarray
    case_B: np.ndarray
    whole_case_B: np.ndarray
    label_B: np.ndarray
    time_B: np.ndarray
    event_B: np.ndarray
    last_BE: np.ndarray
    best_BE: np.ndarray
    mixture_BE: np.ndarray

    _COLUMNS: ClassVar[tuple[tuple[str, type], ...]] = (
        ("origin_B", np.int64),
        ("slide_B", np.int64),
        ("case_B", np.int64),
        ("whole_case_B", np.bool_),
        ("label_B", np.int64),
        ("time_B", np.float64),
        ("event_B", np.bool_),
    )
    _READOUTS: ClassVar[tuple[str, ...]] = ("last_BE", "best_BE", "mixture_BE")

    @property
    def truth(self) -> Truth:
        """What is true of the bags."""
        return Truth(self.label_B, self.time_B, self.event_B)

    def to_bytes(self) -> bytes:
        """The message as it leaves the site."""
        versions = np.array([self.version, *self.best_version_O])
        known = self.validation_metric
        columns = {name: getattr(self, name).astype(kind) for name, kind in self._COLUMNS}
        columns |= {name: getattr(self, name).astype(np.float32) for name in self._READOUTS}
        metric = np.array([math.nan if known is None else known])
        return serialise({"versions": versions, "validation_metric": metric, **columns})

    @classmethod
    def from_bytes(cls, message: Message, site: str) -> Scores:
        """Read a message from a site. Raises ``MessageError`` if it is not one of scores."""
        tensors = open_message(message, 64 * MAX_BAGS)
        versions = expect(tensors, "versions", np.int64, length(tensors, "versions"))
        num_bags = length(tensors, "label_B")
        columns = {name: expect(tensors, name, kind, num_bags) for name, kind in cls._COLUMNS}
        width = tensors["last_BE"].shape[1:] if "last_BE" in tensors else (0,)
        if len(width) != 1 or not 1 <= width[0] <= MAX_EVIDENCE:
            raise MessageError(f"evidence has the width {width}")
        for name in cls._READOUTS:
            columns[name] = expect(tensors, name, np.float32, (*num_bags, *width))
            within(columns[name], -FLOAT32_MAX, FLOAT32_MAX, "a score")
        origin_B = columns["origin_B"]
        if len(versions) < 2 or ((origin_B < 0) | (origin_B >= len(versions) - 1)).any():
            raise MessageError("a bag is from an origin that is not declared")
        within(columns["label_B"], 0, MAX_CLASSES - 1, "a label")
        within(columns["time_B"], 0, FLOAT32_MAX, "a time")
        within(versions[1:], 0, versions[0], "a best version")
        found = float(expect(tensors, "validation_metric", np.float64, (1,))[0])
        metric = None if math.isnan(found) else found
        if metric is not None:
            within(np.array([metric]), 0, 1, "the validation metric")
        return cls(site, int(versions[0]), metric, versions[1:], **columns)
