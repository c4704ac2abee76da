"""What the server remembers of updates, and which it does not take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_server import SITES, answer, new_server

from rayfed_hn.config import RoundsConfig
from rayfed_hn.errors import DataError, FederationError
from rayfed_hn.federation.loop import run_federation
from rayfed_hn.federation.messages import Event, Refused, SiteLost, TrainRequest, Update
from rayfed_hn.federation.rules.averaging import FedAvg
from rayfed_hn.federation.screening import RECENT, Screen, norm
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.versions import VersionReport

CONFIG = RoundsConfig(num_versions=3, norm_factor=10.0)


def update(site: str, length: float, turn: int = 0) -> Update:
    return answer(TrainRequest(site, 0, np.zeros(4, np.float32), turn), length / 2)


class Remembering(Screen):
    """Judges sites by the norms of a version, and takes the rest."""

    def version(self, **lengths: float) -> str:
        """The sites that were refused."""
        sent = [update(site, length) for site, length in lengths.items()]
        refused = self.judge(sent, [norm(u.update) for u in sent])
        out = "".join(r.site for r in refused)
        for u in sent:
            if u.site not in out:
                self.take(u.site, norm(u.update))
        return out


def screen(
    sites: str = "abcd", factor: float | None = 10.0, steps: dict[str, int] | None = None
) -> Remembering:
    return Remembering(tuple(sites), replace(CONFIG, norm_factor=factor), steps)


def test_the_first_version_is_judged_by_what_most_send() -> None:
    judge = screen()
    assert judge.version(a=1, b=1, c=9.9, d=10.1) == "d"
    assert screen().version(a=1, b=1, c=1, d=1e30) == "d"
    assert screen().version(a=1e-3, b=5, c=5, d=49) == ""
    assert screen(factor=None).version(a=1, b=1, c=1, d=1e30) == ""


def test_of_two_sites_neither_says_what_is_usual() -> None:
    judge = screen("ab")
    assert judge.version(a=1, b=5000) == ""
    assert judge.version(a=9, b=49_000) == ""
    assert judge.version(a=91, b=5000) == "a"  # but its own history does
    assert screen("ab").version(a=1, b=1e20) == "b"  # and what no training does is refused


def test_a_site_is_what_it_usually_is_within_reason() -> None:
    judge = screen()
    assert judge.version(a=1, b=1, c=1, d=9) == ""
    assert judge.version(a=1, b=1, c=1, d=80) == ""  # its own 9, or 1 of all
    assert judge.version(a=1, b=1, c=1, d=80) == ""
    assert judge.version(a=1, b=1, c=1, d=80) == ""  # its own is 80 now
    assert judge.version(a=1, b=1, c=1, d=101) == "d"  # the square of the factor, whatever it was
    assert judge.version(a=11, b=1, c=1, d=1) == "a"


def test_its_history_is_its_last_updates() -> None:
    judge = screen("ab")
    for length in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0):
        judge.version(a=length)
    assert judge.version(a=70.1) == "a"
    judge.version(a=0.1)
    assert RECENT == 5  # 4 to 7 and 0.1, of which 5 is in the middle
    assert judge.version(a=50.1) == "a"
    assert judge.version(a=49.9) == ""


def test_growth_is_no_attack() -> None:
    """Noise in proportion to the parameters grows with them, for ever."""
    judge = screen("ab")
    for version in range(25):
        assert judge.version(a=5.0**version, b=4.0**version) == ""


def test_all_may_move_together() -> None:
    judge = screen()
    assert judge.version(a=1, b=1, c=1, d=1) == ""
    assert judge.version(a=500, b=600, c=400, d=1) == ""


def test_one_after_the_other_may_move_too() -> None:
    """Where versions are of one update each: what was refused is remembered as what is sent."""
    judge = screen()
    judge.version(a=1, b=1, c=1, d=1)
    refused = [judge.version(**{site: 500}) for site in "abcd"]
    assert refused == ["a", "b", "", ""]
    assert judge.version(a=500) == ""


def test_who_sends_nothing_says_nothing() -> None:
    judge = screen()
    assert judge.version(a=0, b=0, c=0, d=7) == ""
    assert judge.version(a=0, b=3, c=2, d=7) == ""
    assert judge.version(a=2, b=0, c=2, d=7) == ""
    assert judge.version(a=21, b=0, c=2, d=2) == "a"
    judge = screen()
    judge.version(a=1, b=1, c=1)
    assert judge.version(a=0, b=0, c=1, d=11) == "d"  # what they sent before still counts


def test_who_works_more_may_send_more() -> None:
    steps = {"a": 10, "b": 10, "c": 10, "d": 90}
    assert screen(steps=steps).version(a=1, b=1, c=1, d=29.9) == ""
    assert screen(steps=steps).version(a=1, b=1, c=1, d=30.1) == "d"
    assert screen(steps={"a": 90, "b": 90, "c": 90, "d": 10}).version(a=1, b=1, c=1, d=9.9) == ""


def test_reasons_are_numbers() -> None:
    judge = screen()
    judge.version(a=1, b=1, c=1, d=2)
    (refused,) = judge.judge([update("d", 25.0, 3)], [25.0])
    assert refused == Refused("d", 0, 3, "norm 25, its own 2, usual 1, at most 20")


def test_a_norm_is_right_and_does_not_overflow() -> None:
    rng = np.random.default_rng(1)
    vector = rng.normal(size=40_001).astype(np.float32)
    assert norm(vector) == pytest.approx(np.linalg.norm(vector.astype(float)), rel=1e-6)
    assert norm(np.full(4, 3e38, np.float32)) == pytest.approx(6e38)
    assert norm(np.full(4, 1e-45, np.float32)) > 0
    assert norm(np.full(4, -0.0, np.float32)) == 0
    shifted = np.frombuffer(b"\0" * 4 + vector.tobytes(), np.float32)[1:]
    assert norm(shifted) == norm(vector)


# -- the server --------------------------------------------------------------------------------


def synchronous(server: Server, values: dict[str, float], order: str = "") -> VersionReport | None:
    """A round of answers in an order; ``nan`` is a message that could not be read."""
    requests = {request.site: request for request in server.dispatch()}
    report = None
    for site in order or "".join(requests):
        request, value = requests[site], values[site]
        event: Update | Refused = answer(request, value)
        if np.isnan(value):
            event = Refused(site, request.version, request.turn, "value that is not finite")
        report = server.receive(event) or report
        server.check_invariants()
    return report


HONEST = {"a": 1.0, "b": 2.0, "c": -1.0, "d": 1.5}
ROUNDS = RoundsConfig(num_versions=4, norm_factor=10.0)


@settings(max_examples=24)
@given(orders=st.lists(st.permutations(SITES), min_size=3, max_size=3))
def test_the_order_of_answers_changes_no_verdict(orders: list[tuple[str, ...]]) -> None:
    bad = [HONEST | {"d": 100.0}, HONEST | {"b": float("nan")}, HONEST | {"d": 1e30, "a": 1e30}]

    def run(orders: list[str]) -> Server:
        server = new_server(ROUNDS)
        for order, values in zip(orders, bad, strict=True):
            synchronous(server, values, order)
        return server

    expected, found = run(["abcd"] * 3), run(["".join(order) for order in orders])
    assert found.refused == expected.refused
    assert [r.site for r in found.refused] == ["d", "b", "a", "d"]
    for name, tensor in expected.state().items():
        assert torch.equal(found.state()[name], tensor), name


def test_a_version_is_made_of_what_is_taken() -> None:
    server = new_server(ROUNDS)
    report = synchronous(server, HONEST | {"d": 1e30})
    assert report is not None
    assert [u.site for u in report.updates] == ["a", "b", "c"]
    assert [r.site for r in report.refused] == ["d"]
    assert report.num_refused == 0  # that is of age
    np.testing.assert_allclose(server.parameters_for("a"), -(1 + 2 - 1) / 3, rtol=1e-6)
    assert server.num_updates == {"a": 1, "b": 1, "c": 1, "d": 0}
    assert server.turns_done["d"] == 1
    later = synchronous(server, HONEST)
    assert later is not None
    assert (len(later.updates), later.refused) == (4, ())


def test_a_site_is_lost_after_some_refusals_in_a_row() -> None:
    server = new_server(replace(ROUNDS, num_versions=9, max_refusals=2))
    nan, big = HONEST | {"d": float("nan")}, HONEST | {"d": 1e9}
    for values in (nan, HONEST, big, HONEST, nan):
        synchronous(server, values)
        assert "d" in server.alive
    report = synchronous(server, big)
    assert report is not None
    assert report.num_alive == 3
    (loss,) = server.lost
    assert (loss.site, loss.version, loss.returns) == ("d", 5, False)
    assert loss.reason.startswith("2 updates in a row were refused, the last one: norm 1.41e+09,")
    assert len(server.refused) == 4


class Broken:
    """Sites of which some never send what can be taken."""

    now, more_now = 0.0, False

    def __init__(self, value: float | None, bad: str = "abcd") -> None:
        self.waiting: list[TrainRequest] = []
        self.value, self.bad, self.asked = value, bad, 0

    def begin_at(self, seconds: float) -> None:
        raise NotImplementedError

    def set_alarm(self, version: int, seconds: float) -> None:
        raise NotImplementedError

    def submit(self, requests: list[TrainRequest]) -> None:  # type: ignore[override]
        self.waiting += requests
        self.asked += len(requests)

    def next_event(self) -> Event:
        if not self.waiting:
            raise FederationError("nothing is in flight; waiting would never end")
        request = self.waiting.pop()
        if request.site not in self.bad:
            return answer(request)
        if self.value is None:
            return Refused(request.site, request.version, request.turn, "not finite")
        return answer(request, self.value)


@pytest.mark.parametrize("value", [None, 1e30])
@pytest.mark.parametrize("buffer_size", [None, 1, 3])
def test_a_run_of_nothing_but_refusals_ends_with_a_named_error(
    value: float | None, buffer_size: int | None
) -> None:
    server = new_server(replace(ROUNDS, buffer_size=buffer_size))
    sites = Broken(value)
    with pytest.raises(
        FederationError, match=r"all 4 sites were lost by version 0.*3 updates in a"
    ):
        list(run_federation(server, sites))  # type: ignore[arg-type]
    assert sites.asked == 12


@pytest.mark.parametrize("buffer_size", [None, 1, 3])
def test_one_bad_site_does_not_stop_the_others(buffer_size: int | None) -> None:
    server = new_server(replace(ROUNDS, buffer_size=buffer_size))
    reports = list(run_federation(server, Broken(1e30, "b")))  # type: ignore[arg-type]
    assert [r.version for r in reports] == [1, 2, 3, 4]
    assert {u.site for r in reports for u in r.updates} <= set("acd")
    if buffer_size is None:
        assert [loss.site for loss in server.lost] == ["b"]
        assert len(server.refused) == 3
        np.testing.assert_allclose(server.parameters_for("a"), -4.0, rtol=1e-6)
    assert np.isfinite(server.parameters_for("a")).all()


def test_three_are_asked_again_until_they_can_outvote() -> None:
    """A cohort of three of which one is refused is no vote: others are asked in its place."""
    config = replace(ROUNDS, robust="median", cohort_size=3, sampling="in_order")
    server = new_server(config)
    first = server.dispatch()
    assert [request.site for request in first] == ["a", "b", "c"]
    for request in first:
        assert server.receive(answer(request, 1e30 if request.site == "c" else 1.0)) is None
    (again,) = server.dispatch()
    assert again.site in "cd"
    report = server.receive(answer(again))
    assert report is not None
    assert len(report.updates) == 3


def test_fewer_than_three_sites_cannot_vote() -> None:
    server = new_server(replace(ROUNDS, robust="median"))
    requests = server.dispatch()
    server.receive(SiteLost("a", 0, "cable", 0))
    with pytest.raises(
        FederationError, match=r"2 of 4 sites are left .* rounds\.robust=median needs"
    ):
        server.receive(SiteLost("b", 0, "cable", requests[1].turn))


def test_what_it_remembers_goes_on() -> None:
    bad = [HONEST | {"d": 100.0}, HONEST | {"b": float("nan")}, HONEST | {"d": 100.0}, HONEST]
    whole, halves = new_server(ROUNDS), new_server(ROUNDS)
    for values in bad:
        synchronous(whole, values)
    for values in bad[:2]:
        synchronous(halves, values)
    again = new_server(ROUNDS)
    again.resume(halves.state(), halves.version, [])
    assert [r.site for r in again.refused] == ["d", "b"]
    reports = [synchronous(again, values) for values in bad[2:]]
    told = [[r.site for r in report.refused] for report in reports if report is not None]
    assert told == [["d"], []]  # what was told before is not told again
    for name, tensor in whole.state().items():
        assert torch.equal(again.state()[name], tensor), name


def test_a_damaged_memory_is_refused() -> None:
    server = new_server(ROUNDS)
    state = server.state()
    for broken in (
        {"screen.refused": torch.zeros(3, dtype=torch.uint8)},
        {"screen.last": torch.zeros(3)},
    ):
        with pytest.raises(DataError, match="screen"):
            new_server(ROUNDS).resume(state | broken, 0, [])


def test_a_refused_answer_of_another_turn_changes_nothing() -> None:
    server = new_server(ROUNDS, FedAvg(torch.zeros(2)))
    request = server.dispatch()[0]
    assert server.receive(Refused(request.site, 0, request.turn + 1, "not finite")) is None
    assert server.refused == ()
