"""Which settings are tried: they follow from run.seed and the number of the trial alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import load, value_of
from rayfed_hn.tuning.dimensions import Dimension, dimensions
from rayfed_hn.tuning.trials import (
    _random,
    configured,
    divisions,
    final_divisions,
    planned,
    trial_config,
    tuned,
    with_values,
)

SPACE = {
    "privacy.noise_scale": "loguniform(0.01, 1)",
    "training.optimiser": "choice(adam, sgd)",
    "hypernetwork.embedding_dim": "uniform(2, 9)",
}
BASE = load()


def config(order: tuple[str, ...] = tuple(SPACE), seed: int = 0, num_trials: int = 8) -> Config:
    tune = replace(BASE.tune, space={k: SPACE[k] for k in order}, num_trials=num_trials)
    return replace(BASE, tune=tune, run=replace(BASE.run, seed=seed))


def settings(config: Config) -> list[dict]:
    return [dict(trial.settings) for trial in planned(config, dimensions(config))]


@pytest.mark.parametrize("order", list(itertools.permutations(SPACE)))
def test_the_place_of_a_key_in_a_file_changes_nothing(order: tuple[str, ...]) -> None:
    assert settings(config(order)) == settings(config())


@pytest.mark.parametrize(("seed", "num"), [(0, 1), (0, 5), (3, 2)])
def test_fewer_trials_are_the_first_of_more(seed: int, num: int) -> None:
    assert settings(config(seed=seed, num_trials=num)) == settings(config(seed=seed))[:num]


def test_other_keys_change_nothing_of_one_key() -> None:
    alone = [s["privacy.noise_scale"] for s in settings(config(("privacy.noise_scale",)))]
    assert alone == [s["privacy.noise_scale"] for s in settings(config())]


def test_keys_are_drawn_apart_from_each_other() -> None:
    found = [Dimension(f"a.{name}", "uniform", (0.0, 1.0)) for name in "xy"]
    drawn = [tuple(settings.values()) for settings in _random(found, 64, 0)]
    assert abs(np.corrcoef(np.array(drawn).T)[0, 1]) < 0.3


def test_seeds_and_trials_differ() -> None:
    found = settings(config()) + settings(config(seed=1))
    assert len({repr(s) for s in found}) == len(found)


def test_a_small_space_has_no_setting_twice() -> None:
    found = settings(config(("training.optimiser",)))
    assert sorted(s["training.optimiser"] for s in found) == ["adam", "sgd"]


def test_a_grid_is_all_combinations_once() -> None:
    words = ["tune.search=grid", "tune.num_trials=1", "tune.space.training.steps=grid(1, 2, 3)"]
    found = settings(load(None, [*words, "tune.space.training.optimiser=grid(adam, sgd)"]))
    assert [tuple(s.values()) for s in found] == list(itertools.product(("adam", "sgd"), (1, 2, 3)))


def test_a_grid_that_is_too_large_is_refused() -> None:
    found = [Dimension(f"a.{name}", "grid", tuple(range(101))) for name in "xy"]
    asked = replace(BASE, tune=replace(BASE.tune, search="grid"))
    with pytest.raises(ConfigError, match="grid makes 10,201 trials"):
        planned(asked, found)


def test_settings_that_are_impossible_together_are_refused_before_anything_starts() -> None:
    words = ["tune.search=grid", "tune.space.privacy.mechanism=grid(paper, none)"]
    asked = load(None, [*words, "tune.space.privacy.noise_scale=grid(0, 0.1)"])
    with pytest.raises(ConfigError) as error:
        settings(asked)
    assert "privacy.mechanism=none privacy.noise_scale=0.1 cannot be tried" in str(error.value)


def test_no_seed_of_the_search_is_one_of_the_end() -> None:
    asked = load(None, ["tune.seeds=2", "tune.final_seeds=3", "tune.folds=2", "run.seed=5"])
    assert divisions(asked) == [(5, 0), (5, 1), (6, 0), (6, 1)]
    assert {seed for seed, _ in final_divisions(asked)} == {7, 8, 9}
    assert not set(divisions(asked)) & set(final_divisions(asked))


def test_what_is_tuned_is_a_configuration_without_a_search() -> None:
    asked = replace(config(), run=replace(BASE.run, dir="runs/x", resume=True, seed=4))
    best = settings(asked)[0]
    found = tuned(asked, best)
    assert (found.tune, found.run.dir, found.run.resume) == (BASE.tune, None, False)
    assert {key: value_of(found, key) for key in best} == best
    assert found.run.seed == 4
    assert found.evaluation == BASE.evaluation  # as asked for, whatever trials are judged by
    assert trial_config(asked, best).evaluation.readout == "last"


def test_the_configured_setting_releases_what_the_best_one_does() -> None:
    best = {"privacy.noise_scale": 0.5, "training.optimiser": "sgd"}
    assert configured(BASE, best) == {"privacy.noise_scale": 0.5, "training.optimiser": "adam"}


def test_values_are_put_where_they_belong() -> None:
    found = with_values(BASE, {"privacy.noise_scale": 0.5, "privacy.noise_biases": True})
    assert (found.privacy.noise_scale, found.privacy.noise_biases) == (0.5, True)
    assert replace(found, privacy=BASE.privacy) == BASE
