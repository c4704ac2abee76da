"""The server of a federation: a synchronous state machine without clock, threads or transport.

It decides who trains which version and what answers change; an executor moves the messages. Each
site is in one of four places: idle, in flight, answered (in the buffer) or lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from rayfed_hn.errors import FederationError
from rayfed_hn.federation.messages import SiteLost, TrainRequest, Update
from rayfed_hn.federation.rules import Rule


@dataclass(frozen=True)
class VersionReport:
    """A version was made.

    Attributes:
        version: Its number; version 0 is the start.
        updates: Those it was made from, in site order. Their validation figures are of the version
            before, which the sites had received.
        num_alive: Sites still in the federation.
    """

    version: int
    updates: tuple[Update, ...]
    num_alive: int

    @property
    def mean_validation_auc(self) -> float | None:
        """Mean over the sites where it is defined; None where it is nowhere."""
        defined = [u.validation_auc for u in self.updates if u.validation_auc is not None]
        return sum(defined) / len(defined) if defined else None


class Server:
    """Asks every living site for an update and makes a version when all have answered.

    Attributes:
        version: Versions made so far.
        lost: Losses in the order they happened.
        lost_before: Losses before the run was continued; those sites are asked again, but the run
            has missed them.
    """

    def __init__(self, rule: Rule, sites: Sequence[str], num_versions: int) -> None:
        self.rule = rule
        self.sites = tuple(sorted(sites))
        self.num_versions = num_versions
        self.version = 0
        self.lost: list[SiteLost] = []
        self.lost_before: list[SiteLost] = []
        self._number = {site: i for i, site in enumerate(self.sites)}
        self._in_flight: dict[str, int] = {}
        self._buffer: dict[str, Update] = {}

    @property
    def alive(self) -> tuple[str, ...]:
        """Sites that were not lost."""
        gone = {loss.site for loss in self.lost}
        return tuple(site for site in self.sites if site not in gone)

    @property
    def finished(self) -> bool:
        """Whether all versions were made."""
        return self.version >= self.num_versions

    def parameters_for(self, site: str) -> np.ndarray:
        """The network of a site at this version, float32 (P,)."""
        return self.rule.parameters_for(self._number[site])

    def dispatch(self) -> list[TrainRequest]:
        """Requests for all idle sites; they count as in flight from here on."""
        if self.finished:
            return []
        busy = self._in_flight.keys() | self._buffer.keys()
        idle = [site for site in self.alive if site not in busy]
        self._in_flight |= dict.fromkeys(idle, self.version)
        return [TrainRequest(site, self.version, self.parameters_for(site)) for site in idle]

    def receive(self, event: Update | SiteLost) -> VersionReport | None:
        """Take an answer or a loss; return a report if it completed a version.

        An answer that nobody waits for (a duplicate, a late one) changes nothing.

        Raises:
            FederationError: No site is left.
        """
        if self._in_flight.get(event.site) != event.version:
            return None
        del self._in_flight[event.site]
        if isinstance(event, SiteLost):
            self.lost.append(event)
        else:
            self._buffer[event.site] = event
        alive = self.alive
        if not alive:
            raise FederationError(
                f"all {len(self.sites)} sites were lost by version {self.version}; "
                f"the last one ({event.site}): {self.lost[-1].reason}"
            )
        # The target follows the living: waiting for a lost site would wait for ever.
        return self._make_version() if len(self._buffer) == len(alive) else None

    def _make_version(self) -> VersionReport:
        updates = tuple(self._buffer[site] for site in self.sites if site in self._buffer)
        self.rule.apply({self._number[u.site]: u.update for u in updates})
        self._buffer.clear()
        self.version += 1
        return VersionReport(self.version, updates, len(self.alive))

    def resume(self, state: Mapping[str, Tensor], version: int, lost: Sequence[SiteLost]) -> None:
        """Go on from a committed version. Sites that were lost are asked again."""
        self.rule.load_state(state)
        self.version = version
        self.lost, self.lost_before = [], list(lost)
        self._in_flight.clear()
        self._buffer.clear()

    def check_invariants(self) -> None:
        """Assert what must hold between any two calls (for tests)."""
        places = [set(self._in_flight), set(self._buffer), {loss.site for loss in self.lost}]
        assert sum(map(len, places)) == len(set().union(*places)), "a site is in two places"
        assert set().union(*places) <= set(self.sites)
        assert all(v == self.version for v in self._in_flight.values()), "stale request in flight"
        assert not self._buffer or len(self._buffer) < len(self.alive), "a full buffer was kept"
