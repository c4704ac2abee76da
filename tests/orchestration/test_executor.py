"""Calls to hosts: one for all requests to it; what does not come back is lost, and said to be."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import cloudpickle

from rayfed_hn.errors import FederationError
from rayfed_hn.federation.messages import Deadline, Event, Request, SiteLost, TrainRequest, Update
from rayfed_hn.federation.wire import Message
from rayfed_hn.orchestration import executor as executor_module
from rayfed_hn.orchestration.executor import RayExecutor

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


BYTES = np.zeros(3, np.uint8)
ODD: dict[str, Any] = {
    "too many": [BYTES, BYTES, BYTES],
    "none": [],
    "no list": BYTES,
    "not in bytes": [np.zeros(3)],
    "a table": [np.zeros((3, 3), np.uint8)],
    "text": ["abc"],
}


class Host:
    """Answers in batches of two; what it does beside that is in the names of its sites."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def told(self) -> list[tuple[int, int]]:
        """Of every call, how many requests and how many different networks came with it."""
        return self.calls

    @ray.method(num_returns="streaming")
    def answers(self, requests: Sequence[TrainRequest]) -> Iterator[list[np.ndarray]]:
        self.calls.append((len(requests), len({id(r.parameters) for r in requests})))
        batch = []
        for request in requests:
            if request.site == "stops":
                return
            if request.site == "fails":
                raise KeyError("a path that nobody should see")
            if request.site in ODD:
                yield ODD[request.site]
            while request.site.startswith("/") and not Path(request.site).exists():
                time.sleep(0.01)
            update = request.parameters + np.float32(request.turn)
            answer = Update(request.site, request.version, request.turn, update, 0, 0, None, 1, 0.0)
            batch.append(np.frombuffer(answer.to_bytes(), np.uint8))
            if len(batch) == 2 or request.site == "alone":
                yield batch
                batch = []
        yield batch


@pytest.fixture(scope="module")
def made(ray_session: None) -> Iterator[list[Any]]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    hosts: list[Any] = [ray.remote(num_cpus=0)(Host).remote() for _ in range(3)]
    yield hosts
    for host in hosts:
        ray.kill(host)


def request(site: str, turn: int = 0, network: np.ndarray | None = None) -> TrainRequest:
    return TrainRequest(site, 7, np.zeros(3, np.float32) if network is None else network, turn)


def events(executor: RayExecutor, count: int) -> list[Event]:
    found = [executor.next_event() for _ in range(count)]
    with pytest.raises(FederationError, match="nothing is in flight"):
        executor.next_event()
    return found


def test_requests_to_a_host_are_one_call_and_what_they_share_travels_once(made: list[Any]) -> None:
    hosts = {"a": made[0], "b": made[1], "c": made[0], "d": made[0], "e": made[0]}
    executor = RayExecutor(hosts)
    before = [len(ray.get(host.told.remote())) for host in made]
    shared, own = np.full(3, 2, np.float32), np.zeros(3, np.float32)
    networks = {"a": shared, "b": shared, "c": shared, "d": own, "e": shared}
    executor.submit([request(s, turn, networks[s]) for turn, s in enumerate("abcde")])
    executor.submit([])
    found = [event for event in events(executor, 5) if isinstance(event, Update)]
    assert {event.site for event in found} == set("abcde")
    assert [event.site for event in found if event.site != "b"] == list("acde")
    for event in found:
        turn = "abcde".index(event.site)
        np.testing.assert_array_equal(event.update, networks[event.site] + np.float32(turn))
    calls = [ray.get(host.told.remote())[n:] for host, n in zip(made, before, strict=True)]
    assert calls == [[(4, 2)], [(1, 1)], []]


def test_an_answer_comes_while_its_host_works_on(made: list[Any], tmp_path: Path) -> None:
    late = str(tmp_path / "now")
    executor = RayExecutor({"alone": made[0], late: made[0]})
    executor.submit([request("alone"), request(late)])
    first = executor.next_event()
    assert isinstance(first, Update)
    assert first.site == "alone"
    Path(late).touch()
    (second,) = events(executor, 1)
    assert isinstance(second, Update)
    assert second.site == late


@pytest.mark.parametrize(
    ("last", "kind"), [("stops", "StopIteration"), ("fails", "RayTaskError(KeyError)")]
)
def test_who_is_not_answered_is_lost(made: list[Any], last: str, kind: str) -> None:
    sites = ["a", "b", last, "c"]
    executor = RayExecutor(dict.fromkeys(sites, made[0]))
    executor.submit([request(site, turn=4) for site in sites])
    found = events(executor, 4)
    assert [type(event) for event in found] == [Update, Update, SiteLost, SiteLost]
    for event, site in zip(found[2:], (last, "c"), strict=True):
        assert isinstance(event, SiteLost)
        assert (event.site, event.version, event.turn) == (site, 7, 4)
        assert event.reason == f"its actor died ({kind})"  # and not with which words
    # The host itself is still there.
    executor.submit([request("a")])
    assert [type(event) for event in events(executor, 1)] == [Update]


@pytest.mark.parametrize("odd", ODD)
def test_a_host_that_does_not_give_answers_is_lost(made: list[Any], odd: str) -> None:
    executor = RayExecutor(dict.fromkeys((odd, "b"), made[1]))
    executor.submit([request(odd), request("b")])
    for event, site in zip(events(executor, 2), (odd, "b"), strict=True):
        assert event == SiteLost(site, 7, "its actor died (MessageError)")


def test_large_networks_travel_in_several_calls(
    made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "CALL_BYTES", 24)  # two networks of three numbers
    before = len(ray.get(made[2].told.remote()))
    shared = np.zeros(3, np.float32)
    networks = [np.full(3, n, np.float32) for n in range(5)] + [shared] * 4
    executor = RayExecutor({f"s{n}": made[2] for n in range(9)})
    executor.submit([request(f"s{n}", 0, network) for n, network in enumerate(networks)])
    found = events(executor, 9)
    for event in found:
        assert isinstance(event, Update)
        np.testing.assert_array_equal(event.update, networks[int(event.site[1:])])
    assert {event.site for event in found if isinstance(event, Update)} == set(executor._hosts)
    # What all share takes no more room however many share it.
    assert ray.get(made[2].told.remote())[before:] == [(2, 2), (2, 2), (5, 2)]


def test_a_deadline_comes_once_and_nothing_is_missed(made: list[Any], tmp_path: Path) -> None:
    late = str(tmp_path / "now")
    executor = RayExecutor({late: made[1]})
    executor.set_alarm(3, 1000.0)
    executor.set_alarm(7, 0.05)  # in place of the one before
    executor.submit([request(late)])
    assert executor.next_event() == Deadline(7)
    Path(late).touch()
    (event,) = events(executor, 1)
    assert isinstance(event, Update)


def test_answers_are_read_by_whom_was_asked(made: list[Any]) -> None:
    asked: list[tuple[str, int]] = []

    def read(request: Request, message: Message) -> Event:
        asked.append((request.site, len(message)))
        return SiteLost(request.site, request.version, "by hand")

    executor = RayExecutor({"a": made[2], "b": made[2]}, read)
    executor.submit([request("a"), request("b")])
    assert [type(event) for event in events(executor, 2)] == [SiteLost, SiteLost]
    assert [site for site, _ in asked] == ["a", "b"]
    assert min(length for _, length in asked) > 12
