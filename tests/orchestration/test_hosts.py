"""Actors that die, are silent or have no place: started anew, asked again, awaited, given up."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import cloudpickle

from rayfed_hn.errors import FederationError
from rayfed_hn.federation.messages import (
    Deadline,
    Prepared,
    PrepareRequest,
    Request,
    SiteBack,
    SiteLost,
    TrainRequest,
    Update,
)
from rayfed_hn.models.standardise import Standardisation
from rayfed_hn.orchestration import executor as executor_module
from rayfed_hn.orchestration.executor import RayExecutor
from rayfed_hn.orchestration.hosts import Care

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
SCALE = Standardisation(np.zeros(2, np.float32), np.ones(2, np.float32))


class Host:
    """Writes down every request; a site whose file is there dies, or hangs, at most as often."""

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        self.folder, self.prepared = folder, set[str]()
        time.sleep(seconds)

    def ready(self) -> None:
        pass

    @ray.method(num_returns="streaming")
    def answers(self, requests: Sequence[Request]) -> Iterator[list[np.ndarray]]:
        for request in requests:
            with (self.folder / "asked").open("a") as file:
                file.write(f"{type(request).__name__} {request.site}\n")
            self.misfortune(request.site)
            if isinstance(request, PrepareRequest):
                self.prepared.add(request.site)
                message = Prepared(request.site, request.version).to_bytes()
            else:
                assert isinstance(request, TrainRequest)
                known = np.full(3, request.site in self.prepared, np.float32)
                about = request.site, request.version, request.turn
                message = Update(*about, known, 0, 0, None, 1, 0.0).to_bytes()
            yield [np.frombuffer(message, np.uint8)]

    def misfortune(self, site: str) -> None:
        for kind in ("dies", "hangs"):
            path = self.folder / f"{kind}-{site}"
            left = int(path.read_text()) if path.exists() else 0
            if left:
                path.write_text(str(left - 1))
                if kind == "dies":
                    time.sleep(0.5)  # what it answered before is on its way
                    os._exit(1)
                time.sleep(1000)


class Hosts:
    """One host and those that take its place."""

    def __init__(self, folder: Path) -> None:
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        self.folder, self.seconds, self.options = folder, 0.0, dict[str, Any](num_cpus=0)
        self.made: list[Any] = []

    def start(self, site: str = "") -> Any:
        actor: Any = ray.remote(**self.options)(Host)
        self.made.append(actor.remote(self.folder, self.seconds))
        return self.made[-1]

    def executor(self, sites: str = "ab", **care: Any) -> RayExecutor:
        handles = dict.fromkeys(sites, self.start())
        return RayExecutor(handles, care=Care(self.start, **care))

    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    for actor in made.made:
        ray.kill(actor)


def request(site: str, turn: int = 0) -> TrainRequest:
    return TrainRequest(site, 7, np.zeros(3, np.float32), turn)


def nothing_left(executor: RayExecutor) -> bool:
    with pytest.raises(FederationError, match="nothing is in flight"):
        executor.next_event()
    return True


def test_what_was_not_answered_is_asked_again_and_nothing_else(hosts: Hosts) -> None:
    executor = hosts.executor("abc", restarts=1)
    (hosts.folder / "dies-b").write_text("1")
    executor.submit([request("a"), request("b", 4), request("c")])
    executor.submit([request("a", 1)])  # a second call
    found = [executor.next_event() for _ in range(4)]
    assert [(e.site, e.turn) for e in found if isinstance(e, Update)] == [
        *(("a", 0), ("b", 4), ("c", 0), ("a", 1))
    ]
    assert nothing_left(executor)
    assert [line[-1] for line in hosts.asked()] == list("abbca")
    assert executor.restarts == {"a": 1, "b": 1, "c": 1}


def test_what_a_process_forgets_it_is_told_again_in_silence(hosts: Hosts) -> None:
    executor = hosts.executor("ab", restarts=1)
    executor.submit([PrepareRequest("a", 7, SCALE), PrepareRequest("b", 7, SCALE)])
    assert {type(executor.next_event()) for _ in "ab"} == {Prepared}
    (hosts.folder / "dies-a").write_text("1")
    executor.submit([request("a")])
    first = executor.next_event()
    executor.submit([request("b"), request("a", 1)])
    for event in (first, executor.next_event(), executor.next_event()):
        assert isinstance(event, Update)
        assert event.update.all()  # the host knew the scale
    assert nothing_left(executor)
    told = [f"PrepareRequest {site}" for site in "ab"]
    trains = [f"TrainRequest {site}" for site in "ab"]
    assert hosts.asked() == [
        *(told[0], told[1], trains[0], told[0], trains[0], told[1], trains[1], trains[0])
    ]


@pytest.mark.parametrize(("deaths", "fine"), [(2, True), (3, False)])
def test_deaths_in_a_row(hosts: Hosts, deaths: int, fine: bool) -> None:
    executor = hosts.executor("a", restarts=2)
    for turn in range(2):  # an answer in between makes it begin anew
        (hosts.folder / "dies-a").write_text(str(deaths))
        executor.submit([request("a", turn)])
        event = executor.next_event()
        if not fine:
            reason = "its actor died (ActorDiedError), 3 times in a row"
            assert event == SiteLost("a", 7, reason, turn)
            executor.submit([request("a", 5)])
            assert executor.next_event() == SiteLost("a", 7, reason, 5)
            assert nothing_left(executor)
            return
        assert isinstance(event, Update)
    assert executor.restarts == {"a": 4}


@pytest.mark.parametrize(("hangs", "fine"), [(1, True), (2, False)])
def test_a_silent_actor_is_ended_though_nothing_else_happens(
    hosts: Hosts, hangs: int, fine: bool
) -> None:
    executor = hosts.executor("ab", restarts=1, silence=3.0)
    (hosts.folder / "hangs-b").write_text(str(hangs))
    executor.submit([request("a"), request("b")])
    assert isinstance(executor.next_event(), Update)
    begun = time.monotonic()
    event = executor.next_event()
    assert time.monotonic() - begun > 2.9
    if fine:
        assert isinstance(event, Update)
    else:
        assert event == SiteLost("b", 7, "it did not answer within 3 s, 2 times in a row")


def test_who_is_not_waited_for_is_not_silent(hosts: Hosts) -> None:
    executor = hosts.executor("a", restarts=0, silence=1.0)
    ray.get(hosts.made[0].ready.remote())
    executor.submit([request("a")])
    time.sleep(1.5)  # the server is busy
    assert isinstance(executor.next_event(), Update)


def nowhere(hosts: Hosts) -> None:
    hosts.options = {"num_cpus": 0, "resources": {"site:nowhere": 1}}


def slow(hosts: Hosts) -> None:
    hosts.seconds = 4.0


@pytest.mark.parametrize("place", [nowhere, slow])
def test_sites_without_a_place_are_away_and_come_back_or_are_given_up(
    hosts: Hosts, place: Callable[[Hosts], None]
) -> None:
    executor = hosts.executor("ab", restarts=3, wait=1.0, limit=3.0 if place is nowhere else 60.0)
    place(hosts)
    (hosts.folder / "dies-a").write_text("1")
    executor.submit([request("a", 2)])
    assert executor.next_event() == SiteLost("a", 7, "its node is away", 2, returns=True)
    executor.submit([PrepareRequest("b", 7, SCALE)])  # as after a restart of the centre
    assert executor.next_event() == SiteLost("b", 7, "its node is away", returns=True)
    executor.set_alarm(7, 0.1)
    assert executor.next_event() == Deadline(7)
    if place is nowhere:
        reason = "its node did not come back within 3 s"
        given_up = [executor.next_event() for _ in "ab"]
        assert given_up == [SiteLost("a", 7, reason, 2), SiteLost("b", 7, reason)]
        with pytest.raises(FederationError, match="did not come back within 3 s"):
            executor.next_event()
        executor.submit([request("a", 3)])
        assert executor.next_event() == SiteLost("a", 7, reason, 3)
        return
    assert [executor.next_event() for _ in "ab"] == [SiteBack("a"), SiteBack("b")]
    executor.submit([request("a", 3), request("b", 3)])
    for site in "ab":
        update = executor.next_event()
        assert isinstance(update, Update)
        assert (update.site, update.update[0]) == (site, site == "b")  # it was prepared first
    # Nothing is asked that nobody waits for any more.
    assert hosts.asked() == [
        "TrainRequest a",
        "TrainRequest a",
        "PrepareRequest b",
        "TrainRequest b",
    ]


def test_who_is_waited_for_is_told(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(executor_module, "TELL_SECONDS", 0.5)
    executor = hosts.executor("a", restarts=0, silence=3.0)
    (hosts.folder / "hangs-a").write_text("1")
    executor.submit([request("a")])
    assert isinstance(executor.next_event(), SiteLost)
    told = capsys.readouterr().out.splitlines()
    assert 2 <= len(told) <= 8
    assert all(re.fullmatch(r"nothing heard for \d s; waiting for a", line) for line in told)


def test_simulated_time_waits_for_a_place(hosts: Hosts) -> None:
    executor = hosts.executor("a", restarts=3, wait=None, limit=60.0)
    slow(hosts)
    (hosts.folder / "dies-a").write_text("1")
    executor.submit([request("a")])
    assert isinstance(executor.next_event(), Update)
