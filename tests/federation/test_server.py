"""The server under arbitrary orders of answers, losses, duplicates and strangers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rayfed_hn.errors import FederationError
from rayfed_hn.federation.loop import run_federation
from rayfed_hn.federation.messages import Event, Request, Scores, SiteLost, TrainRequest, Update
from rayfed_hn.federation.rules import FedAvg
from rayfed_hn.federation.server import Server, VersionReport

SITES = ("a", "b", "c", "d")


def answer(request: TrainRequest, value: float = 1.0) -> Update:
    u = np.full(request.parameters.size, value, np.float32)
    return Update(request.site, request.version, u, 0.5, 0.5, 0.75, 1, 0.1)


class CountingRule(FedAvg):
    """FedAvg that remembers how often each site was counted."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(2))
        self.cohorts: list[tuple[int, ...]] = []

    def apply(self, updates) -> None:  # type: ignore[no-untyped-def]
        self.cohorts.append(tuple(sorted(updates)))
        super().apply(updates)


class ServerMachine(RuleBasedStateMachine):
    """Whatever happens: versions only grow, nobody is counted twice, nobody is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.rule = CountingRule()
        self.server = Server(self.rule, SITES, num_versions=4)
        self.open: list[TrainRequest] = []
        self.done: list[TrainRequest] = []
        self.seen = 0

    def take(self, event: Update | SiteLost) -> VersionReport | None:
        report = self.server.receive(event)
        if report is not None:
            assert report.version == self.seen + 1
            self.seen = report.version
            assert [u.site for u in report.updates] == sorted(u.site for u in report.updates)
        return report

    @rule()
    def dispatch(self) -> None:
        requests = self.server.dispatch()
        assert all(r.version == self.server.version for r in requests)
        assert not {r.site for r in requests} & {r.site for r in self.open}
        self.open += requests
        # Unless it is finished, somebody is always at work.
        assert self.open or self.server.finished

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def answer_one(self, data: st.DataObject) -> None:
        request = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.done.append(request)
        self.take(answer(request))

    @precondition(lambda self: self.open and len(self.server.alive) > 1)
    @rule(data=st.data())
    def lose_one(self, data: st.DataObject) -> None:
        request = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.take(SiteLost(request.site, request.version, "test"))

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def repeat_one(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.done))
        busy = {(r.site, r.version) for r in self.open}
        if (request.site, request.version) not in busy:
            assert self.server.receive(answer(request, 9.0)) is None

    @rule(site=st.sampled_from([*SITES, "stranger"]), version=st.integers(-1, 6))
    def unasked(self, site: str, version: int) -> None:
        if (site, version) not in {(r.site, r.version) for r in self.open}:
            event = Update(site, version, np.full(2, 9, np.float32), 0, 0, None, 1, 0)
            assert self.server.receive(event) is None

    @invariant()
    def holds(self) -> None:
        self.server.check_invariants()
        assert self.server.version == self.seen == len(self.rule.cohorts)
        # Every honest answer is 1 and every duplicate 9: theta tells if one of those was counted.
        np.testing.assert_allclose(self.server.parameters_for("a"), -float(self.seen))


ServerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestServer = ServerMachine.TestCase


class Scripted:
    """An executor that answers from the last request to the first and loses whom it is told."""

    def __init__(self, lose: dict[int, set[str]]) -> None:
        self.lose, self.waiting = lose, []

    def submit(self, requests: list[Request]) -> None:
        self.waiting += requests

    def next_event(self) -> Event:
        if not self.waiting:
            raise FederationError("nothing is in flight; waiting would never end")
        request = self.waiting.pop()
        if request.site in self.lose.get(request.version, ()):
            return SiteLost(request.site, request.version, "cable")
        assert isinstance(request, TrainRequest)
        return answer(request)


def run(lose: dict[int, set[str]]) -> tuple[Server, list[VersionReport]]:
    server = Server(FedAvg(torch.zeros(2)), SITES, 3)
    return server, list(run_federation(server, Scripted(lose)))  # type: ignore[arg-type]


def test_a_lost_site_does_not_stop_the_others() -> None:
    server, reports = run({1: {"a", "d"}})
    assert [r.num_alive for r in reports] == [4, 2, 2]
    assert [[u.site for u in r.updates] for r in reports] == [list("abcd"), list("bc"), list("bc")]
    assert {(loss.site, loss.version) for loss in server.lost} == {("a", 1), ("d", 1)}


def test_losing_everybody_is_an_error_that_says_so() -> None:
    with pytest.raises(FederationError, match=r"all 4 sites were lost by version 2.*cable"):
        run({2: set(SITES)})


def test_waiting_for_nobody_is_an_error() -> None:
    executor = Scripted({})
    with pytest.raises(FederationError, match="nothing is in flight"):
        executor.next_event()


def test_scores_during_training_are_an_error() -> None:
    empty = np.zeros(0)

    class Confused(Scripted):
        def next_event(self) -> Event:
            return Scores("a", 0, None, empty, empty, empty, empty, empty, empty, empty)

    server = Server(FedAvg(torch.zeros(2)), SITES, 1)
    with pytest.raises(FederationError, match="sent scores during training"):
        list(run_federation(server, Confused({})))  # type: ignore[arg-type]
