"""Settings of privacy that cannot go together: what cannot be accounted for is refused."""

from __future__ import annotations

import math
from dataclasses import fields

from rayfed_hn.config import FORMAL, RELEASE_NOTHING, Config, PrivacyConfig
from rayfed_hn.errors import ConfigError

_OF_THE_PAPER = ("noise_scale", "noise_biases", "noise_on")
_FORMAL_ONLY = ("noise_multiplier", "target_epsilon", "release_dim", "budget")


def check_privacy(config: Config) -> None:
    """Raise ``ConfigError`` at the first combination that is impossible, or plainly idle."""
    asked = [config.privacy.at(amount) for amount in config.compare.noise] or [config.privacy]
    each = [pair for privacy in asked for pair in _mechanism(privacy)]
    of_all = [pair for check in _OF_ALL for pair in check(config)]
    for bad, words in (*_sweep(config), *each, *of_all):
        if bad:
            raise ConfigError(words)


def _sweep(config: Config) -> list[tuple[bool, str]]:
    """Amounts of noise that cannot be tried side by side."""
    privacy, noise = config.privacy, config.compare.noise
    if not noise:
        return []
    default, formal = PrivacyConfig(), privacy.mechanism in FORMAL
    (most,) = (f.metadata["at_most"] for f in fields(privacy) if f.name == "target_epsilon")
    return [
        (
            privacy.mechanism == "none",
            "compare.noise: privacy.mechanism=none has none; set paper, site_ldp or slide_dpsgd",
        ),
        (
            not all(math.isfinite(amount) for amount in noise),
            f"compare.noise: got {noise}; give finite numbers",
        ),
        (len(set(noise)) < len(noise), f"compare.noise: {noise} names an amount twice"),
        (
            formal and not all(0 < epsilon <= most for epsilon in noise),
            f"compare.noise: got {noise}, but with privacy.mechanism={privacy.mechanism} its "
            f"values are of privacy.target_epsilon, which is above 0 and at most {most:g}",
        ),
        *(
            (
                getattr(privacy, key) != getattr(default, key),
                f"privacy.{key}: compare.noise says how much noise there is; leave it unset",
            )
            for key in (privacy.amount, "noise_multiplier")
        ),
    ]


def _mechanism(privacy: PrivacyConfig) -> list[tuple[bool, str]]:
    name, default = privacy.mechanism, PrivacyConfig()
    formal = name in FORMAL
    given = [privacy.noise_multiplier is not None, privacy.target_epsilon is not None]
    return [
        *(
            (
                name != "paper" and getattr(privacy, key) != getattr(default, key),
                f"privacy.{key}: is of the paper's noise; with privacy.mechanism={name} leave it "
                "unset",
            )
            for key in _OF_THE_PAPER
        ),
        *(
            (
                not formal and getattr(privacy, key) is not None,
                f"privacy.{key}: privacy.mechanism={name} has no formal guarantee, so that nothing "
                "can be kept to; set privacy.mechanism=site_ldp or slide_dpsgd",
            )
            for key in _FORMAL_ONLY
        ),
        (
            formal and sum(given) != 1,
            f"privacy.mechanism={name}: give privacy.target_epsilon, from which the noise follows, "
            "or privacy.noise_multiplier, from which epsilon does; "
            f"{'not both' if all(given) else 'one is missing'}",
        ),
        (
            privacy.budget is not None
            and privacy.target_epsilon is not None
            and privacy.budget < privacy.target_epsilon,
            f"privacy.budget: got {privacy.budget}, less than the privacy.target_epsilon="
            f"{privacy.target_epsilon} of this run alone; sites would stop before its end",
        ),
    ]


def _replay(config: Config) -> list[tuple[bool, str]]:
    privacy = config.privacy
    noised = privacy.mechanism in FORMAL or privacy.noise_scale > 0
    return [
        (
            config.rounds.replay is not None and noised and privacy.noise_source != "seeded",
            "rounds.replay: repeats a run only if its noise repeats; set "
            "privacy.noise_source=seeded, which the run must have had too",
        )
    ]


def _buffers(config: Config) -> list[tuple[bool, str]]:
    formal = config.privacy.mechanism in FORMAL and config.method.name not in RELEASE_NOTHING
    return [
        (
            formal and config.rounds.buffer_size is not None,
            f"rounds.buffer_size={config.rounds.buffer_size}: fast sites would release more often "
            f"than there are versions; privacy.mechanism={config.privacy.mechanism} accounts for "
            "one release a version, leave it unset",
        )
    ]


def _subspace(config: Config) -> list[tuple[bool, str]]:
    private = config.method.name in ("fedper", "pfedhn_pc")
    return [
        (
            config.privacy.release_dim is not None and private,
            f"privacy.release_dim: mixes all tensors, and method.name={config.method.name} keeps "
            "some at the site; leave it unset, or take another method",
        )
    ]


def _private_steps(config: Config) -> list[tuple[bool, str]]:
    if config.privacy.mechanism != "slide_dpsgd":
        return []
    training = config.training
    why = "privacy.mechanism=slide_dpsgd: accounts for patients that take part by a coin each; "
    return [
        (training.class_balanced, f"{why}set training.class_balanced=false"),
        (
            config.model.standardise == "site",
            f"{why}with model.standardise=site each of them changes the features of all; set it to "
            "shared (whose scale is released apart) or none",
        ),
        (
            config.privacy.unit == "slide" and config.task.unit == "case",
            f"{why}with task.unit=case a bag is a case; set privacy.unit=patient",
        ),
        (training.epochs is not None, f"{why}give training.steps in place of training.epochs"),
        (
            training.patience is not None,
            f"{why}training.patience would stop by private validation bags; leave it unset",
        ),
        (
            training.clip_gradient is not None,
            f"{why}privacy.clip_norm clips every patient's gradient; leave "
            "training.clip_gradient unset",
        ),
        (
            config.hypernetwork.estimate != "none",
            f"{why}hypernetwork.estimate={config.hypernetwork.estimate} trains on halves of the "
            "bags; set it to none",
        ),
    ]


_OF_ALL = (_private_steps, _replay, _buffers, _subspace)
