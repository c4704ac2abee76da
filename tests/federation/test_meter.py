"""What a metered run counts, and that it is the run that it would be without a meter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from virtual_sites import virtual

from rayfed_hn.federation import meter
from rayfed_hn.federation.failures import failure_message
from rayfed_hn.federation.loop import Executor, InProcessExecutor, Read, run_federation
from rayfed_hn.federation.messages import Event, Request, TrainRequest, read_answer
from rayfed_hn.federation.meter import Metered, VersionCost
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.versions import VersionReport
from rayfed_hn.federation.wire import Message

PHASES = ("generation", "pull_back", "sending", "reading", "waiting")
NUM_SITES, BAD = 8, "site-00003"


@dataclass
class Heard:
    """A host that keeps what it was asked, and fails for some sites."""

    host: SiteHost
    failing: str | None = None
    asked: list[TrainRequest] = field(default_factory=list)
    answered: int = 0

    def answer(self, request: Request) -> Message:
        assert isinstance(request, TrainRequest)
        self.asked.append(request)
        failed = request.site == self.failing
        message = failure_message(OSError()) if failed else self.host.answer(request)
        self.answered += len(message)
        return message


def heard(plan: Plan, failing: str | None = None) -> Heard:
    return Heard(SiteHost(plan, plan.participants), failing)


def metered(plan: Plan, host: Heard, num_hosts: int = 1) -> list[VersionCost]:
    host_of = {name: i % num_hosts for i, name in enumerate(plan.participants)}
    return list(Metered(plan, host_of, lambda read: InProcessExecutor(host, read)).versions())


@pytest.mark.parametrize("cohort", [5, NUM_SITES])
@pytest.mark.parametrize("failing", [None, BAD])
@pytest.mark.parametrize("method", ["hypernetwork", "fedavg", "local", "fedper"])
def test_the_meter_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    failing: str | None,
    cohort: int,
) -> None:
    plan = virtual(tmp_path, f"scale.cohort_size={cohort}", method=method, num_sites=NUM_SITES)
    servers: list[Server] = []
    original = meter.run_federation

    def keep(server: Server, executor: Executor) -> Iterator[VersionReport]:
        servers.append(server)
        return original(server, executor)

    monkeypatch.setattr(meter, "run_federation", keep)
    one, other = heard(plan, failing), heard(plan, failing)
    costs = metered(plan, one)
    server = plan.server()
    reports = list(run_federation(server, InProcessExecutor(other)))
    assert [cost.version for cost in costs] == [report.version for report in reports] == [1, 2]
    assert [cost.num_updates for cost in costs] == [len(report.updates) for report in reports]
    (found,) = servers
    state, expected = found.rule.state(), server.rule.state()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert np.array_equal(state[name].numpy(), tensor.numpy()), name
    assert len(one.asked) == len(other.asked) > 5
    for request, same in zip(one.asked, other.asked, strict=True):
        assert (request.site, request.version, request.turn) == (same.site, same.version, same.turn)
        assert np.array_equal(request.parameters, same.parameters)


class Slow:
    """An executor that takes its time over one of its calls."""

    def __init__(self, inner: InProcessExecutor, sending: float, waiting: float) -> None:
        self._inner, self._sending, self._waiting = inner, sending, waiting
        self.now, self.more_now = 0.0, False
        self.state, self.begin_at, self.set_alarm = inner.state, inner.begin_at, inner.set_alarm

    def submit(self, requests: Sequence[Request]) -> None:
        pause(self._sending if requests else 0)
        self._inner.submit(requests)

    def next_event(self) -> Event:
        pause(self._waiting)
        return self._inner.next_event()


clock = [0.0]


def pause(seconds: float) -> None:
    clock[0] += seconds


def test_where_the_time_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only goes on when it is told to."""
    monkeypatch.setattr(meter, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    plan = virtual(tmp_path, num_sites=NUM_SITES)

    def connect(read: Read) -> Slow:
        return Slow(InProcessExecutor(heard(plan), read), 7, 0.5)

    def reading(request: Request, message: Message) -> Event:
        pause(0.25)
        return read_answer(request, message)

    monkeypatch.setattr(type(plan), "read", property(lambda plan: reading))
    costs = list(Metered(plan, dict.fromkeys(plan.participants, 0), connect).versions())
    for cost in costs:
        assert cost.sending == 7
        assert cost.reading == 0.25 * NUM_SITES
        assert cost.waiting == 0.5 * NUM_SITES  # reading is not waiting
        assert cost.generation == cost.pull_back == 0
        assert cost.seconds == 7 + 0.75 * NUM_SITES


@pytest.mark.parametrize("method", ["hypernetwork", "fedavg"])
def test_phases_are_within_the_time(tmp_path: Path, method: str) -> None:
    for cost in metered(plan := virtual(tmp_path, method=method), heard(plan)):
        parts = [getattr(cost, phase) for phase in PHASES]
        assert min(parts) >= 0
        assert 0 < sum(parts) <= cost.seconds
        assert min(cost.generation, cost.pull_back, cost.reading, cost.waiting) > 0
        assert 0 < cost.training <= cost.waiting  # of a single host


def test_hosts_train_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = virtual(tmp_path)
    seen: list[float] = []
    original = meter.run_federation

    def keep(server: Server, executor: Executor) -> Iterator[VersionReport]:
        for report in original(server, executor):
            seen.append(sum(update.seconds for update in report.updates))
            yield report

    monkeypatch.setattr(meter, "run_federation", keep)
    costs = metered(plan, heard(plan), 4)
    assert [cost.training for cost in costs] == [pytest.approx(total / 4) for total in seen]


@pytest.mark.parametrize("num_hosts", [1, 3, NUM_SITES])
@pytest.mark.parametrize("method", ["hypernetwork", "fedavg"])
def test_bytes(tmp_path: Path, method: str, num_hosts: int) -> None:
    plan = virtual(tmp_path, method=method, num_sites=NUM_SITES)
    host = heard(plan)
    costs = metered(plan, host, num_hosts)
    network = 4 * plan.initial().numel()
    trips = num_hosts if method == "fedavg" else NUM_SITES
    for cost in costs:
        assert cost.bytes_down == trips * network
        assert cost.num_updates == NUM_SITES
        assert network * NUM_SITES <= cost.bytes_up <= (network + 512) * NUM_SITES
        assert cost.num_lost == 0
    assert sum(cost.bytes_up for cost in costs) == host.answered


def test_lost_sites_are_counted(tmp_path: Path) -> None:
    plan = virtual(tmp_path, num_sites=NUM_SITES)
    costs = metered(plan, heard(plan, BAD))
    assert [cost.num_lost for cost in costs] == [1, 0]
    assert [cost.num_updates for cost in costs] == [NUM_SITES - 1] * 2
