"""Knobs of what is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rayfed_hn.config.knob import knob

MAX_CLASSES = 64  # or grades, or intervals of time: what fits into a message of scores


@dataclass(frozen=True)
class TaskConfig:
    """What is predicted of a slide, or of a case."""

    kind: Literal["binary", "multiclass", "ordinal", "survival"] = knob(
        "binary",
        "binary: two labels (AUC); multiclass: several that exclude each other (mean one-versus-"
        "rest AUC); ordinal: grades in order (Cohen's kappa, quadratic weights); survival: columns "
        "time and event of the manifest (concordance index)",
    )
    classes: list[str] = knob(
        [],
        "labels in use, grades from low to high; bags with others are left out and said (default: "
        "all that the bags have, in alphabetical order, numbers in numerical)",
    )
    num_bins: int = knob(
        4,
        "survival: intervals that time is cut into, at quantiles of event times",
        at_least=2,
        at_most=MAX_CLASSES,
    )
    cuts: list[float] = knob(
        [], "survival: times to cut at, in place of task.num_bins, in the manifest's unit"
    )
    uncensored_weight: float = knob(
        0.15,
        "survival: share of the loss that only cases with an event have (HistoFL's alpha)",
        at_least=0,
        at_most=1,
    )
    unit: Literal["slide", "case"] = knob(
        "slide",
        "slide: a bag is a slide, and a case is predicted by the mean of its slides' logits; case: "
        "a bag is the union of the slides of a case. Metrics are reported of both",
    )
