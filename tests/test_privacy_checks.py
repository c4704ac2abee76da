"""Settings of privacy that cannot be kept are refused before anything starts."""

from __future__ import annotations

import pytest

from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import load

LDP = ["privacy.mechanism=site_ldp"]
SGD = [
    "privacy.mechanism=slide_dpsgd",
    "privacy.target_epsilon=8",
    "training.class_balanced=false",
]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["privacy.target_epsilon=8"], r"privacy\.target_epsilon: privacy\.mechanism=paper has no"),
        (["privacy.budget=8"], r"privacy\.budget: .* has no formal guarantee"),
        (["privacy.noise_multiplier=1"], r"privacy\.noise_multiplier: .* no formal guarantee"),
        (["privacy.mechanism=none", "privacy.noise_scale=.1"], r"privacy\.noise_scale: is of the"),
        ([*LDP, "privacy.target_epsilon=1", "privacy.noise_on=update"], r"privacy\.noise_on: is"),
        (LDP, r"give privacy\.target_epsilon, .* one is missing"),
        ([*LDP, "privacy.target_epsilon=1", "privacy.noise_multiplier=1"], "not both"),
        ([*LDP, "privacy.target_epsilon=3", "privacy.budget=2"], r"privacy\.budget: got 2"),
        (SGD[:2], r"set training\.class_balanced=false"),
        ([*SGD, "model.standardise=site"], r"model\.standardise=site each of them changes"),
        ([*SGD, "privacy.unit=slide", "task.unit=case"], r"set privacy\.unit=patient"),
        ([*SGD, "rounds.buffer_size=2"], r"rounds\.buffer_size=2: fast sites would release"),
        (
            [*LDP, "privacy.target_epsilon=1", "rounds.buffer_size=1"],
            r"rounds\.buffer_size=1: fast",
        ),
        ([*SGD, "training.epochs=2"], r"give training\.steps in place of training\.epochs"),
        ([*SGD, "training.patience=2"], r"training\.patience would stop by private"),
        ([*SGD, "training.clip_gradient=1"], r"leave training\.clip_gradient unset"),
        ([*SGD, "hypernetwork.estimate=rho"], r"hypernetwork\.estimate=rho trains on halves"),
        (
            [*LDP, "privacy.target_epsilon=1", "privacy.release_dim=9", "method.name=fedper"],
            "mixes all",
        ),
        (["privacy.release_dim=9"], r"privacy\.release_dim: .* no formal"),
        (["rounds.replay=x", "privacy.noise_scale=.1"], r"rounds\.replay: .* noise repeats"),
    ],
)
def test_what_cannot_be_kept_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(None, words)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["privacy.noise_scale=.1", "privacy.noise_biases=true", "privacy.noise_on=update"],
        ["privacy.mechanism=none"],
        [*LDP, "privacy.noise_multiplier=2", "privacy.budget=3"],
        [*LDP, "privacy.target_epsilon=2", "privacy.budget=3"],
        SGD,
        ["rounds.replay=x", "privacy.noise_scale=.1", "privacy.noise_source=seeded"],
    ],
)
def test_what_can_be_kept_is_taken(words: list[str]) -> None:
    load(None, words)
