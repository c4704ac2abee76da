"""Federations of as many sites as one likes, which draw their bags from one pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from rayfed_hn.config import RELEASE_NOTHING, Config, ScaleConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.data import SiteBag, SiteData
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.promises import noise_multiplier
from rayfed_hn.federation.virtual_pool import Pool
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.seeds import derive

EMBEDDING_DIM = 16  # unless it is given: one per site would keep a network per site
MAX_SITE_BYTES = 8 * 2**30  # of what all sites remember between versions
MOMENTS = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2}


@dataclass(frozen=True)
class VirtualPlan(Plan):
    """A plan whose sites exist in so far as they are asked.

    Attributes:
        pool: What their bags are drawn from.
    """

    pool: Pool

    def site_data(self, name: str) -> SiteData:
        """The bags of a site, the same whoever asks, and in whatever order.

        Only sites that are tested have test bags; none has any for validation.
        """
        number, count = int(name.removeprefix("site-")), self.num_bags[name][0]
        drawn = self._draw(self._rng("virtual site", name), number, count)
        test: Sequence[int] = ()
        if name in self.tested:
            test = self._draw_test(self._rng("virtual test", name), number)
        return SiteData(name, (name,), self._bags(drawn.tolist()), (), self._bags(test))

    @cached_property
    def tested(self) -> tuple[str, ...]:
        """The sites whose last networks are tested: as many as asked for, drawn evenly."""
        count = min(self.config.scale.test_sites, len(self.hospitals))
        rng = self._rng("tested sites", str(len(self.hospitals)))
        drawn = rng.choice(len(self.hospitals), count, replace=False)
        return tuple(self.hospitals[number] for number in sorted(drawn.tolist()))

    def _rng(self, purpose: str, name: str) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(derive(self.config.run.seed, purpose, name)))

    def _bags(self, drawn: Sequence[int]) -> tuple[SiteBag, ...]:
        # Sites that share nothing share no scale: each has its own.
        scale = self.pool.scale if self.config.model.standardise == "none" else None
        labels = self.pool.labels
        return tuple(
            SiteBag(self._features[i], labels[i], slide=place, case=place, standardisation=scale)
            for place, i in enumerate(drawn)
        )

    def _draw(self, rng: np.random.Generator, number: int, count: int) -> np.ndarray:
        """Training bags, some of them more than once."""
        scale, pool = self.config.scale, np.array(self.pool.training)
        if scale.partition == "natural":
            return rng.choice(self._of_origin(pool, number), count)
        if scale.partition == "size":
            return rng.choice(pool, count)
        labels = np.array(self.pool.labels)[pool]
        classes = np.unique(labels)
        share = rng.dirichlet([scale.alpha] * len(classes))
        wanted = rng.choice(classes, count, p=share)
        return np.array([rng.choice(pool[labels == label]) for label in wanted])

    def _draw_test(self, rng: np.random.Generator, number: int) -> list[int]:
        """Test bags, none twice, and as many of every class.

        How frequent classes are at a site does not matter to how well they are told apart, and a
        site of one class could not be tested at all.
        """
        pool, labels = np.array(self.pool.testing, int), np.array(self.pool.labels)
        if self.config.scale.partition == "natural":
            pool = self._of_origin(pool, number)
        each = self.config.scale.test_bags // max(1, len(self.task.names))
        drawn: list[int] = []
        for label in np.unique(labels[pool]):
            drawn += rng.permutation(pool[labels[pool] == label])[: max(1, each)].tolist()
        return drawn

    def _of_origin(self, pool: np.ndarray, number: int) -> np.ndarray:
        """Those of the real site that a virtual one is like."""
        origins = np.array(self.pool.origins)
        return pool[origins[pool] == number % len(self.pool.hospitals)]

    @cached_property
    def _features(self) -> Sequence[np.ndarray]:
        return self.pool.open()

    def _ground(self, participant: str) -> Path | None:
        """Virtual sites have no ground of their own."""
        return None

    def check(self) -> None:
        """As of a plan; and refuse what the sites could not remember.

        Raises:
            ConfigError: Names the key and the remedy.
        """
        super().check()
        config, rounds = self.config, self.config.rounds
        kept, why = 0, []
        if config.evaluation.readout == "mixture":
            kept, why = kept + 3, [*why, "scale.readout=mixture"]
        if config.training.keep_optimiser:
            kept += MOMENTS[config.training.optimiser]
            why = [*why, "training.keep_optimiser=true"]
        asked = min(len(self.hospitals), (rounds.cohort_size or 1) * rounds.num_versions)
        needed = 2 * kept * asked * 4 * ParameterLayout.of(self.model()).size  # of two turns
        if needed > MAX_SITE_BYTES:
            raise ConfigError(
                f"{' and '.join(why)}: {asked:,} of {len(self.hospitals):,} sites would remember "
                f"{2 * kept} vectors each, {needed / 2**30:.0f} GiB; at most "
                f"{MAX_SITE_BYTES / 2**30:.0f} GiB are allowed. Do without, or use fewer sites in "
                "scale.sites, or a smaller scale.cohort_size or scale.num_versions"
            )


def virtual_plan(config: Config, pool: Pool, method: str, num_sites: int) -> VirtualPlan:
    """One step of the ladder.

    Raises:
        ConfigError: It would take too much memory, or is no federation of virtual sites.
    """
    if config.privacy.noise_source == "os":
        raise ConfigError(
            "privacy.noise_source: os charges ledgers beside the bags, and virtual sites have "
            "neither; leave it unset"
        )
    if config.hypernetwork.estimate != "none":
        raise ConfigError(
            f"hypernetwork.estimate: got {config.hypernetwork.estimate}, which compares all sites "
            "at once; scale needs none, and hypernetwork.rho"
        )
    names = tuple(f"site-{number:05d}" for number in range(num_sites))
    config = _settings(config, method, num_sites)
    plan = VirtualPlan(
        hospitals=names,
        set_aside=(),
        task=pool.task,
        feature_dim=pool.feature_dim,
        num_bags={
            name: (count, 0, 0)
            for name, count in zip(names, _sizes(config, pool, num_sites), strict=True)
        },
        num_unnamed=0,
        digest="virtual",
        notes=(),
        config=config,
        root=Path(),
        noise_multiplier=noise_multiplier(config),
        pool=pool,
    )
    plan.check()
    return plan


def _settings(config: Config, method: str, num_sites: int) -> Config:
    """The configuration of a run of so many sites."""
    scale, knobs = config.scale, config.hypernetwork
    rounds = replace(
        config.rounds,
        num_versions=scale.num_versions,
        cohort_size=min(scale.cohort_size, num_sites),
    )
    return replace(
        config,
        method=replace(config.method, name=method),
        rounds=rounds,
        hypernetwork=replace(knobs, embedding_dim=knobs.embedding_dim or EMBEDDING_DIM),
        training=replace(config.training, steps=scale.steps, epochs=None),
        model=replace(config.model, standardise=_standardise(config, method)),
        evaluation=replace(config.evaluation, readout=scale.readout),
    )


def _standardise(config: Config, method: str) -> Literal["site", "none"]:
    """What sites do themselves.

    To agree would ask every one of them before the first version. The pool's scale is that of the
    real sites, and synthetic features are on one already.
    """
    alone = config.model.standardise == "shared" and method in RELEASE_NOTHING
    real = config.data.bags is not None
    return "site" if config.model.standardise == "site" or (alone and real) else "none"


def _sizes(config: Config, pool: Pool, num_sites: int) -> list[int]:
    scale = config.scale
    if scale.partition == "natural":
        origins = np.array(pool.origins)[list(pool.training)]
        counts = np.bincount(origins, minlength=len(pool.hospitals))
        return [int(counts[number % len(counts)]) for number in range(num_sites)]
    if scale.partition == "dirichlet":
        return [scale.bags_per_site] * num_sites
    return _log_normal(scale, num_sites, config.run.seed)


def _log_normal(scale: ScaleConfig, num_sites: int, seed: int) -> list[int]:
    """Log-normal numbers with the mean ``scale.bags_per_site``, at least 1."""
    rng = np.random.Generator(np.random.Philox(derive(seed, "sizes of sites")))
    factors = rng.lognormal(-(scale.spread**2) / 2, scale.spread, num_sites)
    return np.maximum(1, np.rint(scale.bags_per_site * factors)).astype(int).tolist()
