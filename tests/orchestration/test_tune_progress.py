"""What is told of a search while it runs: all of it, and every trial, in plain lines of a log."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from rayfed_hn import progress
from rayfed_hn.loading import load
from rayfed_hn.orchestration.tune_trials import News
from rayfed_hn.tuning.search import Search
from rayfed_hn.verbs import tune as verb

pytestmark = pytest.mark.ray  # which the module of trials imports
WORDS = ["tune.space.hypernetwork.rho=uniform(0,1)", "tune.num_trials=4", "rounds.num_versions=9"]


def test_all_of_it_and_each_trial_say_when_they_will_be_done(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    search, clock = Search.of(load(None, WORDS), bag_root), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    hear = verb._Shown(search, progress.Bar("trials", 4, None)).hear
    hear(0, None)
    for version in range(4):
        clock[0] += 10.0
        hear(0, News(search.trials[0], version, 0.5))
    hear(0, News(search.trials[1], 0, None))
    clock[0] += 20.0
    hear(0, News(search.trials[0], 0, 0.5))  # its process was started anew
    record = {"status": "finished", "reason": None}
    hear(1, News(search.trials[1], 9, 0.75, record))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "trials: 0/4"
    assert lines[1] == "trials: 0/4  trial 0: version 0/9, validation 0.500"
    # 3 of 10 versions of one of 4 trials took 40 s.
    clock_time = r"\d\d:\d\d"
    assert re.fullmatch(
        f"trials: 0/4  about 8 min left, until {clock_time}  "
        f"trial 0: version 3/9, validation 0.500, about 1 min left, until {clock_time}",
        lines[4],
    )
    assert "trial 1: version 0/9, validation undefined" in lines[5]
    assert lines[6].endswith("trial 0: version 0/9, validation 0.500")
    assert lines[7].startswith("trials: 1/4  about 3 min left")
    assert lines[7].endswith(": 0.750 (finished)")


def test_versions_are_those_of_the_trial(
    bag_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tune.space.rounds.num_versions=grid(2, 4)", "tune.search=grid"]
    search = Search.of(load(None, words), bag_root)
    bar = progress.Bar("trials", 2, None)
    verb._Shown(search, bar).hear(0, News(search.trials[1], 3, 0.5))
    assert "trial 1: version 3/4" in capsys.readouterr().out
