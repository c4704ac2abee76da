"""The server under arbitrary orders of answers, losses, returns, duplicates and strangers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from rayfed_hn.config import RoundsConfig
from rayfed_hn.errors import DataError, FederationError
from rayfed_hn.federation.loop import Executor, evaluate_sites, run_federation
from rayfed_hn.federation.messages import (
    CandidateAucs,
    CandidatesRequest,
    Deadline,
    Event,
    Request,
    Scores,
    SiteBack,
    SiteLost,
    TrainRequest,
    Update,
)
from rayfed_hn.federation.rules.averaging import FedAvg, Local
from rayfed_hn.federation.rules.base import Contribution, Rule
from rayfed_hn.federation.rules.generator import Hypernetwork, SiteFeatures
from rayfed_hn.federation.rules.optimisers import Optimiser
from rayfed_hn.federation.rules.pfedhn import PFedHN
from rayfed_hn.federation.schedule import Schedule
from rayfed_hn.federation.server import Server, VersionReport

SITES: tuple[str, ...] = ("a", "b", "c", "d")
SIZES: dict[str, int] = dict(zip(SITES, (5, 9, 2, 14), strict=True))
SYNCHRONOUS = RoundsConfig(num_versions=3)


def new_server(
    config: RoundsConfig, rule: Rule | None = None, sites: Sequence[str] = SITES
) -> Server:
    sizes = {site: SIZES[site] for site in sites}
    rule = rule or FedAvg(torch.zeros(2))
    return Server(rule, Schedule(config, sizes, seed=1), config.num_versions)


def answer(request: TrainRequest, value: float = 1.0) -> Update:
    u = np.full(request.parameters.size, value, np.float32)
    return Update(request.site, request.version, request.turn, u, 0.5, 0.5, 0.75, 1, 0.1)


def lost(request: TrainRequest, *, returns: bool = False) -> SiteLost:
    return SiteLost(request.site, request.version, "cable", request.turn, returns)


# -- anything may happen -----------------------------------------------------------------------


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
        self.turns = dict.fromkeys(SITES, 0)
        self.accepted = dict.fromkeys(SITES, 0)
        self.honest = 0
        self.theta = 0.0
        self.seen = 0
        self.ended = False  # nobody is left

    @property
    def going(self) -> bool:
        return not self.ended and self.seen < self.config.num_versions

    @property
    def full(self) -> bool:
        if self.config.buffer_size is None:
            return bool(self.buffer) and not self.open
        return len(self.buffer) >= self.config.buffer_size

    def expect(self, report: VersionReport | None, version_made: bool) -> None:
        assert (report is not None) == version_made
        if report is None:
            return
        assert report.version == self.seen + 1
        expected = sorted(self.buffer, key=lambda u: (u.site, u.turn))
        assert [id(u) for u in report.updates] == [id(u) for u in expected]
        late = [self.seen - u.version for u in expected]
        assert list(report.staleness) == late
        limit = self.config.max_staleness
        assert all(tau >= 0 and (limit is None or tau <= limit) for tau in late)
        steps = [
            self.factor(u.site, tau) * float(u.update[0])
            for u, tau in zip(expected, late, strict=True)
        ]
        self.theta -= sum(steps) / len(steps)
        self.seen += 1
        self.buffer = []

    def factor(self, site: str, late: int) -> float:
        discount = (1 + late) ** -self.config.staleness_exponent
        waits = self.config.buffer_size is None and self.config.deadline is None
        if waits or not self.config.balance_arrivals:
            return discount
        # Of the sites that are there, and of those whose updates are.
        present = set(SITES) - set(self.away) | {update.site for update in self.buffer}
        mean = sum(self.accepted[other] for other in present) / len(present)
        return discount * (mean + 1) / (self.accepted[site] + 1)

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
            self.accepted[request.site] += 1
        self.expect(self.server.receive(event), self.full)

    @precondition(lambda self: self.open and self.going)
    @rule(data=st.data(), returns=st.booleans())
    def lose_one(self, data: st.DataObject, returns: bool) -> None:
        request = self.open.pop(data.draw(st.sampled_from(sorted(self.open))))
        self.done.append(request)
        self.away[request.site] = returns
        if len(self.away) == len(SITES) and not any(self.away.values()):
            self.ended = True
            with pytest.raises(FederationError, match="all 4 sites were lost"):
                self.server.receive(lost(request, returns=returns))
            return
        self.expect(self.server.receive(lost(request, returns=returns)), self.full)

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
        elif len({u.site for u in self.buffer}) < self.config.min_sites:
            with pytest.raises(FederationError, match=r"rounds\.deadline"):
                self.server.receive(event)
        else:
            self.expect(self.server.receive(event), True)

    @precondition(lambda self: self.done)
    @rule(data=st.data(), losing=st.booleans())
    def repeat_one(self, data: st.DataObject, losing: bool) -> None:
        request = data.draw(st.sampled_from(self.done))
        again = lost(request) if losing else answer(request, -7.0)
        assert self.server.receive(again) is None

    @rule(
        site=st.sampled_from([*SITES, "stranger"]),
        version=st.integers(-1, 7),
        turn=st.integers(-1, 7),
        losing=st.booleans(),
    )
    def unasked(self, site: str, version: int, turn: int, losing: bool) -> None:
        asked = self.open.get(site)
        if asked is None or (asked.version, asked.turn) != (version, turn):
            request = TrainRequest(site, version, np.zeros(2, np.float32), turn)
            event = lost(request) if losing else answer(request, -7.0)
            assert self.server.receive(event) is None

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "server"):
            return
        self.server.check_invariants()
        assert self.server.version == self.seen
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


LATE_1 = 2**-0.5
ARRIVALS = [
    # answers, buffer, exponent, balanced; per version: factors of its updates, in site order
    ("abab", 1, 0.5, False, [[1], [LATE_1], [LATE_1], [LATE_1]]),
    ("aaab", 1, 1.0, False, [[1], [1], [1], [1 / 4]]),
    ("aaab", 1, 0.0, True, [[0.75], [2 / 3], [0.625], [1.5]]),
    ("aaab", 1, 1.0, True, [[0.75], [2 / 3], [0.625], [1.5 / 4]]),
    # a is asked again as soon as it has answered, before there is a new version
    ("abba", 2, 0.5, False, [[1, 1], [LATE_1, 1]]),
    ("aaba", 2, 1.0, True, [[2 / 3, 2 / 3], [0.75, 1.5 / 2]]),
    ("aabbb", 5, 3.0, True, [[3.5 / 3, 3.5 / 3, 3.5 / 4, 3.5 / 4, 3.5 / 4]]),
]


@pytest.mark.parametrize(("arrivals", "buffer", "exponent", "balanced", "factors"), ARRIVALS)
def test_discounts_and_weights_are_a_table_written_by_hand(
    arrivals: str, buffer: int, exponent: float, balanced: bool, factors: list[list[float]]
) -> None:
    config = RoundsConfig(
        num_versions=9,
        buffer_size=buffer,
        staleness_exponent=exponent,
        balance_arrivals=balanced,
    )
    server = new_server(config, sites="ab")
    asked = {request.site: request for request in server.dispatch()}
    theta, made = 0.0, 0
    for number, site in enumerate(arrivals):
        # All updates of a version are alike, so that their order does not matter.
        report = server.receive(answer(asked[site], 1.0 + made))
        asked |= {request.site: request for request in server.dispatch()}
        if report is not None:
            assert number == buffer * report.version - 1
            # Divided by the number of updates, not by the sum of the factors.
            theta -= sum(factors[made]) / buffer * (1.0 + made)
            made += 1
            np.testing.assert_allclose(server.parameters_for("a"), theta, rtol=1e-6)
    assert made == len(factors)


def test_a_late_buffer_moves_less_than_a_fresh_one() -> None:
    config = RoundsConfig(buffer_size=2, staleness_exponent=0.5, balance_arrivals=False)
    server = new_server(config, sites="abcd")
    a, b, c, d = server.dispatch()
    for request in (a, b):
        server.receive(answer(request))
    np.testing.assert_allclose(server.parameters_for("a"), -1)
    for request in (c, d):
        server.receive(answer(request))
    # A weighted mean would have moved by 1 again.
    np.testing.assert_allclose(server.parameters_for("a"), -1 - 2**-0.5, rtol=1e-6)


def test_a_lost_site_does_not_shrink_the_step_of_the_others() -> None:
    server = new_server(SYNCHRONOUS)
    for number in range(3):
        for request in server.dispatch():
            gone = number == 0 and request.site == "d"
            server.receive(lost(request) if gone else answer(request))
    np.testing.assert_array_equal(server.parameters_for("a"), [-3, -3])


# -- who is asked ------------------------------------------------------------------------------


def asked_in(config: RoundsConfig, sites: Sequence[str] = SITES) -> list[list[str]]:
    server, names = new_server(config, sites=sites), []
    while not server.finished:
        requests = server.dispatch()
        names.append([request.site for request in requests])
        for request in requests:
            server.receive(answer(request))
    return names


def test_in_order_everybody_has_a_turn() -> None:
    config = RoundsConfig(num_versions=5, cohort_size=1, sampling="in_order")
    assert asked_in(config) == [["a"], ["b"], ["c"], ["d"], ["a"]]
    pairs = asked_in(replace(config, cohort_size=2), "abc")
    assert pairs == [["a", "b"], ["a", "c"], ["b", "c"], ["a", "b"], ["a", "c"]]


def test_cohorts_are_drawn_evenly_or_by_size() -> None:
    config = RoundsConfig(num_versions=3000, cohort_size=1)
    even, sized = (
        [names[0] for names in asked_in(replace(config, sampling=sampling))]
        for sampling in ("uniform", "by_size")
    )
    for site in SITES:
        assert even.count(site) / 3000 == pytest.approx(1 / 4, abs=0.03)
        assert sized.count(site) / 3000 == pytest.approx(SIZES[site] / 30, abs=0.03)


def test_a_resumed_server_asks_whom_an_undisturbed_one_asks() -> None:
    config = RoundsConfig(num_versions=8, cohort_size=2)

    def run(interrupted: bool) -> tuple[list[tuple[str, int]], np.ndarray]:
        server, asked = new_server(config), []
        while not server.finished:
            if interrupted:
                state = {name: tensor.clone() for name, tensor in server.state().items()}
                version, server = server.version, new_server(config)
                server.resume(state, version, [])
            for request in server.dispatch():
                asked.append((request.site, request.turn))
                server.receive(answer(request, len(asked)))
        return asked, server.parameters_for("a")

    (asked, theta), (asked_again, theta_again) = run(False), run(True)
    assert asked == asked_again
    np.testing.assert_array_equal(theta, theta_again)


def test_a_server_goes_on_with_turns_that_no_site_has_had() -> None:
    # A fast site has had more turns than there are versions.
    config = RoundsConfig(num_versions=4, buffer_size=3)
    server = new_server(config, sites="ab")
    asked = {request.site: request for request in server.dispatch()}
    turns: set[int] = set()
    for _ in range(7):
        turns.add(asked["a"].turn)
        server.receive(answer(asked["a"]))
        asked |= {request.site: request for request in server.dispatch()}
    other = new_server(config, sites="ab")
    other.resume(server.state(), server.version, [])
    again = next(request for request in other.dispatch() if request.site == "a")
    assert again.turn not in turns
    assert again.version == server.version == 2


def test_a_checkpoint_of_other_sites_is_refused() -> None:
    state = new_server(SYNCHRONOUS, sites="ab").state()
    with pytest.raises(DataError, match="turns"):
        new_server(SYNCHRONOUS).resume(state, 1, [])


# -- losses and deadlines ----------------------------------------------------------------------


class Scripted:
    """An executor that answers from the last request to the first and loses whom it is told."""

    def __init__(self, lose: dict[int, set[str]], late: set[str] | None = None) -> None:
        self.lose, self.late = lose, late or set()
        self.waiting: list[Request] = []
        self.alarm: int | None = None
        self.now = 0.0
        self.more_now = False

    def begin_at(self, seconds: float) -> None:
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


def test_too_few_at_the_deadline_is_an_error_that_names_both_keys() -> None:
    config = replace(SYNCHRONOUS, deadline=5, min_sites=3)
    with pytest.raises(FederationError) as error:
        run(Scripted({}, late={"b", "c"}), config)
    assert "2 sites answered by the deadline of 5 s" in str(error.value)
    assert "rounds.min_sites is 3" in str(error.value)
    assert "raise rounds.deadline" in str(error.value)


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
    empty = np.zeros(0)
    return Scores(request.site, request.version, None, empty, *[empty] * 7)


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
                return CandidateAucs(request.site, request.version, np.ones((1, 6)))
            return scores(request)

    server = new_server(SYNCHRONOUS)
    server.resume(server.state(), 3, [])
    answers, gone = evaluate_sites(server, Busy())
    assert [one.site for one in answers] == list(SITES)
    assert gone == []
