"""The server of a federation: a state machine without clock, threads or transport.

It decides who trains which version and what answers change; an executor moves the messages and
tells the time. Each site is in one of three places: idle, in flight, or away. Updates that wait for
the next version lie in the buffer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.config import FEWEST_VOTES
from rayfed_hn.errors import FederationError
from rayfed_hn.federation.buffer import Buffer
from rayfed_hn.federation.messages import (
    Deadline,
    Refused,
    SiteBack,
    SiteLost,
    TrainRequest,
    Update,
)
from rayfed_hn.federation.mixture import MovingAverage
from rayfed_hn.federation.rules.base import Rule
from rayfed_hn.federation.schedule import Schedule
from rayfed_hn.federation.screening import Screen
from rayfed_hn.federation.site_counts import SiteCounts
from rayfed_hn.federation.versions import Asked, InFlight, VersionReport
from rayfed_hn.models.standardise import Standardisation


class Server:
    """Asks sites for updates and makes versions from what comes back.

    Args:
        rule: The method.
        schedule: Who is asked when, and what makes a version; it names the sites.
        num_versions: Versions to make.
        averaging: Keep averages of the shared network, for the mixture readout.
        steps: Local steps of every site per version, where they differ.

    Attributes:
        version: Versions made so far.
        away: Sites that are lost, and how; some may come back.
        lost: Losses in the order they happened.
        standardisation: The scale of features that the sites have agreed on, if they did.
        lost_before: Losses before the run was continued; those sites are asked again, but the run
            has missed them.
    """

    def __init__(
        self,
        rule: Rule,
        schedule: Schedule,
        num_versions: int,
        *,
        averaging: bool = True,
        steps: Mapping[str, int] | None = None,
    ) -> None:
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
        self._counts = SiteCounts(self.sites)
        self._in_flight: dict[str, Asked] = {}
        self._sent: dict[str, np.ndarray] = {}  # the networks in flight
        self._to_ask_again: list[TrainRequest] = []
        self._buffer = Buffer(self._number, schedule)
        self._overdue = False
        self._screen = Screen(self.sites, schedule.config, steps)
        self._reported_refused = 0
        self._averaging = averaging
        self._average = MovingAverage()

    @property
    def alive(self) -> tuple[str, ...]:
        """Sites that are not away."""
        return tuple(site for site in self.sites if site not in self.away)

    @property
    def num_updates(self) -> dict[str, int]:
        """Updates of every site that went into a version or wait for one."""
        return {s: n - self._screen.num_refused(s) for s, n in self._counts.accepted.items()}

    @property
    def turns_done(self) -> dict[str, int]:
        """Turns of every site up to the last one whose update was taken."""
        return {site: turn + 1 for site, turn in self._counts.last_turn.items()}

    @property
    def num_refused(self) -> int:
        """Updates that were dropped for their age since the start."""
        return sum(self._counts.refused.values())

    @property
    def refused(self) -> tuple[Refused, ...]:
        """Updates that were judged and not taken since the start."""
        return tuple(self._screen.refused)

    @property
    def finished(self) -> bool:
        """Whether all versions were made."""
        return self.version >= self.num_versions

    def networks(self, sites: Sequence[str]) -> list[np.ndarray]:
        """The networks of sites at this version, as they are evaluated, each float32 (P,)."""
        return self.rule.evaluated([self._number[site] for site in sites])

    def parameters_for(self, site: str) -> np.ndarray:
        """The network of one site."""
        return self.networks([site])[0]

    def dispatch(self) -> list[TrainRequest]:
        """Requests for sites that should train now; they count as in flight from here on."""
        if self.finished:
            return []
        busy = set(self._in_flight)
        if self.schedule.synchronous and self._buffer:
            if self._in_flight or len(self._buffer.sites) >= self._fewest:
                return []
            busy |= self._buffer.sites  # of others too much was lost
        idle = [site for site in self.alive if site not in busy]
        draw = sum(self._counts.turns.values())
        chosen = self.schedule.choose(idle, len(busy), draw)
        networks = self.rule.networks([self._number[site] for site in chosen]) if chosen else []
        so_far = sum(self._counts.accepted.values())
        return [self._request(*each, so_far) for each in zip(chosen, networks, strict=True)]

    def _request(self, site: str, network: np.ndarray, num_updates: int) -> TrainRequest:
        asked = Asked(self.version, self._counts.turns[site], num_updates)
        self._in_flight[site], self._sent[site] = asked, network
        self._counts.turns[site] += 1
        return TrainRequest(site, asked.version, network, asked.turn)

    def receive(
        self, event: Update | Refused | SiteLost | SiteBack | Deadline
    ) -> VersionReport | None:
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
        asked = self._in_flight.get(event.site)
        if asked is None or (asked.version, asked.turn) != (event.version, event.turn):
            if isinstance(event, SiteLost) and self._will_not_return(event):
                self.lose(event)
            return None
        del self._in_flight[event.site], self._sent[event.site]
        if isinstance(event, SiteLost):
            self.lose(event)
        elif isinstance(event, Refused):
            self._counts.last_turn[event.site] = event.turn  # its site has gone on from there
            self._refuse(event)
        elif self.schedule.too_late(self.version - event.version):
            self._counts.refused[event.site] += 1
            self._counts.last_turn[event.site] = event.turn  # its site has gone on from there
        else:
            self._accept(event, asked)
        return self._make_version() if self._full() else None

    def _refuse(self, refused: Refused) -> None:
        """Count an update that is not taken, and do without a site that sends no other."""
        loss = self._screen.refuse(refused)
        if loss is not None:
            self.lose(loss)

    def _accept(self, update: Update, asked: Asked) -> None:
        self._counts.accepted[update.site] += 1
        self._counts.last_turn[update.site] = update.turn
        self._buffer.add(update, asked)

    def _full(self) -> bool:
        if self._overdue and len(self._buffer.sites) >= self._needed():
            return True
        if self.schedule.synchronous:
            # The target follows the living: waiting for a lost site would wait for ever.
            return len(self._buffer.sites) >= self._fewest and not self._in_flight
        enough = len(self._buffer) >= (self.schedule.config.buffer_size or 1)
        return enough and len(self._buffer.sites) >= self._fewest

    @property
    def _fewest(self) -> int:
        """Sites that any version is made of: a vote of two is none."""
        return 1 if self.schedule.config.robust == "none" else FEWEST_VOTES

    def _will_not_return(self, loss: SiteLost) -> bool:
        """Whether a site is given up that was only away: what was lost then is lost for good."""
        before = self.away.get(loss.site)
        same = before is not None and (before.version, before.turn) == (loss.version, loss.turn)
        return before is not None and same and before.returns and not loss.returns

    def lose(self, event: SiteLost) -> None:
        """Do without a site. Raises ``FederationError`` if no site is left."""
        self.away[event.site] = event
        self.lost.append(event)
        left = len(self.alive) + sum(loss.returns for loss in self.away.values())
        last = f"the last one that was lost ({event.site}): {event.reason}"
        some = f"{left} of {len(self.sites)} sites are left at version {self.version}"
        rounds = self.schedule.config
        if left == 0:
            raise FederationError(
                f"all {len(self.sites)} sites were lost by version {self.version}; {last}"
            )
        if left < rounds.min_sites:
            raise FederationError(f"{some}, rounds.min_sites is {rounds.min_sites}; {last}")
        if left < self._fewest:
            raise FederationError(
                f"{some}, and rounds.robust={rounds.robust} needs {self._fewest}; {last}"
            )

    def _deadline(self, event: Deadline) -> VersionReport | None:
        """Make a version of who is there, or as soon as enough are."""
        if event.version != self.version:
            return None
        self._overdue = True
        return self._make_version() if self._full() else None

    def _needed(self) -> int:
        """Sites that a version is made of after its deadline."""
        cohort = self.schedule.config.cohort_size or len(self.sites)
        wanted = min(self.schedule.config.min_sites, len(self.alive), cohort)
        return max(self._fewest, wanted)

    def _make_version(self) -> VersionReport | None:
        """Make a version of what is taken; None where that is not enough."""
        for refused in self._buffer.judge(self._screen):
            self._refuse(refused)
        if not self._full():
            return None
        updates = self._buffer.updates
        staleness = tuple(self.version - update.version for update in updates)
        once = not any(staleness) and len(self._buffer.sites) == len(updates)
        complete = once and self._buffer.sites == set(self.alive)
        among = len(updates) if self.schedule.waits else len(self.sites)
        so_far, present = sum(self._counts.accepted.values()), max(1, len(self.alive))
        contributions = self._buffer.contributions(self.version, so_far, present)
        self.rule.apply(contributions, complete=complete, among=among)
        self._buffer.remember(self._screen)
        self._buffer.clear()
        self._overdue = False
        self.version += 1
        self._take_average(len(updates))
        too_old = self.num_refused - self._reported_refused
        self._reported_refused = self.num_refused
        news = self._screen.news()
        return VersionReport(self.version, updates, staleness, len(self.alive), too_old, news)

    def _take_average(self, num_updates: int) -> None:
        shared = self.rule.shared() if self._averaging else None
        if shared is not None:
            rounds, progress = num_updates / len(self.sites), self.version / self.num_versions
            self._average = self._average.add(torch.from_numpy(shared), rounds, progress)

    def shared_candidates(self) -> np.ndarray:
        """Averages of the shared network for the mixture readout, float32 (S, P)."""
        if self._average.total is None:
            return np.zeros((0, self.rule.size), np.float32)
        return np.stack([vector.numpy() for vector in self._average.candidates()])

    def state(self) -> dict[str, Tensor]:
        """Everything that the next version and the scores depend on."""
        average = {f"shared.{name}": tensor for name, tensor in self._average.state().items()}
        scale = {} if self.standardisation is None else self.standardisation.state()
        rule = {name: tensor.cpu() for name, tensor in self.rule.state().items()}
        return rule | average | self._counts.state() | scale | self._screen.state()

    def in_flight(self) -> list[InFlight]:
        """Requests that are not answered, in the order in which they were sent."""
        return [InFlight(s, asked, self._sent[s]) for s, asked in self._in_flight.items()]

    def ask_again(self) -> list[TrainRequest]:
        """The requests that were in flight when a run stopped that now goes on; once."""
        again, self._to_ask_again = self._to_ask_again, []
        return again

    def resume(
        self,
        state: Mapping[str, Tensor],
        version: int,
        lost: Sequence[SiteLost],
        in_flight: Sequence[InFlight] = (),
        away: Sequence[SiteLost] = (),
    ) -> None:
        """Go on from a committed version.

        Args:
            state: As ``state`` gave it.
            version: The version committed.
            lost: All losses before; those sites are idle and asked again.
            in_flight: As ``in_flight`` gave it.
            away: But these sites are still expected back.
        """
        self.rule.load_state(state)
        own = {k.removeprefix("shared."): v for k, v in state.items() if k.startswith("shared.")}
        self._average = MovingAverage.of(own)
        self.standardisation = Standardisation.of(state)
        self.version = version
        self._counts.load_state(state)
        self._reported_refused = self.num_refused
        self._screen.load_state(state)
        self.away, self.lost, self.lost_before = {x.site: x for x in away}, [], list(lost)
        self._in_flight = {one.site: one.asked for one in in_flight}
        self._sent = {one.site: one.network for one in in_flight}
        self._to_ask_again = [one.request for one in in_flight]
        self._buffer.clear()
        self._overdue = False

    def check_invariants(self) -> None:
        """Assert what must hold between any two calls (for tests)."""
        assert not self._in_flight.keys() & self.away.keys(), "a site is in two places"
        assert self._sent.keys() == self._in_flight.keys(), "a network is not that of a request"
        assert self._in_flight.keys() | self.away.keys() <= set(self.sites)
        assert all(asked.version <= self.version for asked in self._in_flight.values())
        assert all(asked.turn < self._counts.turns[s] for s, asked in self._in_flight.items())
        keys = self._buffer.keys
        assert len(keys) == len(set(keys)), "an update is counted twice"
        assert not self._full(), "a full buffer was kept"
        limit = self.schedule.config.cohort_size
        assert limit is None or len(self._in_flight) <= limit
