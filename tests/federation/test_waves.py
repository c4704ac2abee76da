"""Networks and answers that go in waves, so that memory holds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from one_site import plan
from virtual_sites import virtual

from rayfed_hn.federation import loop, site_host
from rayfed_hn.federation.experiment import prepare
from rayfed_hn.federation.loop import InProcessExecutor, evaluate_sites, run_federation
from rayfed_hn.federation.messages import CandidatesRequest, Request, Scores, TrainRequest
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.site import Site
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.wire import Message


class Waves(InProcessExecutor):
    """Notes how many networks to be scored are sent at once."""

    def __init__(self, host: SiteHost) -> None:
        super().__init__(host)
        self.sizes: list[int] = []

    def submit(self, requests: Sequence[Request]) -> None:
        if requests and isinstance(requests[0], CandidatesRequest):
            self.sizes.append(len(requests))
        super().submit(requests)


def scored(of: Plan) -> tuple[list[Scores], list[int]]:
    server, executor = of.server(), Waves(SiteHost(of, of.participants))
    prepare(of, server, executor)
    assert list(run_federation(server, executor))
    scores, lost = evaluate_sites(server, executor)
    assert not lost
    return scores, executor.sizes


def told(scores: Sequence[Scores]) -> list[object]:
    return [
        {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(one).items()}
        for one in scores
    ]


@pytest.mark.parametrize("method", ["hypernetwork", "fedavg", "local"])
def test_waves_score_alike(bag_root: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    of = plan(bag_root, f"method.name={method}", "rounds.num_versions=2")
    whole, sizes = scored(of)
    assert sizes == [3]
    for networks, expected in ((0, [1, 1, 1]), (1, [1, 1, 1]), (2, [2, 1])):
        monkeypatch.setattr(loop, "WAVE_BYTES", networks * 4 * of.initial().numel())
        some, sizes = scored(of)
        assert sizes == expected
        assert repr(told(some)) == repr(told(whole))  # NaN is not equal to itself
    assert [one.site for one in whole] == ["north", "south", "west"]


def asked(of: Plan) -> list[TrainRequest]:
    theta = of.initial().numpy()
    return [TrainRequest(name, 0, theta, 0) for name in reversed(of.participants)]


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteHost:
    """A host whose answers are told apart by their first byte, and have ten."""
    of = virtual(tmp_path)
    host = SiteHost(of, of.participants)
    places = {name: i for i, name in enumerate(of.participants)}
    monkeypatch.setattr(host, "answer", lambda request: bytes([places[request.site]] * 10))
    return host


def batches(host: SiteHost) -> list[list[int]]:
    found = [[int(m[0]) for m in batch] for batch in host.answers(asked(host._plan))]
    assert sum(found, []) == [7, 6, 5, 4, 3, 2, 1, 0]  # noqa: RUF017
    return found


@pytest.mark.parametrize(("size", "expected"), [(1, [1] * 8), (21, [3, 3, 2]), (999, [8])])
def test_answers_travel_by_size(
    counted: SiteHost, monkeypatch: pytest.MonkeyPatch, size: int, expected: list[int]
) -> None:
    monkeypatch.setattr(site_host, "BATCH_SECONDS", 1e9)
    monkeypatch.setattr(site_host, "BATCH_BYTES", size)
    assert [len(batch) for batch in batches(counted)] == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, [1] * 8), (2.5, [3, 3, 2]), (99, [8])])
def test_answers_travel_by_time(
    counted: SiteHost, monkeypatch: pytest.MonkeyPatch, seconds: float, expected: list[int]
) -> None:
    """On a clock that goes on by a second whenever a site has answered."""
    now, answer = [0.0], counted.answer

    def slow(request: Request) -> Message:
        now[0] += 1
        return answer(request)

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    monkeypatch.setattr(counted, "answer", slow)
    monkeypatch.setattr(site_host, "time", Clock)
    monkeypatch.setattr(site_host, "BATCH_SECONDS", seconds)
    assert [len(batch) for batch in batches(counted)] == expected


def test_bags_are_opened_when_they_are_first_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, opened = virtual(tmp_path), []
    original = type(of).site

    def site(self: Plan, name: str, *more: object) -> Site:
        opened.append(name)
        return original(self, name, *more)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(type(of), "site", site)
    monkeypatch.setattr(site_host, "BATCH_BYTES", 1)
    host, requests = SiteHost(of, of.participants), asked(of)
    assert not opened
    answers: Iterator[object] = host.answers(requests)
    assert not opened
    for number in range(1, 4):
        next(answers)
        assert opened == [request.site for request in requests[:number]]
    list(host.answers(requests[:4]))
    assert opened == [request.site for request in requests[:4]]  # once each
