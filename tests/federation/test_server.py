"""The server under arbitrary orders of answers, losses, returns, duplicates and strangers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from small_server import SITES, SYNCHRONOUS, answer, lost, new_server

from rayfed_hn.config import RoundsConfig
from rayfed_hn.errors import FederationError
from rayfed_hn.federation.messages import Deadline, SiteBack, TrainRequest, Update
from rayfed_hn.federation.rules.averaging import FedAvg, Local
from rayfed_hn.federation.rules.base import Contribution, Rule
from rayfed_hn.federation.rules.generator import Hypernetwork, SiteFeatures
from rayfed_hn.federation.rules.optimisers import Optimiser
from rayfed_hn.federation.rules.pfedhn import PFedHN
from rayfed_hn.federation.versions import VersionReport


class Recording(FedAvg):
    """FedAvg that remembers what it was given; every honest update has a number of its own."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(2))
        self.counted: list[float] = []

    def apply(self, contributions: Sequence[Contribution], *, complete: bool, among: int) -> None:
        self.counted += [float(c.update[0]) for c in contributions]
        super().apply(contributions, complete=complete, among=among)


rounds = st.builds(
    RoundsConfig,
    num_versions=st.integers(2, 5),
    cohort_size=st.none() | st.integers(1, 5),
    sampling=st.sampled_from(["in_order", "uniform", "by_size"]),
    buffer_size=st.none() | st.integers(1, 6),
    max_staleness=st.none() | st.integers(0, 2),
    staleness_exponent=st.sampled_from([0.0, 0.5, 2.0]),
    balance_arrivals=st.booleans(),
    deadline=st.none() | st.just(9.0),
    min_sites=st.integers(1, 3),
)


