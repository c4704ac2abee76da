"""The one federation loop, and the executor that needs no cluster.

The server decides; an executor moves messages. Whether sites are objects in this process or actors
on a cluster, the loop, the messages and the results are the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from rayfed_hn.errors import FederationError
from rayfed_hn.federation.messages import (
    EvaluateRequest,
    Event,
    Request,
    Scores,
    SiteLost,
    read_answer,
)
from rayfed_hn.federation.server import Server, VersionReport


class Host(Protocol):
    """Whatever holds sites and hands a request to the one that it is for."""

    def answer(self, request: Request) -> bytes: ...


class Executor(Protocol):
    """Moves requests to sites and brings back one event for each."""

    def submit(self, requests: Sequence[Request]) -> None:
        """Send requests; returns without waiting for answers."""
        ...

    def next_event(self) -> Event:
        """Wait for the next answer or loss.

        Raises:
            FederationError: Nothing is in flight, so that waiting would never end.
        """
        ...


def run_federation(server: Server, executor: Executor) -> Iterator[VersionReport]:
    """Run until all versions are made, yielding a report after each."""
    while not server.finished:
        executor.submit(server.dispatch())
        event = executor.next_event()
        if isinstance(event, Scores):
            raise FederationError(f"site {event.site} sent scores during training")
        report = server.receive(event)
        if report is not None:
            yield report


def evaluate_sites(server: Server, executor: Executor) -> tuple[list[Scores], list[SiteLost]]:
    """Have every living site score its test bags; scores in site order, and who was lost."""
    sites = server.alive
    executor.submit(
        [EvaluateRequest(site, server.version, server.parameters_for(site)) for site in sites]
    )
    events = [executor.next_event() for _ in sites]
    scores = sorted((e for e in events if isinstance(e, Scores)), key=lambda e: e.site)
    return scores, [event for event in events if isinstance(event, SiteLost)]


class InProcessExecutor:
    """Sites as plain objects, answering one after the other."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting: deque[Request] = deque()

    def submit(self, requests: Sequence[Request]) -> None:
        self._waiting.extend(requests)

    def next_event(self) -> Event:
        if not self._waiting:
            raise FederationError("nothing is in flight; waiting would never end")
        request = self._waiting.popleft()
        return read_answer(request, self._host.answer(request))
