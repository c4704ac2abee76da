"""Who is asked when, and what makes a version: the settings of the one loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rayfed_hn.config import Config, RoundsConfig
from rayfed_hn.seeds import derive


def kept_turns(config: Config) -> int:
    """Turns of which a site keeps what it knew and what it sent, since the server may go back.

    It may go back ``run.keep_commits``. One turn more is in flight at the oldest commit, and needs
    what the site knew before.
    """
    return _turns(config, config.run.keep_commits)


def most_turns(config: Config) -> int:
    """Turns that a site may have in a run, with those of versions that had to be made again."""
    return _turns(config, config.rounds.num_versions + config.run.keep_commits)


def turns_between(config: Config) -> int:
    """Turns that a site may have between two versions: updates of one, and one that came late."""
    return (config.rounds.buffer_size or 1) + 1


def _turns(config: Config, versions: int) -> int:
    """Of so many versions, with as many refused updates as there may be in a row."""
    return versions * turns_between(config) + config.rounds.max_refusals + 2


@dataclass(frozen=True)
class Schedule:
    """Synchronous, semi-synchronous and asynchronous rounds differ in these numbers only.

    Attributes:
        config: ``rounds``.
        sizes: Training bags of every site.
        seed: The run's.
    """

    config: RoundsConfig
    sizes: Mapping[str, int]
    seed: int

    @property
    def synchronous(self) -> bool:
        """Whether a version waits for everybody who was asked (or for its deadline)."""
        return self.config.buffer_size is None

    @property
    def waits(self) -> bool:
        """Whether a version waits for everybody who was asked, however long it takes."""
        return self.synchronous and self.config.deadline is None

    def choose(self, idle: Sequence[str], num_in_flight: int, draw: int) -> list[str]:
        """Which of the idle sites to ask now.

        Args:
            idle: Sites that could be asked, sorted.
            num_in_flight: Sites that are at work.
            draw: Requests made before, so that every choice is drawn anew and repeats.
        """
        limit = self.config.cohort_size or len(self.sizes)
        places = min(len(idle), limit - num_in_flight)
        if places <= 0:
            return []
        if places == len(idle):
            return list(idle)
        if self.config.sampling == "in_order":
            ring = sorted(self.sizes)
            start = draw % len(ring)
            turn = [site for site in ring[start:] + ring[:start] if site in idle]
            return sorted(turn[:places])
        rng = np.random.Generator(np.random.Philox(derive(self.seed, "cohort", draw)))
        share = None
        if self.config.sampling == "by_size":
            bags = np.array([self.sizes[site] for site in idle], float)
            share = bags / bags.sum()
        chosen: list[int] = rng.choice(len(idle), size=places, replace=False, p=share).tolist()
        return [idle[place] for place in sorted(chosen)]

    def discount(self, staleness: int) -> float:
        """s(tau) = (1 + tau)^-a (Xie et al. 2019, polynomial; FedBuff uses a = 1/2)."""
        return float((1 + staleness) ** -self.config.staleness_exponent)

    def too_late(self, staleness: int) -> bool:
        """Whether an update is dropped for its age."""
        limit = self.config.max_staleness
        return limit is not None and staleness > limit

    def weight(self, turnaround: int, own: int, num_sites: int) -> float:
        """Inverse arrival rate of a site, so that fast sites do not own what is shared.

        A site with ``own`` of the ``turnaround`` updates since it was asked has a share of own /
        turnaround in them; with equally fast sites that is 1 / num_sites. Time in which a site was
        not asked does not count, so that who comes late or comes back is not taken for slow. At
        most ``num_sites``; 1 in rounds that wait for everybody.

        Args:
            turnaround: Updates that came in from when the site was asked for the first update that
                it has in the version until the version is made.
            own: Updates of the site in the version.
            num_sites: Sites that are there.
        """
        if self.waits or not self.config.balance_arrivals:
            return 1.0
        return min(turnaround / own / num_sites, float(num_sites))
