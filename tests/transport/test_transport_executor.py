"""Sites behind streams: asked again, waited for, done without, taken back, given up."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cables import Cables
from puppets import CLASSES, HASH, Puppet, card, executor, reception, request

from rayfed_hn.errors import DataError, FederationError
from rayfed_hn.federation.messages import (
    Deadline,
    EvaluateRequest,
    Event,
    Prepared,
    PrepareRequest,
    Refused,
    SiteBack,
    SiteLost,
    Update,
)
from rayfed_hn.models.standardise import Standardisation
from rayfed_hn.transport.care import Care
from rayfed_hn.transport.executor import TransportExecutor
from rayfed_hn.transport.frames import Ending, Frame, Kind, end
from rayfed_hn.transport.greetings import Hello
from rayfed_hn.transport.reception import CardFolder
from rayfed_hn.transport.requests import request_frame

CARE = Care(restarts=1, silence=10, wait=20, limit=60)


def events(moved: TransportExecutor, count: int) -> list[Event]:
    found = [moved.next_event() for _ in range(count)]
    with pytest.raises(FederationError, match="nothing is in flight"):
        moved.next_event()
    return found


def two(folder: Path, care: Care = CARE) -> tuple[Cables, TransportExecutor]:
    cables = Cables()
    for site in "ab":
        cables.connect(site, Puppet(site))
    return cables, executor(cables, folder, "ab", care)


def test_every_request_is_answered(tmp_path: Path) -> None:
    _, moved = two(tmp_path)
    with pytest.raises(FederationError, match="nothing is in flight"):
        moved.next_event()
    moved.submit([request("a", 3), request("b", 4)])
    for event, site, turn in zip(events(moved, 2), "ab", (3, 4), strict=True):
        assert isinstance(event, Update)
        assert (event.site, event.version, event.turn) == (site, 7, turn)
        np.testing.assert_array_equal(event.update, np.full(3, turn, np.float32))


def test_a_stream_that_breaks_is_waited_for_and_asked_again(tmp_path: Path) -> None:
    cables, moved = two(tmp_path)
    moved.submit([request("a", 1)])
    puppet = cables.agents["a"]
    cables.cut("a")
    cables.at(19, lambda: cables.connect("a", puppet))
    (event,) = events(moved, 1)
    assert isinstance(event, Update)
    assert (event.turn, moved.now, moved.restarts) == (1, 19, {})


def test_who_is_away_comes_back(tmp_path: Path) -> None:
    cables, moved = two(tmp_path)
    moved.submit([request("a", 1)])
    cables.cut("a")
    cables.at(30, lambda: cables.connect("a", Puppet("a")))
    first = moved.next_event()
    assert (first, moved.now) == (SiteLost("a", 7, "its site is away", 1, returns=True), 20)
    moved.submit([request("a", 2)])  # is told so at once
    assert moved.next_event() == SiteLost("a", 7, "its site is away", 2, returns=True)
    assert (moved.next_event(), moved.now) == (SiteBack("a"), 30)
    moved.submit([request("a", 3)])
    (event,) = events(moved, 1)
    assert isinstance(event, Update)


def test_who_does_not_come_back_is_lost_for_good(tmp_path: Path) -> None:
    cables, moved = two(tmp_path)
    moved.submit([request("a", 1), request("b", 1)])
    cables.cut("a")
    assert isinstance(moved.next_event(), Update)
    assert moved.next_event() == SiteLost("a", 7, "its site is away", 1, returns=True)
    reason = "its site did not come back within 60 s"
    assert (moved.next_event(), moved.now) == (SiteLost("a", 7, reason, 1), 60)
    puppet = Puppet("a", life=2)
    cables.connect("a", puppet)
    moved.submit([request("a", 5), request("b", 2)])
    assert moved.next_event() == SiteLost("a", 7, reason, 5)
    assert isinstance(moved.next_event(), Update)
    assert puppet.asked == []
    assert cables.ended["a"].ended
    with pytest.raises(FederationError, match=f"nothing is in flight.*{reason}"):
        moved.next_event()


def test_in_simulated_time_all_wait(tmp_path: Path) -> None:
    cables, moved = two(tmp_path, Care(wait=None, limit=60))
    moved.submit([request("a", 1), request("a", 2)])
    cables.cut("a")
    cables.at(59, lambda: cables.connect("a", Puppet("a", life=2)))
    assert [type(event) for event in events(moved, 2)] == [Update, Update]
    assert (moved.now, moved.restarts) == (59, {"a": 1})
    moved.submit([request("b", 1)])
    cables.cut("b")
    reason = "its site did not come back within 60 s"
    assert events(moved, 1) == [SiteLost("b", 7, reason, 1)]


def test_nobody_is_scored_later(tmp_path: Path) -> None:
    cables, moved = two(tmp_path)
    moved.submit([EvaluateRequest("a", 7, np.zeros(2))])
    cables.cut("a")
    assert events(moved, 1) == [SiteLost("a", 7, "its site is away")]


def test_a_new_process_is_told_the_scale_again_before_anything_else(tmp_path: Path) -> None:
    cables, moved = two(tmp_path)
    scale = Standardisation(np.zeros(2, np.float32), np.ones(2, np.float32))
    moved.submit([PrepareRequest("a", 7, scale)])
    assert events(moved, 1) == [Prepared("a", 7)]
    same, new = cables.agents["a"], Puppet("a", life=2)
    assert isinstance(same, Puppet)
    cables.connect("a", same)
    moved.submit([request("a", 1)])
    assert len(events(moved, 1)) == 1
    assert same.asked == ["PREPARE", "TRAIN"]  # the same process knows it
    cables.connect("a", new)
    moved.submit([request("a", 2)])
    (event,) = events(moved, 1)
    assert isinstance(event, Update)
    assert event.turn == 2
    assert new.asked == ["PREPARE", "TRAIN"]


def test_who_was_away_when_the_scale_was_told_hears_it_later(tmp_path: Path) -> None:
    cables, moved = two(tmp_path)
    scale = Standardisation(np.zeros(2, np.float32), np.ones(2, np.float32))
    cables.cut("a")
    moved.submit([PrepareRequest("a", 7, scale)])
    assert moved.next_event() == SiteLost("a", 7, "its site is away", returns=True)
    puppet = Puppet("a")
    cables.connect("a", puppet)
    assert moved.next_event() == SiteBack("a")
    moved.submit([request("a", 1)])
    assert len(events(moved, 1)) == 1
    assert puppet.asked == ["PREPARE", "TRAIN"]


def test_a_process_that_dies_at_every_request_is_lost(tmp_path: Path) -> None:
    cables, moved = two(tmp_path)
    lives = iter(range(2, 9))

    def die(cables: Cables, site: str, frame: Frame) -> bool:
        if frame.kind is Kind.TRAIN and site == "a":
            cables.connect("a", Puppet("a", life=next(lives)))
            return True
        return False

    cables.fault = die
    moved.submit([request("a", 1), request("b", 1)])
    found = events(moved, 2)
    assert SiteLost("a", 7, "its process died, 2 times in a row", 1) in found
    assert moved.restarts == {"a": 2}


def test_silence_ends_a_stream_and_at_last_the_site(tmp_path: Path) -> None:
    cables, moved = two(tmp_path)
    puppet = Puppet("a", silent=True)
    cables.connect("a", puppet)
    moved.submit([request("a", 1)])
    cables.at(10.5, lambda: cables.connect("a", puppet))
    reason = "it did not answer within 10 s, 2 times in a row"
    assert events(moved, 1) == [SiteLost("a", 7, reason, 1)]
    assert 20 <= moved.now <= 21
    assert puppet.asked == ["TRAIN", "TRAIN"]


def test_who_was_silent_and_answers_late_is_forgiven(tmp_path: Path) -> None:
    cables, moved = two(tmp_path)
    cables.connect("a", Puppet("a", silent=True))
    moved.submit([request("a", 1)])
    cables.at(15, lambda: cables.connect("a", Puppet("a")))
    assert [type(event) for event in events(moved, 1)] == [Update]


def test_a_line_that_breaks_at_every_request_runs_out_of_time(tmp_path: Path) -> None:
    cables, moved = two(tmp_path)
    puppet = cables.agents["a"]

    def breaks(cables: Cables, site: str, frame: Frame) -> bool:
        assert cables.now < 1000, "this would go on for ever"
        if frame.kind is Kind.TRAIN and site == "a":
            cables.cut("a")
            cables.at(cables.now + 8, lambda: cables.connect("a", puppet))
        return not cables.agents.keys() >= {site}

    cables.fault = breaks
    moved.submit([request("a", 1)])
    last = moved.next_event()
    assert last == SiteLost("a", 7, "its site is away", 1, returns=True)
    assert moved.now == 20  # without a stream, in two and a half times
    for turn in range(2, 5):
        assert moved.next_event() == SiteBack("a")
        moved.submit([request("a", turn)])
        last = moved.next_event()
        assert last == SiteLost("a", 7, "its site is away", turn, returns=True)
    while not isinstance(last, SiteLost) or last.returns:
        last = moved.next_event()
        if isinstance(last, SiteBack):
            moved.submit([request("a", 9)])
    assert (last.reason, moved.now) == ("its site did not come back within 60 s", 60)


def test_silence_on_several_streams_is_silence(tmp_path: Path) -> None:
    cables, moved = two(tmp_path)
    puppet = Puppet("a", silent=True)
    cables.connect("a", puppet)
    moved.submit([request("a", 1)])
    for again in range(1, 40):  # it never says nothing for more than 5 s
        cables.at(5 * again, lambda: cables.connect("a", puppet))
    reason = "it did not answer within 10 s, 2 times in a row"
    assert events(moved, 1) == [SiteLost("a", 7, reason, 1)]
    assert moved.now <= 25


def test_who_has_nothing_to_answer_may_come_and_go(tmp_path: Path) -> None:
    cables, moved = two(tmp_path, Care(wait=None, limit=60))
    puppet = cables.agents["a"]
    moved.submit([request("b", 1)])
    cables.after = lambda cables, site, frame: site == "b"  # never arrives
    for day in range(3):
        cables.at(100 * day, lambda: cables.cut("a"))
        cables.at(100 * day + 50, lambda: cables.connect("a", puppet))
    moved.set_alarm(7, 400.0)
    assert moved.next_event() == Deadline(7)
    moved.submit([request("a", 1)])
    assert isinstance(moved.next_event(), Update)


@pytest.mark.parametrize("what", ["garbage", "too long", "hello", "ready", "unknown end"])
def test_what_makes_no_sense_ends_the_stream(tmp_path: Path, what: str) -> None:
    cables, moved = two(tmp_path)
    puppet = Puppet("a", silent=True)
    cables.connect("a", puppet)
    moved.submit([request("a", 1)])
    if what == "garbage":
        cables.raw("a", [b"GET / HTTP/1.1\r\n\r\n" * 9])
    elif what == "too long":
        cables.up("a", Frame(Kind.ANSWER, bytes(2**17)))
    else:
        frames = {"hello": puppet.hello(), "ready": Frame(Kind.READY), "unknown end": end(9)}  # type: ignore[arg-type]
        cables.up("a", frames[what] if what != "unknown end" else Frame(Kind.END, b"x"))
    cables.at(5, lambda: cables.connect("a", Puppet("a")))
    assert [type(event) for event in events(moved, 1)] == [Update]


@pytest.mark.parametrize("kind", [Kind.ANSWER, Kind.READY, Kind.WELCOME])
def test_who_was_not_admitted_is_not_listened_to(tmp_path: Path, kind: Kind) -> None:
    cables, moved = two(tmp_path)
    cables.connect("a", Puppet("a", silent=True))
    moved.submit([request("a", 1)])
    intruder = Puppet("a", life=3)
    frame = Frame(kind, Puppet("a").answer(request_frame(request("a", 1), 1)), 1)
    intruder.hello = lambda: frame  # an answer, in place of a greeting
    cables.at(1, lambda: cables.connect("a", intruder))
    cables.at(2, lambda: cables.connect("a", Puppet("a")))
    (event,) = events(moved, 1)
    assert isinstance(event, Update)
    assert moved.now == 2
    assert intruder.asked == []


def test_answers_that_nobody_waits_for_change_nothing(tmp_path: Path) -> None:
    cables, moved = two(tmp_path)
    puppet = cables.agents["a"]
    assert isinstance(puppet, Puppet)
    cables.up("a", Frame(Kind.ANSWER, b"before anything was asked", 1))
    moved.submit([request("b", 1)])
    assert [type(event) for event in events(moved, 1)] == [Update]
    puppet.answer = lambda frame: b"\xff" * 40
    moved.submit([request("a", 2)])
    (refused,) = events(moved, 1)
    assert isinstance(refused, Refused)  # read as what the asked site was asked for
    cables.up("a", Frame(Kind.ANSWER, b"again", 2))
    moved.submit([request("b", 2)])
    assert [event.site for event in events(moved, 1) if isinstance(event, Update)] == ["b"]


def test_a_deadline_comes_while_others_are_waited_for(tmp_path: Path) -> None:
    cables, moved = two(tmp_path)
    cables.connect("a", Puppet("a", silent=True))
    moved.set_alarm(3, 100.0)
    moved.set_alarm(7, 2.0)  # in place of the one before
    moved.submit([request("a", 1)])
    assert (moved.next_event(), moved.now) == (Deadline(7), 2)


def test_it_says_who_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cables, moved = two(tmp_path, Care(limit=500))
    cables.cut("a")
    moved.submit([request("a", 1)])
    cables.at(70, lambda: cables.connect("a", Puppet("a")))
    assert len(events(moved, 1)) == 1
    assert capsys.readouterr().out == "nothing heard for 60 s; waiting for a\n"


def test_sites_that_do_not_join_are_named(tmp_path: Path) -> None:
    cables = Cables()
    cables.connect("b", Puppet("b"))
    desk, told = reception(cables, tmp_path, "abc")
    with pytest.raises(FederationError, match=r"^a, c did not join within 100 s"):
        desk.gather(100, cables.clock)
    assert told[0] == "b is here"
    assert "waiting for a, c to join" in told


@pytest.mark.parametrize(
    ("site", "life", "run", "why"),
    [("a", 1, "f" * 32, Ending.OTHER_RUN), ("a", 2, "", Ending.FORGOTTEN)],
)
def test_who_does_not_fit_is_turned_away(
    tmp_path: Path, site: str, life: int, run: str, why: Ending
) -> None:
    cables, _ = two(tmp_path)
    desk, told = reception(cables, tmp_path, "ab")
    desk.begin("ab")
    cables.connect(site, Puppet(site, life, run))
    while cables._arrivals or cables._down:
        desk.next(0.0)
    assert f"a was turned away: {why.name.lower().replace('_', ' ')}" in told
    assert site not in desk.present


def test_other_bags_than_before_are_turned_away(tmp_path: Path) -> None:
    cables, _ = two(tmp_path)
    desk, told = reception(cables, tmp_path, "ab")
    path = tmp_path / "cards" / "a.card"
    path.write_bytes(path.read_bytes().replace(b"\xab" * 32, b"\xcd" * 32))
    desk, told = reception(cables, tmp_path, "ab")
    cables.connect("a", Puppet("a"))
    while cables._arrivals or cables._down:
        desk.next(0.0)
    assert told[-1] == "a was turned away: other bags"


def test_until_a_run_is_made_of_them_cards_may_be_replaced(tmp_path: Path) -> None:
    cables = Cables()
    desk, _ = reception(cables, tmp_path, "ab")
    for number in (3, 4):
        puppet = Puppet("a", life=number)
        changed = Hello(number, "", HASH, card("a", num_known=number + 2, num_cases=number - 1))
        changed = replace(changed, card=replace(changed.card, labels={"yes": number + 2}))
        frame = Frame(Kind.HELLO, changed.to_bytes(CLASSES))
        puppet.hello = partial(Frame, frame.kind, frame.payload)
        cables.connect("a", puppet)
        while cables._arrivals or cables._down:
            desk.next(0.0)
        assert desk.cards["a"].num_known == number + 2
    assert not (tmp_path / "cards").exists()
    desk.keep()
    desk, _ = reception(cables, tmp_path, "ab")
    assert desk.cards["a"].num_known == 6


def test_a_card_that_is_damaged_is_named(tmp_path: Path) -> None:
    two(tmp_path)
    (tmp_path / "cards" / "b.card").write_bytes(b"x")
    with pytest.raises(DataError, match=r"b\.card is damaged.*waits for b"):
        CardFolder(tmp_path / "cards", ("no", "yes")).read("ab")
