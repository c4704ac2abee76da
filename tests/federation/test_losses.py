"""Losses, deadlines, and answers at the wrong time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_server import SITES, SYNCHRONOUS, answer, lost, new_server

from rayfed_hn.config import RoundsConfig
from rayfed_hn.errors import FederationError
from rayfed_hn.federation.loop import Executor, evaluate_sites, run_federation
from rayfed_hn.federation.messages import (
    CandidateMetrics,
    CandidatesRequest,
    Deadline,
    Event,
    Request,
    Scores,
    SiteBack,
    TrainRequest,
)
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.versions import VersionReport


class Scripted:
    """An executor that answers from the last request to the first and loses whom it is told."""

    def __init__(self, lose: dict[int, set[str]], late: set[str] | None = None) -> None:
        self.lose, self.late = lose, late or set()
        self.waiting: list[Request] = []
        self.alarm: int | None = None
        self.now = 0.0
        self.more_now = False

    def state(self) -> dict[str, Any]:
        return {}

    def begin_at(self, seconds: float, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def submit(self, requests: Sequence[Request]) -> None:
        self.waiting += requests

    def set_alarm(self, version: int, seconds: float) -> None:
        assert seconds == 5
        self.alarm = version

    def next_event(self) -> Event:
        ready = [r for r in self.waiting if r.site not in self.late]
        if not ready and self.alarm is not None:
            event, self.alarm = Deadline(self.alarm), None
            return event
        if not ready:
            raise FederationError("nothing is in flight; waiting would never end")
        request = ready[-1]
        self.waiting.remove(request)
        assert isinstance(request, TrainRequest)
        if request.site in self.lose.get(request.version, ()):
            return lost(request)
        return answer(request)


def run(
    executor: Executor, config: RoundsConfig = SYNCHRONOUS
) -> tuple[Server, list[VersionReport]]:
    server = new_server(config)
    return server, list(run_federation(server, executor))


def test_a_lost_site_does_not_stop_the_others() -> None:
    server, reports = run(Scripted({1: {"a", "d"}}))
    assert [r.num_alive for r in reports] == [4, 2, 2]
    assert [[u.site for u in r.updates] for r in reports] == [list("abcd"), list("bc"), list("bc")]
    assert {(loss.site, loss.version) for loss in server.lost} == {("a", 1), ("d", 1)}


def test_losing_everybody_is_an_error_that_says_so() -> None:
    with pytest.raises(FederationError, match=r"all 4 sites were lost by version 2.*cable"):
        run(Scripted({2: set(SITES)}))


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_who_returns_is_waited_for_even_if_the_others_never_do(order: tuple[bool, bool]) -> None:
    server = new_server(SYNCHRONOUS, sites="ab")
    requests = server.dispatch()
    for request, returns in zip(requests, order, strict=True):
        assert server.receive(lost(request, returns=returns)) is None
    assert server.dispatch() == []
    back = "a" if order[0] else "b"
    server.receive(SiteBack(back))
    assert [request.site for request in server.dispatch()] == [back]


def test_waiting_for_nobody_is_an_error() -> None:
    with pytest.raises(FederationError, match="nothing is in flight"):
        Scripted({}).next_event()


def test_a_deadline_makes_a_version_of_who_is_there() -> None:
    config = replace(SYNCHRONOUS, deadline=5, min_sites=3)
    server, reports = run(Scripted({}, late={"b"}), config)
    assert [[u.site for u in r.updates] for r in reports] == [list("acd")] * 3
    assert server.alive == SITES


def test_an_answer_after_the_deadline_counts_as_late() -> None:
    config = replace(SYNCHRONOUS, deadline=5, balance_arrivals=False)
    server = new_server(config, sites="ab")
    slow = next(request for request in server.dispatch() if request.site == "b")
    server.receive(answer(TrainRequest("a", 0, slow.parameters, 0)))
    assert server.receive(Deadline(0)) is not None
    (again,) = server.dispatch()
    assert (again.site, again.version) == ("a", 1)
    server.receive(answer(again))
    report = server.receive(answer(slow))
    assert report is not None
    assert report.staleness == (0, 1)
    np.testing.assert_allclose(server.parameters_for("a"), -1 - (1 + 2**-0.5) / 2, rtol=1e-6)


@pytest.mark.parametrize("buffer_size", [None, 4])
def test_too_few_at_the_deadline_are_waited_for(buffer_size: int | None) -> None:
    config = replace(SYNCHRONOUS, deadline=5, min_sites=3, buffer_size=buffer_size)
    server = new_server(config)
    a, b, c, _ = server.dispatch()
    server.receive(answer(a))
    server.receive(answer(b))
    assert server.receive(Deadline(0)) is None
    report = server.receive(answer(c))  # d is not waited for
    assert report is not None
    assert [update.site for update in report.updates] == list("abc")
    # The next version has a deadline of its own.
    asked = {request.site: request for request in server.dispatch()}
    assert [server.receive(answer(asked[site])) for site in "abc"] == [None, None, None]
    assert server.receive(Deadline(1)) is not None


def test_answers_of_one_site_are_one_answer_at_the_deadline() -> None:
    server = new_server(replace(SYNCHRONOUS, deadline=5, min_sites=2, buffer_size=9), sites="abc")
    asked = {request.site: request for request in server.dispatch()}
    for _ in range(3):
        server.receive(answer(asked["a"]))
        asked |= {request.site: request for request in server.dispatch()}
    assert server.receive(Deadline(0)) is None
    report = server.receive(answer(asked["b"]))
    assert report is not None
    assert [update.site for update in report.updates] == list("aaab")


@pytest.mark.parametrize(("cohort_size", "gone"), [(2, 0), (None, 2)])
def test_more_than_can_answer_are_not_waited_for(cohort_size: int | None, gone: int) -> None:
    # A cohort of two, or two sites that are away for a while.
    config = replace(SYNCHRONOUS, deadline=5, min_sites=3, cohort_size=cohort_size, buffer_size=9)
    server = new_server(config)
    requests = server.dispatch()
    for request in requests[2 : 2 + gone]:
        server.receive(lost(request, returns=True))
    assert server.receive(Deadline(0)) is None
    assert server.receive(answer(requests[0])) is None
    assert server.receive(answer(requests[1])) is not None


def test_who_is_lost_after_the_deadline_is_not_waited_for() -> None:
    server = new_server(replace(SYNCHRONOUS, deadline=5, min_sites=3), sites="abc")
    a, b, c = server.dispatch()
    server.receive(answer(a))
    server.receive(answer(b))
    assert server.receive(Deadline(0)) is None
    report = server.receive(lost(c, returns=True))
    assert report is not None
    assert [update.site for update in report.updates] == list("ab")


@pytest.mark.parametrize("deadline", [None, 5.0])
def test_fewer_sites_than_min_sites_are_an_error_that_names_it(deadline: float | None) -> None:
    config = replace(SYNCHRONOUS, deadline=deadline, min_sites=3)
    server, reports = run(Scripted({1: {"a"}}), config)
    assert [report.num_alive for report in reports] == [4, 3, 3]
    with pytest.raises(FederationError) as error:
        run(Scripted({1: {"a", "d"}}), config)
    assert "2 of 4 sites are left at version 1, rounds.min_sites is 3" in str(error.value)
    assert "cable" in str(error.value)
    # Who comes back is not gone.
    server = new_server(config)
    for request in server.dispatch():
        server.receive(lost(request, returns=True))
    assert server.version == 0


def test_old_updates_are_dropped_and_counted() -> None:
    config = RoundsConfig(buffer_size=1, max_staleness=1)
    server = new_server(config, sites="ab")
    asked = {request.site: request for request in server.dispatch()}
    for _ in range(2):
        server.receive(answer(asked["a"]))
        asked |= {request.site: request for request in server.dispatch()}
    assert server.receive(answer(asked["b"], 9)) is None  # two versions late
    report = server.receive(answer(asked["a"]))
    assert report is not None
    assert (report.num_refused, [u.site for u in report.updates]) == (1, ["a"])
    assert [request.site for request in server.dispatch()] == ["a", "b"]


# -- scoring -----------------------------------------------------------------------------------


def scores(request: Request) -> Scores:
    empty, nothing = np.zeros(0), np.zeros((0, 1))
    return Scores(request.site, request.version, None, *[empty] * 8, *[nothing] * 3)


def test_scores_during_training_are_an_error() -> None:
    class Confused(Scripted):
        def next_event(self) -> Event:
            return scores(self.waiting[0])

    with pytest.raises(FederationError, match="sent Scores during training"):
        run(Confused({}))


def test_what_the_last_version_did_not_wait_for_does_not_take_the_place_of_scores() -> None:
    class Busy(Scripted):
        """Before an answer that is asked for: a deadline, an old update and an old loss."""

        def __init__(self) -> None:
            super().__init__({})
            old = TrainRequest("a", 0, np.zeros(2, np.float32), 0)
            self.old: list[Event] = [Deadline(0), answer(old), lost(replace(old, site="b"))]

        def next_event(self) -> Event:
            if self.old:
                return self.old.pop()
            request = self.waiting.pop()
            if isinstance(request, CandidatesRequest):
                return CandidateMetrics(request.site, request.version, np.ones((1, 6)))
            return scores(request)

    server = new_server(SYNCHRONOUS)
    server.resume(server.state(), 3, [])
    answers, gone = evaluate_sites(server, Busy())
    assert [one.site for one in answers] == list(SITES)
    assert gone == []
