"""A simulated run repeats, whatever order and packing real work has."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayfed_hn.federation.experiment import Outcome, finish, prepare
from rayfed_hn.federation.loop import run_federation
from rayfed_hn.federation.messages import Event, Request, read_answer
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.loading import load


class Hosts:
    """Real sites, packed into hosts; the hosts answer in an order of their own.

    As on a cluster, a host answers what it is asked one after the other.
    """

    more_now = False

    def state(self) -> dict[str, Any]:
        return {}

    def begin_at(self, seconds: float, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def __init__(self, plan: Plan, packing: str, seed: int) -> None:
        self.now = 0.0
        self.hosts: dict[str, SiteHost] = {}
        self.host_of: dict[str, str] = {}
        for names in packing.split():
            members = [site for site in plan.participants if site[0] in names]
            self.hosts[names] = SiteHost(plan, members)
            self.host_of |= dict.fromkeys(members, names)
        self.waiting: list[Request] = []
        self.rng = random.Random(seed)

    def submit(self, requests: Sequence[Request]) -> None:
        self.waiting += requests

    def set_alarm(self, version: int, seconds: float) -> None:
        raise AssertionError("a deadline is of simulated time")

    def next_event(self) -> Event:
        host = self.host_of[self.rng.choice(self.waiting).site]
        request = next(r for r in self.waiting if self.host_of[r.site] == host)
        self.waiting = [r for r in self.waiting if r is not request]
        return self.answer(request)

    def answer(self, request: Request) -> Event:
        return read_answer(request, self.hosts[self.host_of[request.site]].answer(request))


class Threads(Hosts):
    """The same at once, in one thread for every host, which takes its time."""

    def __init__(self, plan: Plan, packing: str, seed: int) -> None:
        super().__init__(plan, packing, seed)
        self.threads = {names: ThreadPoolExecutor(1) for names in self.hosts}
        self.running: set[Future[Event]] = set()

    def submit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            thread, delay = self.threads[self.host_of[request.site]], self.rng.random() / 50
            self.running.add(thread.submit(self.slowly, request, delay))

    def slowly(self, request: Request, delay: float) -> Event:
        time.sleep(delay)
        return self.answer(request)

    def next_event(self) -> Event:
        first = wait(self.running, return_when=FIRST_COMPLETED).done.pop()
        self.running.remove(first)
        return first.result()


ASYNC = (
    *("rounds.num_versions=8", "training.steps=2", "training.learning_rate=0.01"),
    *("rounds.buffer_size=2", "simulation.slowest=3", "method.name=hypernetwork"),
)
SIMULATED = ("simulation.enabled=true", "simulation.dropout=0.15", "simulation.away_seconds=40")


def outcome_of(bag_root: Path, inner: type[Hosts], packing: str, seed: int, *words: str) -> Outcome:
    plan = make_plan(load(None, [*ASYNC, *words]), bag_root)
    server, executor = plan.server(), plan.executor(inner(plan, packing, seed))
    prepare(plan, server, executor)
    for _ in run_federation(server, executor):
        pass
    return finish(plan, server, executor)


@cache
def expected(bag_root: Path) -> Outcome:
    return outcome_of(bag_root, Hosts, "nsw", 0, *SIMULATED)


@pytest.mark.parametrize(
    ("inner", "packing", "seed"),
    [(Hosts, "n s w", 1), (Hosts, "n s w", 2), (Hosts, "sn w", 3), (Threads, "n s w", 4)],
)
def test_a_simulated_run_repeats_whatever_order_and_packing(
    bag_root: Path, inner: type[Hosts], packing: str, seed: int
) -> None:
    one, other = expected(bag_root), outcome_of(bag_root, inner, packing, seed, *SIMULATED)
    assert other.digest == one.digest
    assert (other.seconds, other.busy_share) == (one.seconds, one.busy_share)
    assert other.absences == one.absences != ()
    assert len(one.scores) == 3
    for mine, theirs in zip(other.scores, one.scores, strict=True):
        for name, value in vars(theirs).items():
            np.testing.assert_array_equal(getattr(mine, name), value, err_msg=name)


def test_without_the_clock_the_order_of_answers_matters(bag_root: Path) -> None:
    # Or else the test above would show nothing.
    digests = {outcome_of(bag_root, Hosts, "n s w", seed).digest for seed in range(2)}
    assert len(digests) > 1
