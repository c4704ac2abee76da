"""Knobs of a site that joins a finished federation."""

from __future__ import annotations

from dataclasses import dataclass

from rayfed_hn.config.knob import knob


@dataclass(frozen=True)
class OnboardConfig:
    """How a new site tries and fits its networks."""

    labelled: list[int] = knob(
        [0, 1, 2, 4, 8],
        "labelled bags of every class that the curve is drawn over; what leaves no test set or is "
        "more than there is, is left out",
        at_least=0,
    )
    repeats: int = knob(
        5,
        "draws of labelled bags for every point of the curve, tested on one fold after the other",
        at_least=1,
    )
    steps: int = knob(100, "gradient steps of fine-tuning, and of isolated training", at_least=1)
    embedding_steps: int = knob(60, "steps that fit the embedding alone", at_least=1)
    embedding_rate: float = knob(0.05, "Adam's learning rate of the embedding", above=0)
