"""Federations under the simulated clock whose sites answer at once, each with its own value."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rayfed_hn.config import RoundsConfig, SimulationConfig
from rayfed_hn.errors import FederationError
from rayfed_hn.federation.loop import run_federation
from rayfed_hn.federation.messages import (
    Deadline,
    Event,
    Request,
    SiteBack,
    SiteLost,
    TrainRequest,
    Update,
)
from rayfed_hn.federation.rules.averaging import FedAvg
from rayfed_hn.federation.schedule import Schedule
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.site_clock import SiteClock, Work
from rayfed_hn.federation.versions import VersionReport
from rayfed_hn.federation.virtual_time import VirtualTime

VALUES = {"a": 1.0, "b": 10.0, "c": 100.0}  # a site's update, in both places


class Shuffled:
    """Sites that answer at once with their own value, in an order of its own."""

    more_now = False

    def state(self) -> dict[str, Any]:
        return {}

    def begin_at(self, seconds: float, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.waiting: list[Request] = []
        self.rng = random.Random(seed)

    def submit(self, requests: Sequence[Request]) -> None:
        self.waiting += requests

    def set_alarm(self, version: int, seconds: float) -> None:
        raise AssertionError("a deadline is of simulated time")

    def next_event(self) -> Event:
        if not self.waiting:
            raise FederationError("nothing is in flight; waiting would never end")
        request = self.waiting.pop(self.rng.randrange(len(self.waiting)))
        assert isinstance(request, TrainRequest)
        return self.answer(request)

    def answer(self, request: TrainRequest) -> Event:
        u = np.full(2, VALUES.get(request.site, 0.0), np.float32)
        return Update(request.site, request.version, request.turn, u, 0.5, 0.5, None, 1, 0.1)


class Table(SiteClock):
    """What becomes of every request, in turn; the last entry stands for all that follow."""

    def __init__(self, works: dict[str, list[float | Work]]) -> None:
        super().__init__(SimulationConfig(), dict.fromkeys(works, 1), 0)
        self.works = works

    def work(self, site: str, turn: int, now: float) -> Work:
        entries = self.works[site]
        entry = entries[min(turn, len(entries) - 1)]
        return entry if isinstance(entry, Work) else Work(entry)


def new_server(rounds: RoundsConfig, sizes: Mapping[str, int]) -> Server:
    return Server(FedAvg(torch.zeros(2)), Schedule(rounds, sizes, 1), rounds.num_versions)


class Watched:
    """An executor that keeps a list of what it delivered, and when."""

    def __init__(self, inner: VirtualTime) -> None:
        self.inner, self.seen = inner, list[tuple[float, Event]]()

    @property
    def now(self) -> float:
        return self.inner.now

    @property
    def more_now(self) -> bool:
        return self.inner.more_now

    def state(self) -> dict[str, Any]:
        return self.inner.state()

    def begin_at(self, seconds: float, state: Mapping[str, Any]) -> None:
        self.inner.begin_at(seconds, state)

    def submit(self, requests: Sequence[Request]) -> None:
        self.inner.submit(requests)

    def set_alarm(self, version: int, seconds: float) -> None:
        self.inner.set_alarm(version, seconds)

    def next_event(self) -> Event:
        event = self.inner.next_event()
        self.seen.append((self.now, event))
        return event


def run(
    clock: SiteClock, rounds: RoundsConfig, sites: str = "abc", seed: int = 0
) -> tuple[Server, list[VersionReport], Watched]:
    server = new_server(rounds, dict.fromkeys(sites, 1))
    executor = Watched(VirtualTime(Shuffled(seed), clock))
    return server, list(run_federation(server, executor)), executor


def told(executor: Watched) -> list[tuple[float, str, str]]:
    """What the server was told: moment, kind, whom it is about."""
    kinds = {Update: "update", SiteLost: "lost", SiteBack: "back", Deadline: "deadline"}
    return [(now, kinds[type(e)], str(getattr(e, "site", ""))) for now, e in executor.seen]