class ServerMachine(RuleBasedStateMachine):
    """Keeps books of its own, from the rules in the words of the configuration."""

    @initialize(config=rounds)
    def start(self, config: RoundsConfig) -> None:
        self.config = config
        self.rule = Recording()
        self.server = new_server(config, self.rule)
        self.open: dict[str, TrainRequest] = {}
        self.done: list[TrainRequest] = []
        self.buffer: list[Update] = []
        self.away: dict[str, bool] = {}
        self.missed: dict[str, TrainRequest] = {}  # with which a site went away
        self.turns = dict.fromkeys(SITES, 0)
        self.accepted = 0
        self.asked_at: dict[str, int] = {}  # updates that had come in
        self.asked_for: list[int] = []  # the same, for each update in the buffer
        self.overdue = False
        self.honest = 0
        self.theta = 0.0
        self.seen = 0
        self.ended = False  # too few are left

    @property
    def going(self) -> bool:
        return not self.ended and self.seen < self.config.num_versions

    @property
    def alive(self) -> int:
        return len(SITES) - len(self.away)

    @property
    def full(self) -> bool:
        enough = max(1, min(self.config.min_sites, self.alive, self.config.cohort_size or 4))
        if self.overdue and len({update.site for update in self.buffer}) >= enough:
            return True
        if self.config.buffer_size is None:
            return bool(self.buffer) and not self.open
        return len(self.buffer) >= self.config.buffer_size

    def expect(self, report: VersionReport | None, version_made: bool) -> None:
        assert (report is not None) == version_made
        if report is None:
            return
        assert report.version == self.seen + 1
        weights = self.weights()
        expected = sorted(self.buffer, key=lambda update: (update.site, update.turn))
        assert [id(u) for u in report.updates] == [id(u) for u in expected]
        late = [self.seen - u.version for u in expected]
        assert list(report.staleness) == late
        limit = self.config.max_staleness
        assert all(tau >= 0 and (limit is None or tau <= limit) for tau in late)
        num = len(expected)
        for update, tau in zip(expected, late, strict=True):
            factor = weights[update.site] * (1 + tau) ** -self.config.staleness_exponent
            self.theta -= min(factor, num) / num * float(update.update[0])
        self.seen += 1
        self.buffer, self.asked_for, self.overdue = [], [], False

    def weights(self) -> dict[str, float]:
        """Of the sites in a version: one over their share in the updates since they were asked."""
        waits = self.config.buffer_size is None and self.config.deadline is None
        present, found = max(1, self.alive), {}
        for site in {update.site for update in self.buffer}:
            pairs = zip(self.buffer, self.asked_for, strict=True)
            own = [moment for update, moment in pairs if update.site == site]
            share = len(own) / (self.accepted - own[0])
            found[site] = min(1 / share / present, present)
            if waits or not self.config.balance_arrivals:
                found[site] = 1.0
        return found

    @precondition(lambda self: not self.ended)
    @rule()
    def dispatch(self) -> None:
        requests = self.server.dispatch()
        for request in requests:
            assert self.going
            assert request.version == self.seen
            assert request.site not in self.open
            assert request.site not in self.away
            assert request.turn == self.turns[request.site]
            self.open[request.site] = request
            self.turns[request.site] += 1
            self.asked_at[request.site] = self.accepted
        assert len(self.open) <= (self.config.cohort_size or len(SITES))
        if self.config.buffer_size is None and self.buffer:
            assert not requests, "a synchronous round is under way"
        # It never waits for nobody.
        assert self.open or not self.going or len(self.away) == len(SITES)

    @precondition(lambda self: self.open and not self.ended)
    @rule(data=st.data())
    def answer_one(self, data: st.DataObject) -> None:
        request = self.open.pop(data.draw(st.sampled_from(sorted(self.open))))
        self.done.append(request)
        self.honest += 1
        event = answer(request, self.honest)
        if not self.going:
            assert self.server.receive(event) is None
            return
        limit = self.config.max_staleness
        if limit is None or self.seen - request.version <= limit:
            self.buffer.append(event)
            self.accepted += 1
            self.asked_for.append(self.asked_at[request.site])
        self.expect(self.server.receive(event), self.full)

    @precondition(lambda self: self.open and self.going)
    @rule(data=st.data(), returns=st.booleans())
    def lose_one(self, data: st.DataObject, returns: bool) -> None:
        request = self.open.pop(data.draw(st.sampled_from(sorted(self.open))))
        self.done.append(request)
        self.missed[request.site] = request
        if not self.ends_without(request, returns):
            self.expect(self.server.receive(lost(request, returns=returns)), self.full)

    def ends_without(self, request: TrainRequest, returns: bool) -> bool:
        """Whether too few are left when this is lost; the server then says so."""
        self.away[request.site] = returns
        left = self.alive + sum(self.away.values())
        self.ended = left < self.config.min_sites
        if self.ended:
            says = "all 4 sites were lost" if left == 0 else f"{left} of 4 sites are left"
            with pytest.raises(FederationError, match=says):
                self.server.receive(lost(request, returns=returns))
        return self.ended

    @precondition(lambda self: self.going)
    @rule(site=st.sampled_from([*SITES, "stranger"]))
    def come_back(self, site: str) -> None:
        self.away.pop(site, None)
        assert self.server.receive(SiteBack(site)) is None

    @precondition(lambda self: self.config.deadline is not None and self.going)
    @rule(shift=st.sampled_from([0, 0, 0, -1, 1]))
    def alarm(self, shift: int) -> None:
        event = Deadline(self.seen + shift)
        if shift:
            assert self.server.receive(event) is None
            return
        self.overdue = True
        self.expect(self.server.receive(event), self.full)

    @precondition(lambda self: self.done and not self.ended)
    @rule(data=st.data(), losing=st.booleans())
    def repeat_one(self, data: st.DataObject, losing: bool) -> None:
        request = data.draw(st.sampled_from(self.done))
        if not losing:
            assert self.server.receive(answer(request, -7.0)) is None
        elif self.going and self.away.get(request.site) and self.missed[request.site] is request:
            if not self.ends_without(request, False):  # it was to come back, and will not
                assert self.server.receive(lost(request)) is None
        else:
            assert self.server.receive(lost(request)) is None

    @rule(
        site=st.sampled_from([*SITES, "stranger"]),
        version=st.integers(-1, 7),
        turn=st.integers(-1, 7),
        losing=st.booleans(),
    )
    def unasked(self, site: str, version: int, turn: int, losing: bool) -> None:
        asked, missed = self.open.get(site), self.missed.get(site)
        if self.away.get(site) and missed and (missed.version, missed.turn) == (version, turn):
            return  # a loss that is told again
        if asked is None or (asked.version, asked.turn) != (version, turn):
            request = TrainRequest(site, version, np.zeros(2, np.float32), turn)
            event = lost(request) if losing else answer(request, -7.0)
            assert self.server.receive(event) is None

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "server") or self.ended:
            return
        self.server.check_invariants()
        assert self.server.version == self.seen
        assert sum(self.server.num_updates.values()) == self.accepted
        assert set(self.server.alive) == set(SITES) - set(self.away)
        assert len(set(self.rule.counted)) == len(self.rule.counted), "counted twice"
        assert all(number > 0 for number in self.rule.counted), "a stranger was counted"
        np.testing.assert_allclose(self.server.parameters_for("a"), self.theta, rtol=1e-5)


ServerMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestServer = ServerMachine.TestCase


# -- orders of arrival -------------------------------------------------------------------------


def rules() -> list[Rule]:
    start = torch.linspace(-1, 1, 11)
    features = SiteFeatures("learned", 4, 16, 0.01, 0)
    return [
        FedAvg(start),
        Local(start, 4),
        Hypernetwork(start, 4, features, 16, 0.3),
        PFedHN(11, 4, None, Optimiser("momentum", 0.01), 1, 0),
    ]


def synchronous_run(rule: Rule, orders: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    server = new_server(SYNCHRONOUS, rule)
    for order in orders:
        requests = server.dispatch()
        for number in order:
            rng = np.random.default_rng([server.version, number])
            u = rng.normal(size=11).astype(np.float32)
            server.receive(replace(answer(requests[number]), update=u))
    assert server.finished
    return server.state()


@settings(max_examples=15, deadline=None)
@given(orders=st.lists(st.permutations(range(4)), min_size=3, max_size=3))
@pytest.mark.parametrize("number", range(len(rules())))
def test_the_order_of_answers_in_a_round_changes_no_bit(
    number: int, orders: list[list[int]]
) -> None:
    expected = synchronous_run(rules()[number], [range(4)] * 3)
    for name, tensor in synchronous_run(rules()[number], orders).items():
        assert torch.equal(tensor, expected[name]), name
