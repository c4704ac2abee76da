"""Where the time of a version goes, and what is moved for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import numpy as np
from torch import Tensor

from rayfed_hn.federation.loop import Around, Executor, Read, run_federation
from rayfed_hn.federation.messages import Event, Request, SiteLost, TrainRequest, read_answer
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.rules import Contribution, Rule
from rayfed_hn.federation.score_messages import CandidatesRequest
from rayfed_hn.federation.wire import Message


@dataclass(frozen=True)
class VersionCost:
    """What one version took.

    Attributes:
        version: Its number.
        seconds: From the version before to this one.
        generation: Seconds in which the server made networks.
        pull_back: Seconds in which the server learned from updates.
        sending: Seconds in which requests were handed to the executor.
        reading: Seconds in which answers were checked.
        waiting: Seconds in which the server waited for answers.
        training: Seconds that sites took, divided by the hosts that worked side by side; what of
            ``waiting`` is not training is transport and idleness.
        bytes_down: Networks that travelled to hosts: one that sites share travels once to each.
        bytes_up: Answers of sites.
        num_updates: In the version.
        num_lost: Sites lost since the version before.
    """

    version: int
    seconds: float
    generation: float
    pull_back: float
    sending: float
    reading: float
    waiting: float
    training: float
    bytes_down: int
    bytes_up: int
    num_updates: int
    num_lost: int


class Meter:
    """Sums seconds and bytes until they are taken.

    Args:
        host_of: Which host a site lives on.
        read: Reads answers.
    """

    def __init__(self, host_of: Mapping[str, int], read: Read = read_answer) -> None:
        self._host_of, self._read = host_of, read
        self._sums: dict[str, float] = {}

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time of a block to a phase."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - begun)

    def add(self, name: str, amount: float) -> None:
        """Add to a sum."""
        self._sums[name] = self._sums.get(name, 0.0) + amount

    def take(self) -> dict[str, float]:
        """The sums since the last call."""
        sums, self._sums = self._sums, {}
        return sums

    def read(self, request: Request, message: Message) -> Event:
        """Read an answer on the clock."""
        self.add("bytes_up", len(message))
        with self.timed("reading"):
            return self._read(request, message)

    def sent(self, requests: Sequence[Request]) -> None:
        """Count networks that travel, to be trained or to be judged."""
        trips = {
            (self._host_of[request.site], id(networks)): networks.nbytes
            for request in requests
            for networks in _networks(request)
        }
        self.add("bytes_down", sum(trips.values()))


def _networks(request: Request) -> tuple[np.ndarray, ...]:
    if isinstance(request, CandidatesRequest):
        return request.parameters, request.shared_SP
    return (request.parameters,) if isinstance(request, TrainRequest) else ()


class _MeteredRule(Rule):
    def __init__(self, rule: Rule, meter: Meter) -> None:
        self._rule, self._meter = rule, meter
        self.gate = rule.gate

    @property
    def size(self) -> int:
        return self._rule.size

    def networks(self, sites: Sequence[int]) -> list[np.ndarray]:
        with self._meter.timed("generation"):
            return self._rule.networks(sites)

    def shared(self) -> np.ndarray | None:
        with self._meter.timed("generation"):
            return self._rule.shared()

    def apply(self, contributions: Sequence[Contribution], *, complete: bool, among: int) -> None:
        with self._meter.timed("pull_back"):
            self._rule.apply(contributions, complete=complete, among=among)

    def state(self) -> dict[str, Tensor]:
        return self._rule.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._rule.load_state(state)


class MeteredExecutor(Around):
    """Wraps an executor, and tells a meter of what it moves.

    Args:
        inner: Moves the messages; its answers are read by the meter.
        meter: Counts.
    """

    def __init__(self, inner: Executor, meter: Meter) -> None:
        super().__init__(inner)
        self._meter = meter

    def submit(self, requests: Sequence[Request]) -> None:
        self._meter.sent(requests)
        with self._meter.timed("sending"):
            super().submit(requests)

    def next_event(self) -> Event:
        with self._meter.timed("waiting"):
            event = super().next_event()
        self._meter.add("num_lost", isinstance(event, SiteLost))
        return event


class Metered:
    """A federation on the clock.

    Args:
        plan: Says what is run. Nothing is committed.
        host_of: Which host a site lives on; hosts work side by side.
        connect: From what reads answers to the executor that brings them.
        device: Where the server computes.
    """

    def __init__(
        self,
        plan: Plan,
        host_of: Mapping[str, int],
        connect: Callable[[Read], Executor],
        device: str = "cpu",
    ) -> None:
        self._meter = Meter(host_of, plan.read)
        self.server = plan.server(device)
        self.server.rule = _MeteredRule(self.server.rule, self._meter)
        self.executor = MeteredExecutor(connect(self._meter.read), self._meter)
        self._hosts = len(set(host_of.values()))

    def versions(self) -> Iterator[VersionCost]:
        """Run it, and say of every version what it cost."""
        begun = time.perf_counter()
        for report in run_federation(self.server, self.executor):
            sums, now = self._meter.take(), time.perf_counter()
            sums["training"] = sum(update.seconds for update in report.updates) / self._hosts
            sums["waiting"] = sums.get("waiting", 0.0) - sums.get("reading", 0.0)
            sums |= {"version": report.version, "seconds": now - begun}
            sums["num_updates"] = len(report.updates)
            del report  # with its updates, before the next version has its own
            values = {field.name: sums.get(field.name, 0) for field in fields(VersionCost)}
            for whole in ("bytes_down", "bytes_up", "num_lost"):
                values[whole] = int(values[whole])
            yield VersionCost(**values)  # pyright: ignore[reportArgumentType]
            begun = time.perf_counter()
