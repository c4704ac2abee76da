"""Which settings are tried: it follows from the run's seed and the number of the trial alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import check, value_of
from rayfed_hn.seeds import derive
from rayfed_hn.tuning.dimensions import Dimension

_PATIENCE = 50  # draws for every trial: a small space may have fewer settings than are asked for
MAX_TRIALS = 10_000


@dataclass(frozen=True)
class Trial:
    """One setting that is tried.

    Attributes:
        number: From 0.
        settings: Value of every key that is searched.
    """

    number: int
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """File-name friendly."""
        return f"trial-{self.number:04}"


def planned(config: Config, found: Sequence[Dimension]) -> list[Trial]:
    """All trials of a search whose settings do not depend on results.

    Raises:
        ConfigError: A setting is impossible, or there are too many.
    """
    grid = config.tune.search == "grid"
    drawn = _grid(found) if grid else _random(found, config.tune.num_trials, config.run.seed)
    trials = [Trial(number, settings) for number, settings in enumerate(drawn)]
    for trial in trials:
        check_trial(config, trial)
    return trials


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The same configuration with other values of some keys; whether they may be is not asked."""
    for key, value in values.items():
        section, name = key.split(".")
        changed = replace(getattr(config, section), **{name: value})
        config = replace(config, **{section: changed})
    return config


def check_trial(config: Config, trial: Trial) -> None:
    """Refuse settings that are impossible together.

    Raises:
        ConfigError: Names the settings.
    """
    try:
        check(with_values(config, trial.settings))
    except ConfigError as error:
        raise ConfigError(f"tune.space: {told(trial.settings)} cannot be tried: {error}") from None


def told(settings: Mapping[str, Any]) -> str:
    """Settings as words of the command line."""
    return " ".join(f"{key}={shown(value)}" for key, value in settings.items())


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _grid(found: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    number = int(np.prod([len(d.values) for d in found], dtype=object))
    if number > MAX_TRIALS:
        raise ConfigError(
            f"tune.search: grid makes {number:,} trials; name fewer values, or set "
            "tune.search=random"
        )
    for values in itertools.product(*(d.values for d in found)):
        yield dict(zip((d.key for d in found), values, strict=True))


def _random(found: Sequence[Dimension], num_trials: int, seed: int) -> Iterator[dict[str, Any]]:
    """Different settings; fewer than asked for where the space has no more."""
    seen: set[str] = set()
    for draw in range(_PATIENCE * num_trials):
        settings = {d.key: _draw(d, seed, draw) for d in found}
        if repr(settings) not in seen:
            seen.add(repr(settings))
            yield settings
        if len(seen) == num_trials:
            return


def _draw(dimension: Dimension, seed: int, number: int) -> Any:
    rng = np.random.default_rng(derive(seed, "tune", dimension.key, number))
    return dimension.at(float(rng.random()))


def trial_config(config: Config, settings: Mapping[str, Any]) -> Config:
    """What a trial trains with.

    The last network counts, and the validation metrics of slide_dpsgd are told: looking at them is
    outside of every guarantee, and nothing is released by a simulation.
    """
    changed = with_values(config, settings)
    return replace(
        changed,
        evaluation=replace(changed.evaluation, readout="last"),
        privacy=replace(changed.privacy, metrics="released"),
    )


def divisions(config: Config) -> list[tuple[int, int]]:
    """Seeds and folds that every trial is run on."""
    return _pairs(config, config.run.seed, config.tune.seeds)


def final_divisions(config: Config) -> list[tuple[int, int]]:
    """Seeds that no trial has seen, with as many folds."""
    return _pairs(config, config.run.seed + config.tune.seeds, config.tune.final_seeds)


def _pairs(config: Config, first: int, number: int) -> list[tuple[int, int]]:
    return [(first + seed, fold) for seed in range(number) for fold in range(config.tune.folds)]


def on_division(config: Config, seed: int, fold: int) -> Config:
    """The same training on another division of the cases."""
    return replace(config, run=replace(config.run, seed=seed), data=replace(config.data, fold=fold))


def tuned(config: Config, settings: Mapping[str, Any]) -> Config:
    """A configuration for ``train`` with these settings: no search, and no directory yet."""
    changed = with_values(config, settings)
    plain = type(config)()
    return replace(changed, tune=plain.tune, run=replace(changed.run, dir=None, resume=False))


def configured(config: Config, best: Mapping[str, Any]) -> dict[str, Any]:
    """What the best setting is measured against: as configured, but for the same privacy."""
    return {
        key: value if key.startswith("privacy.") else value_of(config, key)
        for key, value in best.items()
    }
