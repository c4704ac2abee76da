"""Losses, absences and deadlines in simulated time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from simulated import Shuffled, Table, new_server, run, told

from rayfed_hn.config import RoundsConfig, SimulationConfig
from rayfed_hn.errors import FederationError
from rayfed_hn.federation.messages import SiteLost, Update
from rayfed_hn.federation.site_clock import SiteClock, Work
from rayfed_hn.federation.virtual_time import VirtualTime


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
    # The alarm of version 2, at 12, gave way to that of version 3.
    assert [now for now, kind, _ in told(executor) if kind == "deadline"] == [4, 8, 15]
    assert server.alive == ("a", "b", "c")


def test_too_few_at_a_simulated_deadline_are_waited_for() -> None:
    rounds = RoundsConfig(num_versions=2, deadline=4.0, min_sites=2)
    clock = Table({"a": [1.0], "b": [9.0, 2.0], "c": [20.0]})
    _, reports, executor = run(clock, rounds)
    assert [(r.time, [u.site for u in r.updates]) for r in reports] == [
        (9.0, ["a", "b"]),
        (13.0, ["a", "b"]),  # at its own deadline
    ]
    assert [now for now, kind, _ in told(executor) if kind == "deadline"] == [4, 13]


def test_who_is_given_up_while_away_is_missed_for_good() -> None:
    server = new_server(RoundsConfig(min_sites=2), {"a": 1, "b": 1, "c": 1})
    asked = {request.site: request for request in server.dispatch()}
    away = {
        site: SiteLost(site, 0, "its node is away", asked[site].turn, returns=True) for site in "ab"
    }
    for loss in away.values():
        server.receive(loss)
    given_up = replace(away["a"], reason="its node did not come back", returns=False)
    assert server.receive(given_up) is None
    assert server.receive(given_up) is None  # told twice, it is lost once
    assert [loss.returns for loss in server.lost] == [True, True, False]
    with pytest.raises(FederationError, match=r"1 of 3 sites are left .* did not come back"):
        server.receive(replace(given_up, site="b"))
