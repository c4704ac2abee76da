"""``privacy.json`` of a training run, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayfed_hn.reporting.run_files import read_optional


@dataclass(frozen=True)
class SpentBySite:
    """What a site has released.

    Attributes:
        site: Its name.
        cases: Training cases; None where that is not known.
        updates, releases, not_used: Updates that went into versions, what was charged, and what of
            that no version was made from.
        epsilon, clipped, signal_to_noise: None where undefined or withheld.
        stopped_at: Version at which its budget was spent; None if it was not.
    """

    site: str
    cases: int | None
    updates: int
    releases: int
    not_used: int
    epsilon: float | None
    clipped: float | None
    signal_to_noise: float | None
    stopped_at: int | None


@dataclass(frozen=True)
class Signal:
    """Signal to noise.

    Attributes:
        mean, lowest: Of all updates.
        at_most: What it could be at best; None where that is not known.
        by_version: Version, mean and lowest of its updates.
    """

    mean: float
    lowest: float
    at_most: float | None
    by_version: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class Privacy:
    """What a run states of privacy.

    Attributes:
        texts: Sentences of ``privacy.json`` by name (``..._in_words``).
        in_words, warnings: Lists of sentences.
        released, outside: What leaves a site without noise, and what else is not covered.
        adversary: What each can see.
        constants: Of the mechanism.
        amplification: By sampling; None where that is no matter.
        planned: Epsilon, delta, releases and budget; None without guarantee.
        signal: None where there is none, or it was withheld.
        sites: One a hospital.
        mechanism: Its name.
        formal: Whether sites charge what they release.
    """

    texts: Mapping[str, str]
    in_words: tuple[str, ...]
    warnings: tuple[str, ...]
    released: tuple[str, ...]
    outside: tuple[str, ...]
    adversary: Mapping[str, str]
    constants: Mapping[str, Any]
    amplification: str | None
    planned: Mapping[str, Any] | None
    signal: Signal | None
    sites: tuple[SpentBySite, ...]
    mechanism: str
    formal: bool


def read_privacy(folder: Path) -> Privacy | None:
    """Read ``privacy.json`` of a run directory; None if there is none.

    Raises:
        DataError: The file is broken; says what to do.
    """
    return read_optional(folder / "privacy.json", _privacy)


def _privacy(values: Any) -> Privacy:
    names, planned = ("unit", "neighbouring", "mechanism", "noise"), values["planned"]
    if planned is not None:
        planned = {**planned, **{name: float(planned[name]) for name in ("epsilon", "delta")}}
    signal = values["signal_to_noise"]
    return Privacy(
        texts={name: str(values[f"{name}_in_words"]) for name in names},
        in_words=_texts(values["in_words"]),
        warnings=_texts(values["warnings"]),
        released=_texts(values["released_without_noise"]),
        outside=_texts(values["outside"]),
        adversary={str(who): str(sees) for who, sees in values["adversary"].items()},
        constants=dict(values["constants"]),
        amplification=values["amplification"],
        planned=planned,
        signal=None if signal is None else _signal(signal),
        sites=tuple(_site(site) for site in values["sites"]),
        mechanism=str(values["mechanism"]),
        formal=values["unit"] is not None,
    )


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in values)


def _signal(values: Mapping[str, Any]) -> Signal:
    rows = [(int(r["version"]), float(r["mean"]), float(r["lowest"])) for r in values["by_version"]]
    at_most = finite(values["at_most"])
    return Signal(float(values["mean"]), float(values["lowest"]), at_most, tuple(rows))


def _site(values: Mapping[str, Any]) -> SpentBySite:
    cases, stopped = values["num_training_cases"], values["stopped_at"]
    return SpentBySite(
        site=str(values["site"]),
        cases=None if cases is None else int(cases),
        updates=int(values["updates"]),
        releases=int(values["releases"]),
        not_used=int(values["not_used"]),
        epsilon=finite(values["epsilon"]),
        clipped=finite(values["clipped"]),
        signal_to_noise=finite(values["signal_to_noise"]),
        stopped_at=None if stopped is None else int(stopped),
    )


def finite(value: Any) -> float | None:
    """Return a finite number, or None: what is missing is not 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
