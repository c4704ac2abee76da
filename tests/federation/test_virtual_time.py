"""Simulated time: who is heard when, whatever really happens first."""

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
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayfed_hn.config import RoundsConfig, SimulationConfig
from rayfed_hn.errors import FederationError
from rayfed_hn.federation.experiment import Outcome, finish, prepare
from rayfed_hn.federation.loop import Executor, run_federation
from rayfed_hn.federation.messages import (
    CandidatesRequest,
    Deadline,
    Event,
    Request,
    SiteBack,
    SiteLost,
    TrainRequest,
    Update,
    read_answer,
)
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.rules.averaging import FedAvg
from rayfed_hn.federation.schedule import Schedule
from rayfed_hn.federation.server import Server, VersionReport
from rayfed_hn.federation.site_clock import SiteClock, Work
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.virtual_time import VirtualTime
from rayfed_hn.loading import load

VALUES = {"a": 1.0, "b": 10.0, "c": 100.0}  # a site's update, in both places


class Shuffled:
    """Sites that answer at once with their own value, in an order of its own."""

    more_now = False

    def begin_at(self, seconds: float) -> None:
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

    def begin_at(self, seconds: float) -> None:
        self.inner.begin_at(seconds)

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


# -- the order of events -----------------------------------------------------------------------


def plainly(durations: dict[str, list[float]], count: int) -> list[tuple[float, str]]:
    """The first answers of sites that never wait: the earliest one, of equals the first sent.

    Who answers at the same moment is asked again together, in the order of the names.
    """
    running = [(values[0], 0.0, site) for site, values in durations.items()]
    turns, found = dict.fromkeys(durations, 1), []
    while len(found) < count:
        first = min(running)
        running.remove(first)
        moment, _, site = first
        values = durations[site]
        running.append((moment + values[min(turns[site], len(values) - 1)], moment, site))
        turns[site] += 1
        found.append((moment, site))
    return found


seconds = st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 7.0]), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(st.tuples(seconds, seconds, seconds), st.integers(1, 4), st.integers(0, 99))
def test_answers_come_in_simulated_order_whatever_really_comes_first(
    durations: tuple[list[float], ...], buffer_size: int, seed: int
) -> None:
    table = dict(zip("abc", durations, strict=True))
    rounds = RoundsConfig(num_versions=6, buffer_size=buffer_size)
    clock = Table({site: [*values] for site, values in table.items()})
    _, reports, executor = run(clock, rounds, seed=seed)
    heard = [(now, event.site) for now, event in executor.seen if isinstance(event, Update)]
    assert heard == plainly(table, 6 * buffer_size)
    updates = [event for _, event in executor.seen if isinstance(event, Update)]
    turns = [[update.turn for update in updates if update.site == site] for site in "abc"]
    assert turns == [list(range(len(own))) for own in turns]
    assert [report.time for report in reports] == [
        heard[i][0] for i in range(buffer_size - 1, len(heard), buffer_size)
    ]


def test_waiting_for_nobody_is_an_error() -> None:
    with pytest.raises(FederationError, match="nothing is in flight"):
        VirtualTime(Shuffled(), Table({"a": [1.0]})).next_event()


# -- staleness, by hand ------------------------------------------------------------------------


