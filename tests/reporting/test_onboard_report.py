"""The report of a site that joined: what it says is what the summary says."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from fake_runs import VERSIONS
from fake_tasks import CLASSES, KINDS

from rayfed_hn.config import Config
from rayfed_hn.errors import DataError
from rayfed_hn.evaluation.judging import NAMES, Kind
from rayfed_hn.federation.onboarding.arms import WORDS
from rayfed_hn.federation.onboarding.trial import RECOMMENDED
from rayfed_hn.loading import to_yaml
from rayfed_hn.reporting.report import write_report

_SVG = "{http://www.w3.org/2000/svg}svg"
_ROW = "{http://www.w3.org/1999/xhtml}tr"
ARMS = (*WORDS, RECOMMENDED)
COUNTS = (0, 1, 4)


def _value(arm: str, count: int) -> float:
    return round(0.5 + 0.01 * ARMS.index(arm) + 0.02 * count, 3)


def _curve() -> list[dict[str, Any]]:
    without = ("zero-shot", "FedAvg", RECOMMENDED)
    return [
        {"labelled": n, "arm": arm, "mean": _value(arm, n), "se": 0.01, "num": 5}
        for n in COUNTS
        for arm in ARMS
        if n or arm in without
    ]


def make_onboard_run(folder: Path, kind: Kind = "binary", **changes: Any) -> Path:
    summary = {
        "verb": "onboard",
        "status": "complete",
        "exit_code": 0,
        "site": "<b>Lakeside</b> & 'Sons'",
        "method": "hypernetwork",
        "task": kind,
        "unit": "slide",
        "metric": NAMES[kind],
        "classes": CLASSES[kind],
        "num_sites": 7,
        "num_labelled": 31,
        "num_test": 9,
        "set_aside": [],
        "lost_sites": [],
        "curve": _curve(),
        "recommended": {"base + fine-tuning": 0.62, "isolated": 0.38},
        "held_out": {"base + fine-tuning": 0.81, "isolated": None},
        "values": {arm: _value(arm, 10) for arm in ARMS},
        "origin": "/runs/three sites",
        "bags": "/bags",
        "fedavg": None,
        "manifest": None,
        "seconds": 12.0,
        "versions": VERSIONS,
    }
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary | changes), encoding="utf-8")
    (folder / "config.yaml").write_text(to_yaml(Config()), encoding="utf-8")
    return folder


def _page(folder: Path) -> ET.Element:
    return ET.fromstring(write_report(folder).read_text(encoding="utf-8").split("\n", 1)[1])


def _words(page: ET.Element) -> str:
    return " ".join(" ".join(page.itertext()).split())


def _rows(page: ET.Element) -> dict[str, list[str]]:
    rows = [["".join(cell.itertext()) for cell in row] for row in page.iter(_ROW)]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_the_summary(tmp_path: Path, kind: Kind) -> None:
    page = _page(make_onboard_run(tmp_path / "run", kind))
    rows, words = _rows(page), _words(page)
    assert rows["network"] == ["0 each", "1 each", "4 each", "all labelled"]
    for arm in ARMS:
        missing = arm not in ("zero-shot", "FedAvg", RECOMMENDED)
        values = [*(_value(arm, n) for n in COUNTS), _value(arm, 10)]
        cells = [f"{value:.3f}" for value in values]
        assert rows[arm] == (["–", *cells[1:]] if missing else cells), arm
    told = f"has a test {NAMES[kind]} of {_value(RECOMMENDED, 10):.3f}, and training alone "
    assert told + f"{_value('isolated', 10):.3f}" in words
    assert "62 % base + fine-tuning, 38 % isolated" in words
    assert "base + fine-tuning 0.810, isolated –" in words
    assert "hypernetwork of 7 sites" in words
    assert "<b>Lakeside</b> & 'Sons' joins" in words
    (picture,) = [p.get("aria-label") or "" for p in page.iter(_SVG)]
    assert f"recommended {_value(RECOMMENDED, 4):.3f}" in picture
    each = {"survival": "with and without event", "ordinal": "of every grade"}
    assert f"number of labelled bags {each.get(kind, 'of every class')}." in words
    if kind == "survival":
        assert "class" not in words.split("config.yaml")[0]
    if kind != "binary":
        assert not re.search(r"(?<!macro )\bAUC\b", words)


def test_what_is_undefined_is_a_dash_and_never_nan(tmp_path: Path) -> None:
    nothing = [point | {"mean": None, "se": None, "num": 0} for point in _curve()]
    changes = {"curve": nothing, "values": dict.fromkeys(ARMS)}
    page = _page(make_onboard_run(tmp_path / "run", **changes))
    assert "on its test bags is not defined" in _words(page)
    assert _rows(page)[RECOMMENDED] == ["–"] * 4
    assert not list(page.iter(_SVG))
    assert not re.search(r"\bnan\b|None", _words(page).split("config.yaml")[0])


def test_without_labels_without_a_curve_and_without_some_points(tmp_path: Path) -> None:
    values = {"zero-shot": 0.6, RECOMMENDED: 0.6}
    bare = {"curve": [], "values": values, "num_labelled": 0}
    bare |= {"recommended": {"zero-shot": 1.0}, "held_out": {"zero-shot": None}}
    page = _page(make_onboard_run(tmp_path / "bare", **bare))
    assert "(100 % zero-shot) has a test AUC of 0.600." in _words(page)
    assert "training alone" not in _words(page).split("How it was tried")[0]
    holes = [p | ({"mean": None} if p["labelled"] == 1 else {}) for p in _curve()]
    (picture,) = _page(make_onboard_run(tmp_path / "holes", curve=holes)).iter(_SVG)
    drawn = ET.tostring(picture, encoding="unicode")
    assert not re.search(r"\bnan\b", drawn.lower())


def test_it_says_how_to_join_again(tmp_path: Path) -> None:
    words = _words(_page(make_onboard_run(tmp_path / "run", fedavg="/runs/avg")))
    assert "rayfed-hn onboard '/runs/three sites' --site '<b>Lakeside</b> & '" in words
    assert "--bags /bags --fedavg /runs/avg onboard.labelled=0,1,2,4,8 onboard.repeats=5" in words
    assert "run.seed=0 data.fold=0 run.dir=run-again" in words


def test_what_was_set_aside_is_told(tmp_path: Path) -> None:
    aside = {"site": "Lakeside", "reason": "3 of its bags are damaged", "remedy": "mend them"}
    changes = {"status": "degraded", "exit_code": 3, "set_aside": [aside]}
    words = _words(_page(make_onboard_run(tmp_path / "run", **changes)))
    assert "Not everything went through" in words
    assert "3 of its bags are damaged" in words


@pytest.mark.parametrize("missing", ["site", "curve", "recommended", "held_out", "values"])
def test_a_summary_without_results_is_refused(tmp_path: Path, missing: str) -> None:
    folder = make_onboard_run(tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    del summary[missing]
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(DataError, match=f"it has no '{missing}'"):
        write_report(folder)
