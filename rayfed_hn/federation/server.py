"""The server of a federation: a state machine without clock, threads or transport.

It decides who trains which version and what answers change; an executor moves the messages and
tells the time. Each site is in one of three places: idle, in flight, or away. Updates that wait for
the next version lie in the buffer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.errors import FederationError
from rayfed_hn.federation.messages import Deadline, SiteBack, SiteLost, TrainRequest, Update
from rayfed_hn.federation.mixture import MovingAverage
from rayfed_hn.federation.rules.base import Contribution, Rule, same_shape
from rayfed_hn.federation.schedule import Schedule
from rayfed_hn.models.standardise import Standardisation


@dataclass(frozen=True)
class VersionReport:
    """A version was made.

    Attributes:
        version: Its number; version 0 is the start.
        updates: Those it was made from, in site order. Their validation figures are of the network
            that the sites had received.
        staleness: Of every update: versions made since its site was asked.
        num_alive: Sites still in the federation.
        num_refused: Updates dropped for their age since the version before.
        time: Seconds since the start by the executor's clock; the server has none.
    """

    version: int
    updates: tuple[Update, ...]
    staleness: tuple[int, ...]
    num_alive: int
    num_refused: int = 0
    time: float = 0.0

    @property
    def mean_validation_auc(self) -> float | None:
        """Mean over the updates where it is defined; None where it is nowhere."""
        defined = [u.validation_auc for u in self.updates if u.validation_auc is not None]
        return sum(defined) / len(defined) if defined else None


@dataclass(frozen=True)
class Asked:
    """A request that was not answered yet.

    Attributes:
        version: Whose network the site was sent.
        turn: How many requests the site had before.
    """

    version: int
    turn: int


class Server:
    """Asks sites for updates and makes versions from what comes back.

    Args:
        rule: The method.
        schedule: Who is asked when, and what makes a version; it names the sites.
        num_versions: Versions to make.

    Attributes:
        version: Versions made so far.
        away: Sites that are lost, and how; some may come back.
        lost: Losses in the order they happened.
        standardisation: The scale of features that the sites have agreed on, if they did.
        lost_before: Losses before the run was continued; those sites are asked again, but the run
            has missed them.
    """

    def __init__(self, rule: Rule, schedule: Schedule, num_versions: int) -> None:
        self.rule = rule
        self.schedule = schedule
        self.sites = tuple(sorted(schedule.sizes))
        self.num_versions = num_versions
        self.version = 0
        self.away: dict[str, SiteLost] = {}
        self.lost: list[SiteLost] = []
        self.lost_before: list[SiteLost] = []
        self.standardisation: Standardisation | None = None
        self._number = {site: i for i, site in enumerate(self.sites)}
        self._turns = dict.fromkeys(self.sites, 0)
        self._accepted = dict.fromkeys(self.sites, 0)
        self._in_flight: dict[str, Asked] = {}
        self._buffer: list[Update] = []
        self._refused = dict.fromkeys(self.sites, 0)
        self._reported_refused = 0
        self._average = MovingAverage()

    @property
    def alive(self) -> tuple[str, ...]:
        """Sites that are not away."""
        return tuple(site for site in self.sites if site not in self.away)

    @property
    def num_updates(self) -> dict[str, int]:
        """Updates of every site that went into a version or wait for one."""
        return dict(self._accepted)

    @property
    def num_refused(self) -> int:
        """Updates that were dropped for their age since the start."""
        return sum(self._refused.values())

    @property
    def finished(self) -> bool:
        """Whether all versions were made."""
        return self.version >= self.num_versions

    def parameters_for(self, site: str) -> np.ndarray:
        """The network of a site at this version, as it is evaluated, float32 (P,)."""
        return self.rule.evaluated_for(self._number[site])

    def dispatch(self) -> list[TrainRequest]:
        """Requests for sites that should train now; they count as in flight from here on."""
        if self.finished or (self.schedule.synchronous and self._buffer):
            return []
        idle = [site for site in self.alive if site not in self._in_flight]
        draw = sum(self._turns.values())
        chosen = self.schedule.choose(idle, len(self._in_flight), draw)
        return [self._request(site) for site in chosen]

    def _request(self, site: str) -> TrainRequest:
        asked = Asked(self.version, self._turns[site])
        self._in_flight[site] = asked
        self._turns[site] += 1
        network = self.rule.parameters_for(self._number[site])
        return TrainRequest(site, asked.version, network, asked.turn)

    def receive(self, event: Update | SiteLost | SiteBack | Deadline) -> VersionReport | None:
        """Take an event; return a report if it completed a version.

        What nobody waits for (a duplicate, a late answer to an older request, anything after the
        last version) changes nothing.

        Raises:
            FederationError: No site is left, or too few answered by the deadline.
        """
        if self.finished:
            return None
        if isinstance(event, SiteBack):
            self.away.pop(event.site, None)
            return None
        if isinstance(event, Deadline):
            return self._deadline(event)
        if self._in_flight.get(event.site) != Asked(event.version, event.turn):
            return None
        del self._in_flight[event.site]
        if isinstance(event, SiteLost):
            self.lose(event)
        elif self.schedule.too_late(self.version - event.version):
            self._refused[event.site] += 1
        else:
            self._buffer.append(event)
            self._accepted[event.site] += 1
        return self._make_version() if self._full() else None

    def _full(self) -> bool:
        if self.schedule.synchronous:
            # The target follows the living: waiting for a lost site would wait for ever.
            return bool(self._buffer) and not self._in_flight
        return len(self._buffer) >= (self.schedule.config.buffer_size or 1)

    def lose(self, event: SiteLost) -> None:
        """Do without a site. Raises ``FederationError`` if no site is left."""
        self.away[event.site] = event
        self.lost.append(event)
        if not self.alive and not any(loss.returns for loss in self.away.values()):
            raise FederationError(
                f"all {len(self.sites)} sites were lost by version {self.version}; "
                f"the last one ({event.site}): {event.reason}"
            )

    def _deadline(self, event: Deadline) -> VersionReport | None:
        if event.version != self.version:
            return None
        needed = self.schedule.config.min_sites
        needed = min(needed, len(self.sites))
        present = len({update.site for update in self._buffer})
        if present < needed:
            raise FederationError(
                f"version {self.version}: {present} sites answered by the deadline of "
                f"{self.schedule.config.deadline:g} s, rounds.min_sites is {needed}; raise "
                "rounds.deadline or lower rounds.min_sites"
            )
        return self._make_version()

    def _make_version(self) -> VersionReport:
        updates = tuple(sorted(self._buffer, key=lambda u: (self._number[u.site], u.turn)))
        staleness = tuple(self.version - update.version for update in updates)
        present = {*self.alive, *(update.site for update in updates)}
        counts = {site: self._accepted[site] for site in present}
        contributions = [
            Contribution(
                self._number[update.site],
                update.update,
                self.schedule.discount(late),
                self.schedule.weight(update.site, counts),
                update.turn,
            )
            for update, late in zip(updates, staleness, strict=True)
        ]
        once = not any(staleness) and len({u.site for u in updates}) == len(updates)
        complete = once and {u.site for u in updates} == set(self.alive)
        among = len(updates) if self.schedule.waits else len(self.sites)
        self.rule.apply(contributions, complete=complete, among=among)
        self._buffer.clear()
        self.version += 1
        self._take_average(len(updates))
        refused = self.num_refused - self._reported_refused
        self._reported_refused = self.num_refused
        return VersionReport(self.version, updates, staleness, len(self.alive), refused)

    def _take_average(self, num_updates: int) -> None:
        shared = self.rule.shared()
        if shared is not None:
            rounds, progress = num_updates / len(self.sites), self.version / self.num_versions
            self._average = self._average.add(torch.from_numpy(shared), rounds, progress)

    def shared_candidates(self) -> np.ndarray:
        """Averages of the shared network for the mixture readout, float32 (S, P)."""
        if self._average.total is None:
            return np.zeros((0, self.rule.parameters_for(0).size), np.float32)
        return np.stack([vector.numpy() for vector in self._average.candidates()])

    def state(self) -> dict[str, Tensor]:
        """Everything that the next version and the scores depend on."""
        average = {f"shared.{name}": tensor for name, tensor in self._average.state().items()}
        counts = {
            f"sites.{name}": torch.tensor([count[site] for site in self.sites])
            for name, count in (
                ("turns", self._turns),
                ("accepted", self._accepted),
                ("refused", self._refused),
            )
        }
        scale = {} if self.standardisation is None else self.standardisation.state()
        return self.rule.state() | average | counts | scale

    def resume(self, state: Mapping[str, Tensor], version: int, lost: Sequence[SiteLost]) -> None:
        """Go on from a committed version. Sites that were lost are asked again."""
        self.rule.load_state(state)
        own = {k.removeprefix("shared."): v for k, v in state.items() if k.startswith("shared.")}
        self._average = MovingAverage.of(own)
        self.standardisation = Standardisation.of(state)
        self.version = version
        self._turns = self._counts(state, "turns")
        self._accepted = self._counts(state, "accepted")
        self._refused = self._counts(state, "refused")
        self._reported_refused = self.num_refused
        self.away, self.lost, self.lost_before = {}, [], list(lost)
        self._in_flight.clear()
        self._buffer.clear()

    def _counts(self, state: Mapping[str, Tensor], name: str) -> dict[str, int]:
        own = torch.zeros(len(self.sites), dtype=torch.int64)
        counts = same_shape(state, f"sites.{name}", own).tolist()
        return dict(zip(self.sites, counts, strict=True))

    def check_invariants(self) -> None:
        """Assert what must hold between any two calls (for tests)."""
        assert not self._in_flight.keys() & self.away.keys(), "a site is in two places"
        assert self._in_flight.keys() | self.away.keys() <= set(self.sites)
        assert all(asked.version <= self.version for asked in self._in_flight.values())
        assert all(asked.turn < self._turns[s] for s, asked in self._in_flight.items())
        keys = [(update.site, update.turn) for update in self._buffer]
        assert len(keys) == len(set(keys)), "an update is counted twice"
        assert not self._full(), "a full buffer was kept"
        limit = self.schedule.config.cohort_size
        assert limit is None or len(self._in_flight) <= limit
