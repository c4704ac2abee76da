"""What is searched: every key of ``tune.space`` with the values that it may take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rayfed_hn.config import FORMAL, Config
from rayfed_hn.config.spaces import LISTED, Space, read_space
from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import Knob, known_knobs, read_value

# Sections that decide what is trained; the others say where, on what, and what is made of it.
_SECTIONS = ("model", "training", "method", "hypernetwork", "rounds", "simulation", "privacy")
_FIXED = {
    "rounds.replay": "it follows one run",
    "simulation.durations": "it is a file",
    "simulation.absences": "it is a file",
    "privacy.noise_source": "trials are simulations",
    "privacy.metrics": "trials are judged by validation metrics",
    "privacy.budget": "trials are simulations, which charge no ledger",
}
_DIGITS = 6  # significant ones of what is drawn


@dataclass(frozen=True)
class Dimension:
    """One key and its values.

    Attributes:
        key: Of the configuration.
        kind: grid, choice, uniform or loguniform.
        values: All values, or both ends.
        whole: Whether only whole numbers are drawn.
    """

    key: str
    kind: str
    values: tuple[Any, ...]
    whole: bool = False

    @property
    def listed(self) -> bool:
        """Whether all values are named."""
        return self.kind in LISTED

    @property
    def numeric(self) -> bool:
        """Whether values are numbers, which have an order."""
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)

    def at(self, share: float) -> Any:
        """The value below which so large a share (from 0, below 1) of all draws lies."""
        if self.listed:
            return self.values[int(share * len(self.values))]
        low, high = self.values
        if self.whole and self.kind == "uniform":
            return low + int(share * (high - low + 1))
        if self.kind == "uniform":
            drawn = low + share * (high - low)
        else:
            drawn = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        drawn = round(drawn) if self.whole else float(f"{drawn:.{_DIGITS}g}")
        return min(max(drawn, low), high)


def dimensions(config: Config) -> tuple[Dimension, ...]:
    """Every key of ``tune.space``, by name: its place in a file changes nothing.

    Raises:
        ConfigError: There is none, one cannot be searched, or a value is not allowed.
    """
    if not config.tune.space:
        raise ConfigError(
            "tune.space: names nothing to search; give some keys, such as "
            "tune.space.privacy.noise_scale=loguniform(0.01,1)"
        )
    known = known_knobs()
    return tuple(
        _dimension(known[key], read_space(text)) for key, text in sorted(config.tune.space.items())
    )


def _dimension(knob: Knob, space: Space) -> Dimension:
    key = f"tune.space.{knob.key}"
    section = knob.key.split(".")[0]
    why = _FIXED.get(knob.key)
    if section not in _SECTIONS and not knob.key.startswith("data.max_"):
        why = "training does not depend on it"
    if knob.type.startswith("list"):
        why = "lists are not searched"
    if why is not None:
        raise ConfigError(f"{key}: cannot be searched ({why}); leave it out")
    if space.kind not in LISTED and knob.type not in ("number", "whole number"):
        raise ConfigError(f"{key}: got {space}, but {knob.key} is {knob.type}; use choice(...)")
    items = [None if item == "null" else item for item in space.items]
    values = tuple(read_value(knob.key, item, f"in {key}") for item in items)
    if len(set(map(repr, values))) < len(values):
        raise ConfigError(f"{key}: got {space}, which names a value twice")
    if space.kind not in LISTED:
        _check_ends(key, space, values)
    return Dimension(knob.key, space.kind, values, knob.type == "whole number")


def _check_ends(key: str, space: Space, values: tuple[Any, ...]) -> None:
    if None in values:
        raise ConfigError(f"{key}: got {space}; the ends of a range are numbers")
    low, high = values
    if low > high:
        raise ConfigError(f"{key}: got {space}; the lower end comes first")
    if space.kind == "loguniform" and low <= 0:
        raise ConfigError(f"{key}: got {space}; loguniform needs ends above 0, or use uniform")


def check_search(config: Config, found: tuple[Dimension, ...]) -> None:
    """Refuse searches that cannot work.

    Raises:
        ConfigError: Names the key and the remedy.
    """
    searched = {dimension.key: dimension for dimension in found}
    tune, privacy = config.tune, config.privacy
    ranges = [d.key for d in found if d.kind != "grid"]
    if tune.search == "grid" and ranges:
        raise ConfigError(
            f"tune.space.{ranges[0]}: tune.search=grid tries all combinations of grid(...), and "
            "this is none; list its values so, or set tune.search=random"
        )
    if tune.scheduler == "asha" and "rounds.num_versions" in searched:
        raise ConfigError(
            "tune.space.rounds.num_versions: tune.scheduler=asha compares trials at equal "
            "versions; set tune.scheduler=none"
        )
    if tune.folds > config.data.folds:
        raise ConfigError(
            f"tune.folds: got {tune.folds}, of data.folds={config.data.folds}; give at most so many"
        )
    mechanisms = _taken(searched, "privacy.mechanism", privacy.mechanism)
    for bad, words in _of_objectives(config, mechanisms):
        if bad:
            raise ConfigError(words)


def _of_objectives(config: Config, mechanisms: set[str]) -> list[tuple[bool, str]]:
    tune, privacy = config.tune, config.privacy
    return [
        (
            not tune.objectives or tune.objectives[0] != "validation_metric",
            f"tune.objectives: got {tune.objectives}; validation_metric comes first",
        ),
        (len(tune.objectives) > 2, f"tune.objectives: got {tune.objectives}; give at most two"),
        (
            "epsilon" in tune.objectives and not mechanisms <= set(FORMAL),
            f"tune.objectives: privacy.mechanism={privacy.mechanism} has no epsilon; set it to "
            f"{' or '.join(FORMAL)}, or give noise_scale",
        ),
        (
            "noise_scale" in tune.objectives and mechanisms != {"paper"},
            f"tune.objectives: noise_scale is of privacy.mechanism=paper, which is "
            f"{privacy.mechanism}; give epsilon",
        ),
        (
            privacy.metrics == "withheld",
            "privacy.metrics: withheld, but trials are judged by validation metrics; leave it "
            "unset, or choose settings by other means",
        ),
        (
            privacy.noise_source == "os",
            "privacy.noise_source: os charges the ledgers of the sites, and trials are "
            "simulations; leave it unset",
        ),
        (
            config.rounds.replay is not None,
            "rounds.replay: follows one run, and tune makes many; use train",
        ),
    ]


def _taken(searched: Mapping[str, Dimension], key: str, configured: Any) -> set[Any]:
    """All values that a key has in some trial."""
    return set(searched[key].values) if key in searched else {configured}