FAST_AND_SLOW = ("a,1", "b,2.5")
STALENESS = [
    # durations; buffer, exponent, balanced, oldest; versions: (site, staleness, factor) of updates
    (
        FAST_AND_SLOW,
        (1, 0.5, False, None),
        [
            [("a", 0, 1)],
            [("a", 0, 1)],
            [("b", 2, 3**-0.5)],
            [("a", 1, 2**-0.5)],
            [("a", 0, 1)],
            [("b", 2, 3**-0.5)],  # both answer at 5; b was asked before
            [("a", 1, 2**-0.5)],
        ],
    ),
    (
        FAST_AND_SLOW,
        (1, 0.0, True, None),  # (mean + 1) / (own + 1) of the updates so far
        [[("a", 0, 3 / 4)], [("a", 0, 2 / 3)], [("b", 2, 5 / 4)], [("a", 1, 3 / 4)]],
    ),
    (
        FAST_AND_SLOW,
        (1, 1.0, True, None),
        [[("a", 0, 3 / 4)], [("a", 0, 2 / 3)], [("b", 2, 5 / 12)], [("a", 1, 3 / 8)]],
    ),
    (
        FAST_AND_SLOW,
        (1, 0.0, False, 1),  # what b sends at 2.5 and at 5 is too old
        [[("a", 0, 1)]] * 5,
    ),
    (
        ("a,1", "b,2.5", "c,4"),
        (2, 0.0, False, 1),  # c sends at 4 for version 0
        [
            [("a", 0, 1), ("a", 0, 1)],
            [("a", 0, 1), ("b", 1, 1)],
            [("a", 0, 1), ("b", 1, 1)],
        ],
    ),
    (
        ("a,1", "b,2.5", "c,4"),
        (2, 1.0, False, None),
        [
            [("a", 0, 1), ("a", 0, 1)],  # asked twice for the same version
            [("a", 0, 1), ("b", 1, 1 / 2)],
            [("a", 0, 1), ("c", 2, 1 / 3)],
            [("a", 0, 1), ("b", 2, 1 / 3)],
        ],
    ),
    (
        ("a,1", "a,3", "b,2"),  # a takes 1 and 3 seconds in turn
        (1, 2.0, False, None),
        # At 4 both answer, and both are asked again for the same version.
        [[("a", 0, 1)], [("b", 1, 1 / 4)], [("a", 1, 1 / 4)], [("b", 1, 1 / 4)], [("a", 0, 1)]],
    ),
]


@pytest.mark.parametrize(("lines", "knobs", "versions"), STALENESS)
def test_staleness_and_weights_are_a_table_written_by_hand(
    tmp_path: Path,
    lines: Sequence[str],
    knobs: tuple[int, float, bool, int | None],
    versions: list[list[tuple[str, int, float]]],
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(["site,seconds", *lines]) + "\n")
    buffer_size, exponent, balanced, oldest = knobs
    rounds = RoundsConfig(
        num_versions=len(versions),
        buffer_size=buffer_size,
        staleness_exponent=exponent,
        balance_arrivals=balanced,
        max_staleness=oldest,
    )
    sites = "".join(sorted({line[0] for line in lines}))
    clock = SiteClock(SimulationConfig(durations=str(trace)), dict.fromkeys(sites, 1), 0)
    server = new_server(rounds, dict.fromkeys(sites, 1))
    theta = 0.0
    reports = run_federation(server, VirtualTime(Shuffled(3), clock))
    for report, expected in zip(reports, versions, strict=True):
        found = [(u.site, tau) for u, tau in zip(report.updates, report.staleness, strict=True)]
        assert found == [(site, tau) for site, tau, _ in expected]
        theta -= sum(factor * VALUES[site] for site, _, factor in expected) / buffer_size
        np.testing.assert_allclose(server.parameters_for("a"), theta, rtol=1e-6)
    assert server.num_refused == (0 if oldest is None else 4 - len(sites))


# -- losses, absences and deadlines ------------------------------------------------------------


def told(executor: Watched) -> list[tuple[float, str, str]]:
    """What the server was told: moment, kind, whom it is about."""
    kinds = {Update: "update", SiteLost: "lost", SiteBack: "back", Deadline: "deadline"}
    return [(now, kinds[type(e)], str(getattr(e, "site", ""))) for now, e in executor.seen]


def test_who_drops_out_is_lost_and_comes_back() -> None:
    clock = Table({"a": [4.0], "b": [Work(1.5, 6.5), 3.0]})
    server, reports, executor = run(clock, RoundsConfig(num_versions=3), "ab")
    assert told(executor) == [
        (1.5, "lost", "b"),
        (4.0, "update", "a"),  # nobody else is left: a version
        (6.5, "back", "b"),
        (8.0, "update", "a"),  # b was asked as soon as it was back
        (9.5, "update", "b"),
        (12.5, "update", "b"),
        (13.5, "update", "a"),
    ]
    assert [[u.site for u in r.updates] for r in reports] == [["a"], ["a", "b"], ["a", "b"]]
    assert [r.num_alive for r in reports] == [1, 2, 2]
    (loss,) = server.lost
    assert (loss.site, loss.version, loss.turn, loss.returns) == ("b", 0, 0, True)
    assert [e.turn for _, e in executor.seen if isinstance(e, Update) and e.site == "b"] == [1, 2]


