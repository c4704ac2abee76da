"""What stands below the first screen of a report, and that nothing of it is left out there."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from fake_runs import make_compare_run
from fake_tune import make_tune_run

from rayfed_hn.reporting import tune_report
from rayfed_hn.reporting.report import write_report

_HTML = "{http://www.w3.org/1999/xhtml}"


def _sections(report: Path) -> dict[str, str]:
    """The words of every section, by its heading, in their order."""
    page = ET.fromstring(report.read_text(encoding="utf-8").split("\n", 1)[1])
    found = {}
    for section in page.iter(f"{_HTML}section"):
        words = " ".join(" ".join(section.itertext()).split())
        found["".join(section[0].itertext())] = words
    return found


def _changed(folder: Path, **changes: Any) -> Path:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return write_report(folder)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("train", ["In short", "Training", "Privacy", "Costs", "Set aside and lost"]),
        ("compare", ["In short", "Differences", "Every site", "Training", "Set aside and lost"]),
    ],
)
def test_the_answer_comes_first_and_how_to_repeat_it_last(
    name: str, order: list[str], request: pytest.FixtureRequest
) -> None:
    fixture = "reported_private" if name == "train" else "reported_compare"
    found = list(_sections(request.getfixturevalue(fixture)))
    places = [found.index(title) for title in [*order, "How to repeat it", "Limits"]]
    assert places == sorted(places)


def test_that_nothing_was_lost_is_said(tmp_path: Path, reported_compare: Path) -> None:
    whole = write_report(make_compare_run(tmp_path / "run", methods=("local", "hypernetwork")))
    nothing = "Nothing failed, no site was lost, and no slide was set aside."
    assert nothing in _sections(whole)["Set aside and lost"]
    lost = _sections(reported_compare)["Set aside and lost"]
    assert nothing not in lost
    assert "fedavg, seed 1, fold 4 failed: its worker died" in lost


def test_of_many_losses_the_first_screen_has_some_and_the_section_all(train_run: Path) -> None:
    names = ["Cedar Hospital", *(f"site {i}" for i in range(1, 9))]
    lost = [{"site": name, "version": i, "reason": "no answer"} for i, name in enumerate(names)]
    found = _sections(_changed(train_run, lost_sites=lost))
    first, below = found["In short"], found["Set aside and lost"]
    assert "site 3 was lost" in first
    assert "site 4 was lost" not in first
    assert "and 5 more, under 'Set aside and lost'" in first
    assert all(f"{name} was lost at version {i}: no" in below for i, name in enumerate(names))


def test_costs_are_those_of_the_updates(train_run: Path) -> None:
    path = train_run / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(r | {"seconds": 2.5}) + "\n" for r in records))
    costs = _sections(write_report(train_run))["Costs"]
    assert f"{2.5 * len(records):.3g} s in all, for {len(records)} updates; 2.5 s an" in costs
    assert "788,739 parameters, 3.15 MB as float32" in costs
    assert "wall time, all in all 3 min" in costs
    assert "simulated" not in costs
    costs = _sections(_changed(train_run, clock="simulated", clock_seconds=11_000.0))["Costs"]
    assert "time by the simulated clock 3 h 3 min" in costs


def test_what_a_run_was_made_of_is_said(train_run: Path, compare_run: Path) -> None:
    (train_run / "config.yaml").write_text("run: {seed: 7}\ndata: {bags: /the/bags}\n")
    found = _sections(_changed(train_run, recipe_sha256="8aa8"))["How to repeat it"]
    assert "bag store /the/bags, recipe SHA-256 8aa8" in found
    assert "seed run.seed=7 versions python 3.11.9, rayfed_hn 0.1.0, torch 2.13.0" in found
    found = _sections(write_report(compare_run))["How to repeat it"]
    assert "run.seed=0, and 2 divisions into 5 folds drawn from it" in found


def test_of_many_trials_the_best_are_in_sight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_tune_run(tmp_path / "tune")
    assert "Every trial" not in _sections(write_report(folder))["In short"]
    monkeypatch.setattr(tune_report, "_IN_SIGHT", 3)
    first = _sections(write_report(folder))["In short"]
    assert "The first 3 of 6." in first
    before, every = first.split("Every trial")
    assert "0.876" in before
    assert "0.637" not in before
    assert "0.637" in every.split("What noise_scale costs")[0]
