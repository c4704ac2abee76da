"""Progress in a log: how far it is, when the rest will be done, and of work that goes on."""

from __future__ import annotations

import re
import time

import pytest

from rayfed_hn import progress
from rayfed_hn.progress import bar


class Clock:
    def __init__(self) -> None:
        self.now = time.monotonic()  # of which a bar knows when it was made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


def test_a_log_says_how_far_it_is_and_how_long_the_rest_takes(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with bar("versions", 10) as shown:
        clock.now += 200  # until the actors are there
        shown.update(1, "AUC 0.7")
        clock.now += 1
        shown.update(2)  # too soon for another line
        clock.now += 119
        shown.update(5)
        clock.now += 96
        shown.update(8)
        clock.now += 60
        shown.update(10)
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop(0) == "versions: 1/10  AUC 0.7"
    assert re.fullmatch(r"versions: 5/10  about 2 min left, until .*\d\d:\d\d", lines.pop(0))
    assert re.fullmatch(r"versions: 8/10  about 1 min left.*", lines.pop(0))
    assert lines == ["versions: 10/10"]


@pytest.mark.parametrize(("first", "share"), [(16, None), (40, 0.8)])
def test_what_was_there_before_says_nothing_of_the_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str], first: int, share: float | None
) -> None:
    """16 of 20 are there; each of the others takes 10 s, so that after one 30 s are left."""
    with bar("versions", 20 if share is None else 50) as shown:
        clock.now += 50  # until the actors are there
        shown.update(first, share=share)
        clock.now += 10
        shown.update(first + 1, share=share and 0.85)
    lines = capsys.readouterr().out.splitlines()
    assert "left" not in lines[0]
    assert "about 30 s left" in lines[1]


def test_a_single_piece_that_was_found_says_nothing_of_the_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with bar("trials", 5) as shown:
        shown.update(1)
        clock.now += 100
        shown.update(2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "trials: 1/5"
    assert re.fullmatch(r"trials: 2/5  about 5 min left.*", lines[1])