def test_a_request_that_is_lost_on_the_way_never_reaches_its_site() -> None:
    inner = Shuffled()
    executor = VirtualTime(inner, Table({"a": [Work(1.0, 2.0)], "b": [5.0]}))
    server = new_server(RoundsConfig(), {"a": 1, "b": 1})
    executor.submit(server.dispatch())
    assert [request.site for request in inner.waiting] == ["b"]


def test_everybody_may_be_away_for_a_while() -> None:
    clock = Table({"a": [Work(1.0, 10.0), 2.0], "b": [Work(2.0, 7.0), 2.0]})
    _, reports, executor = run(clock, RoundsConfig(num_versions=2), "ab")
    assert told(executor)[:4] == [
        (1.0, "lost", "a"),
        (2.0, "lost", "b"),
        (7.0, "back", "b"),
        (9.0, "update", "b"),
    ]
    assert [[u.site for u in r.updates] for r in reports] == [["b"], ["a", "b"]]


def test_absences_are_those_of_the_table(tmp_path: Path) -> None:
    absences = tmp_path / "absences.csv"
    absences.write_text("site,from,until\nb,0,2\nb,5,8\n")
    config = SimulationConfig(duration="constant", seconds=2.0, absences=str(absences))
    rounds = RoundsConfig(num_versions=5, buffer_size=2)
    _, _, executor = run(SiteClock(config, {"a": 1, "b": 1}, 0), rounds, "ab")
    of_b = [(now, kind) for now, kind, site in told(executor) if site == "b"]
    assert of_b[:5] == [(0, "lost"), (2, "back"), (4, "update"), (5, "lost"), (8, "back")]


def test_a_deadline_is_of_simulated_time() -> None:
    clock = Table({"a": [1.0], "b": [10.0], "c": [3.0]})
    rounds = RoundsConfig(num_versions=4, deadline=4.0, staleness_exponent=1.0)
    server, reports, executor = run(clock, rounds)
    assert [r.time for r in reports] == [4.0, 8.0, 11.0, 15.0]
    assert [[u.site for u in r.updates] for r in reports] == [
        ["a", "c"],
        ["a", "c"],
        ["a", "b", "c"],  # b answers at 10 for version 0; then nobody is waited for
        ["a", "c"],
    ]
    assert [r.staleness for r in reports] == [(0, 0), (0, 0), (0, 2, 0), (0, 0)]
    # The alarm of version 2, at 12, found version 3 made.
    assert [now for now, kind, _ in told(executor) if kind == "deadline"] == [4, 8, 12, 15]
    assert server.alive == ("a", "b", "c")


def test_too_few_at_a_simulated_deadline_is_an_error() -> None:
    rounds = RoundsConfig(num_versions=2, deadline=4.0, min_sites=2)
    with pytest.raises(FederationError, match="1 sites answered by the deadline of 4 s"):
        run(Table({"a": [1.0], "b": [9.0]}), rounds, "ab")


def test_a_real_loss_is_heard_when_the_answer_would_have_come() -> None:
    class Failing(Shuffled):
        def answer(self, request: TrainRequest) -> Event:
            if (request.site, request.turn) == ("a", 1):
                return SiteLost("a", request.version, "its actor died", 1)
            return super().answer(request)

    clock = Table({"a": [2.0], "b": [3.0]})
    server = new_server(RoundsConfig(num_versions=3), {"a": 1, "b": 1})
    executor = Watched(VirtualTime(Failing(), clock))
    reports = list(run_federation(server, executor))
    lost = [(now, event) for now, event in executor.seen if isinstance(event, SiteLost)]
    assert [(now, event.reason) for now, event in lost] == [(5.0, "its actor died")]
    assert [r.num_alive for r in reports] == [2, 1, 1]


# -- how busy sites are ------------------------------------------------------------------------


