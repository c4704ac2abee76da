"""What a run promises of the data behind it: mechanism, noise, epsilon, and what lies outside."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

from rayfed_hn.config import FORMAL, RELEASE_NOTHING, Config, PrivacyConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.models.subspace import Subspace
from rayfed_hn.models.tasks import Survival, Task
from rayfed_hn.privacy.accounting import noise_for
from rayfed_hn.privacy.mechanisms import (
    Mechanism,
    NoNoise,
    PaperNoise,
    SiteGaussian,
    TrainedPrivately,
    promised,
)
from rayfed_hn.seeds import derive


def noise_multiplier(config: Config) -> float | None:
    """As configured, or such that ``privacy.target_epsilon`` is kept; None without guarantee.

    Every version is one release of a site, and no more: it has at most one request at a time.

    Raises:
        ConfigError: Neither is given, or no noise is right.
    """
    privacy = config.privacy
    if config.method.name in RELEASE_NOTHING:
        return None
    if privacy.mechanism not in FORMAL or privacy.noise_multiplier is not None:
        return privacy.noise_multiplier
    if privacy.target_epsilon is None:  # as it may be where compare.noise gives it
        raise ConfigError(
            f"privacy.target_epsilon: missing; privacy.mechanism={privacy.mechanism} needs it, or "
            "privacy.noise_multiplier"
        )
    releases = config.rounds.num_versions
    if privacy.mechanism == "site_ldp":
        return noise_for(privacy.target_epsilon, privacy.target_delta, releases=releases)
    return noise_for(
        privacy.target_epsilon,
        privacy.target_delta,
        releases=releases,
        steps=config.training.steps,
        rate=privacy.sampling_rate,
    )


def make_mechanism(privacy: PrivacyConfig, multiplier: float | None) -> Mechanism:
    """What sites do before they release anything.

    Args:
        privacy: As configured.
        multiplier: From ``noise_multiplier``.
    """
    if privacy.mechanism == "site_ldp":
        assert multiplier is not None
        return SiteGaussian(privacy.clip_norm, multiplier, privacy.neighbouring)
    if privacy.mechanism == "slide_dpsgd":
        assert multiplier is not None
        return TrainedPrivately(privacy.unit, privacy.clip_norm, multiplier, privacy.sampling_rate)
    if privacy.noise_scale > 0:
        return PaperNoise(privacy.noise_scale, privacy.noise_biases, privacy.noise_on)
    return NoNoise()


def make_subspace(config: Config, num_parameters: int) -> Subspace | None:
    """Where sites train, if they release few numbers; the same for everybody, and not secret.

    Raises:
        ConfigError: It has more dimensions than the network.
    """
    dim = config.privacy.release_dim
    if dim is None or config.method.name in RELEASE_NOTHING:
        return None
    if dim > num_parameters:
        raise ConfigError(
            f"privacy.release_dim: got {dim:,}, but the network has {num_parameters:,} parameters; "
            "give fewer, or leave it unset"
        )
    return _subspace(num_parameters, dim, derive(config.run.seed, "subspace"))


@lru_cache(maxsize=2)
def _subspace(num_parameters: int, dim: int, seed: int) -> Subspace:
    """One for all sites of a process."""
    return Subspace(num_parameters, dim, seed)


def promise(
    config: Config,
    mechanism: Mechanism,
    source: Literal["seeded", "os"],
    num_parameters: int,
    most_units: int,
) -> dict[str, Any]:
    """What a reader of the run is told about its mechanism, JSON-ready.

    Args:
        config: Of the run.
        mechanism: What sites do.
        source: Of their noise.
        num_parameters: P.
        most_units: Patients or slides that the largest site trains on, at most.
    """
    told: dict[str, Any] = dict(mechanism.describe())
    privacy = config.privacy
    if told["mechanism"] == "none":
        return told
    told |= {"noise_source": source, "metrics": "withheld" if privacy.withholds else "released"}
    if mechanism.spent(config.training.steps) is None:
        return told
    releases, delta = config.rounds.num_versions, privacy.target_delta
    epsilon = promised(mechanism, releases=releases, steps=config.training.steps, delta=delta)
    guarantee = f"({epsilon:.3g}, {delta:g})-DP of every {told['unit']}"
    stated = math.isfinite(epsilon)  # beyond LARGEST_EPSILON there is nothing to state
    told |= {
        "formal_guarantee": (
            f"{guarantee} after {releases} releases of a site" if stated else "none"
        ),
        "epsilon": epsilon if stated else None,
        "delta": delta,
        "releases": releases,
        "budget": privacy.budget,
        "release_dim": privacy.release_dim,
    }
    length = math.sqrt(privacy.release_dim or num_parameters)
    if isinstance(mechanism, SiteGaussian):
        # Whatever a site learned, this much of it is left at best.
        told["signal_to_noise_at_most"] = mechanism.clip_norm / (mechanism.deviation * length)
    elif isinstance(mechanism, TrainedPrivately):
        # In a step with as many as are expected, if all gradients are long and point the same way.
        expected = max(1.0, mechanism.sampling_rate * most_units)
        told["signal_to_noise_at_most"] = expected / (mechanism.multiplier * length)
    return told


def outside(
    config: Config, task: Task, standardise: str, *, shares: bool, apart: bool = False
) -> list[str]:
    """What leaves a hospital without noise beside its networks, in words.

    Args:
        config: Of the run.
        task: Its task.
        standardise: ``model.standardise``, as it applies to the method.
        shares: Whether anything that was learned leaves a hospital.
        apart: Whether sites are elsewhere, and introduce themselves.
    """
    if not shares:
        return [
            "in this simulation the networks of this baseline, their losses, metrics and test "
            "scores pass through the server"
        ]
    mixes = config.evaluation.readout == "mixture"
    told = {
        "before the run, number of its bags of every class and of those that are left out or "
        "cannot be read, and digests of its bags and of how they were made": apart,
        "once, mean and variance of every feature over its training bags": standardise == "shared",
        "once, number and quantiles of the times of events of its training and validation cases "
        "(of few events these are the times themselves; task.cuts asks for none)": (
            isinstance(task, Survival) and not config.task.cuts
        ),
        "with every update, its training loss, and validation loss and metric": (
            not config.privacy.withholds
        ),
        "with every update, signal-to-noise and share of what was clipped": (
            not config.privacy.withholds
            and (config.privacy.mechanism in FORMAL or config.privacy.noise_scale > 0)
        ),
        "at the end, validation metric of each of six candidate networks": (
            mixes and not config.privacy.withholds
        ),
        "at the end, validation metric of its last network": (not config.privacy.withholds),
        "at the end, which version was the best one on its validation bags": True,
        "with every update, how many steps it took until its validation loss rose": (
            config.training.patience is not None
        ),
        "numbers of its training cases and of its training, validation and test bags, and which "
        "labels it has": True,
        "at the end, truth of every test bag under salted hashes, and its predictions by networks "
        "that were mixed, chosen or tuned on the bags of the site, without noise": True,
    }
    return [words for words, holds in told.items() if holds]
