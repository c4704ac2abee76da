"""Answers in the order in which they are wanted, whatever order they come in."""

from __future__ import annotations

from collections.abc import Sequence

from rayfed_hn.federation.loop import Executor
from rayfed_hn.federation.messages import (
    Deadline,
    Event,
    Refused,
    Request,
    SiteBack,
    SiteLost,
    Update,
)


class Gathered:
    """Waits for one particular answer to a request for training; keeps those that come before it.

    Preparing and scoring happen outside of the time that training takes: while such requests are
    under way, their answers come as they come.

    Args:
        inner: Brings the answers in any order.
    """

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self._early: dict[tuple[str, int], Event] = {}
        self._aside: set[tuple[str, int]] = set()

    def submit_aside(self, requests: Sequence[Request]) -> None:
        """Send requests that are not for training."""
        self._aside |= {(request.site, request.version) for request in requests}
        self._inner.submit(requests)

    @property
    def aside(self) -> bool:
        """Whether an answer to such a request is still to come."""
        return bool(self._aside)

    def next_aside(self) -> Event:
        """Whatever comes next while such a request is under way."""
        event = self._inner.next_event()
        if not isinstance(event, Update | Refused | SiteBack | Deadline):
            self._aside.discard((event.site, event.version))
        return event

    def wait_for(self, site: str, turn: int) -> Event:
        """The answer of a site to its request number ``turn``."""
        key = site, turn
        while key not in self._early:
            event = self._inner.next_event()
            if isinstance(event, Update | Refused | SiteLost):
                self._early[event.site, event.turn] = event
        return self._early.pop(key)