def test_busy_is_a_hand_computation() -> None:
    clock = Table({"a": [2.0, 4.0], "b": [5.0], "c": [Work(1.0, 3.5), 10.0]})
    server = new_server(RoundsConfig(num_versions=99, buffer_size=50), dict.fromkeys("abc", 1))
    executor, seen = VirtualTime(Shuffled(), clock), []
    for _ in range(5):
        executor.submit(server.dispatch())
        server.receive(executor.next_event())  # type: ignore[arg-type]
        seen.append((executor.now, executor.busy))
    assert seen == [
        (1.0, {"a": 1.0, "b": 1.0, "c": 1.0}),  # c drops out
        (2.0, {"a": 2.0, "b": 2.0, "c": 1.0}),
        (3.5, {"a": 3.5, "b": 3.5, "c": 1.0}),  # c is back
        (5.0, {"a": 5.0, "b": 5.0, "c": 2.5}),
        (6.0, {"a": 6.0, "b": 6.0, "c": 3.5}),
    ]
    assert executor.busy_share(3) == pytest.approx((6 + 6 + 3.5) / (3 * 6))


def test_whom_a_round_waits_for_is_busy_and_the_others_are_not() -> None:
    _, _, executor = run(Table({"a": [1.0], "b": [4.0]}), RoundsConfig(num_versions=3), "ab")
    assert executor.now == 12.0
    assert executor.inner.busy == {"a": 3.0, "b": 12.0}


def test_no_time_has_no_share() -> None:
    assert VirtualTime(Shuffled(), Table({"a": [1.0]})).busy_share(3) == 0.0


SIX_SITES: dict[str, int] = dict(zip("uvwxyz", (311, 196, 206, 162, 162, 51), strict=True))


@pytest.mark.parametrize(
    ("buffer_size", "low", "high"),
    [(None, 0.58, 0.59), (1, 0.95, 1.0), (2, 0.95, 1.0)],
)
def test_six_hospitals_are_busy_only_if_they_do_not_wait(
    buffer_size: int | None, low: float, high: float
) -> None:
    config = SimulationConfig(enabled=True, duration="constant", seconds_per_bag=0.5)
    server = new_server(RoundsConfig(num_versions=60, buffer_size=buffer_size), SIX_SITES)
    executor = VirtualTime(Shuffled(), SiteClock(config, SIX_SITES, 0))
    *_, last = run_federation(server, executor)
    assert low <= executor.busy_share(6) <= high
    if buffer_size is None:  # every round takes as long as its slowest site
        assert last.time == pytest.approx(60 * 0.5 * 311)
        assert executor.busy == pytest.approx({s: 30.0 * n for s, n in SIX_SITES.items()})


# -- whole runs --------------------------------------------------------------------------------


class Hosts:
    """Real sites, packed into hosts; the hosts answer in an order of their own.

    As on a cluster, a host answers what it is asked one after the other.
    """

    more_now = False

    def begin_at(self, seconds: float) -> None:
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
    assert other.num_absences == one.num_absences > 0
    assert len(one.scores) == 3
    for mine, theirs in zip(other.scores, one.scores, strict=True):
        for name, value in vars(theirs).items():
            np.testing.assert_array_equal(getattr(mine, name), value, err_msg=name)


def test_without_the_clock_the_order_of_answers_matters(bag_root: Path) -> None:
    # Or else the test above would show nothing.
    digests = {outcome_of(bag_root, Hosts, "n s w", seed).digest for seed in range(2)}
    assert len(digests) > 1


def test_scoring_comes_after_the_clock_has_stopped() -> None:
    class Scoring(Shuffled):
        def next_event(self) -> Event:
            request = self.waiting.pop()
            return SiteLost(request.site, request.version, "scored")

    inner: Any = Scoring()
    executor: Executor = VirtualTime(inner, Table({"a": [5.0]}))
    executor.submit([TrainRequest("a", 0, np.zeros(2, np.float32), 0)])
    executor.set_alarm(0, 9.0)
    executor.submit([CandidatesRequest("a", 0, np.zeros(2, np.float32), np.zeros((0, 2)))])
    event = executor.next_event()
    assert isinstance(event, SiteLost)
    assert (event.reason, executor.now) == ("scored", 0.0)
