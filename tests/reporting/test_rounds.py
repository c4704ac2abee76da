from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_runs import SITES, make_late_run

from rayfed_hn.errors import DataError
from rayfed_hn.reporting.report import _in_order, write_report
from rayfed_hn.reporting.run_files import Run

_SVG = "{http://www.w3.org/2000/svg}svg"
Records = list[dict[str, Any]]


def _words(folder: Path) -> str:
    page = ET.fromstring(write_report(folder).read_text(encoding="utf-8").split("\n", 1)[1])
    labels = " ".join(picture.get("aria-label") or "" for picture in page.iter(_SVG))
    return " ".join(f"{' '.join(page.itertext())} {labels}".split())


def _change(folder: Path, change: Callable[[Records, dict[str, Any]], Records | None]) -> str:
    """Change metrics and summary in place (or return other metrics); return the page's words."""
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    changed = change(metrics, summary)
    metrics = metrics if changed is None else changed
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in metrics))
    (folder / "summary.json").write_text(json.dumps(summary))
    return _words(folder)


def test_a_run_in_which_all_took_part_in_time_has_no_such_section(train_run: Path) -> None:
    found = _words(train_run)
    assert "How late updates were" not in found
    assert "share of updates" not in found


@pytest.mark.parametrize(
    "change",
    [
        lambda metrics, summary: metrics[7].update(staleness=1),
        lambda metrics, summary: summary.update(clock="simulated"),
        lambda metrics, summary: metrics[1:],
        lambda metrics, summary: [r for r in metrics if r["site"] != SITES[2]],
    ],
    ids=["late", "simulated", "uneven", "silent"],
)
def test_lateness_a_simulated_clock_or_uneven_parts_are_shown(
    train_run: Path, change: Callable[[Records, dict[str, Any]], Records | None]
) -> None:
    assert "How late updates were" in _change(train_run, change)


def test_the_section_counts_what_went_into_versions(tmp_path: Path) -> None:
    found = _words(make_late_run(tmp_path / "run"))
    # 28 updates: of SITES[i] those to every (i + 1)-th version, staleness i * (version % 5).
    assert "North Clinic 4 14 % 4.0" in found  # 0, 3, 6, 9: staleness 0, 6, 2, 8
    assert "Lakeside 6 21 % 1.7" in found  # 0, 2, ... 10: staleness 0, 2, 4, 1, 3, 0
    assert "Cedar Hospital 12 43 % 0.0" in found
    assert "19 of staleness 0, 1 of staleness 1, 2 of staleness 2" in found
    assert "1 of staleness 11+" in found  # <b>x: 12 late
    assert "clock simulated, 3 h 3 min" in found
    assert "sites at work 63 % of the time, on average" in found
    assert "updates refused for their age 3" in found
    assert "times that a site was away 2" in found
    assert "training, share of the time" not in found  # real seconds, simulated clock


def test_a_site_that_was_never_asked_has_its_row(train_run: Path) -> None:
    found = _change(train_run, lambda metrics, _: [r for r in metrics if r["site"] != SITES[2]])
    assert f"{SITES[2]} 0 0 % –" in found


def test_a_pooled_site_is_no_hospital_that_kept_silent(train_run: Path) -> None:
    def pool(metrics: Records, summary: dict[str, Any]) -> Records:
        return [r | {"site": "pooled"} for r in metrics if r["site"] == SITES[0]]

    assert "How late updates were" not in _change(train_run, pool)


def test_the_share_of_time_is_of_the_real_clock_and_of_one_start(train_run: Path) -> None:
    def late(metrics: Records, summary: dict[str, Any]) -> None:
        metrics[0]["staleness"] = 1

    def continued(metrics: Records, summary: dict[str, Any]) -> None:
        summary["clock_seconds"] = 6.0  # of the second start only; the updates took 12 s

    title = "training, share of the time"
    found = _change(train_run, late)
    assert title in found
    assert "Lakeside 12 20 % 0.0 50 %" in found  # 12 updates of 1 s in 24 s
    assert title not in _change(train_run, continued)


def test_a_staleness_that_is_no_number_is_a_broken_file(train_run: Path) -> None:
    with pytest.raises(DataError, match="line 1"):
        _change(train_run, lambda metrics, _: metrics[0].update(staleness="much"))


@pytest.mark.parametrize("waits", [True, False])
def test_only_an_order_of_real_machines_needs_a_replay(tmp_path: Path, waits: bool) -> None:
    config = {} if waits else {"rounds": {"buffer_size": 2}}
    run = Run(tmp_path, "train", {"clock": "real"}, config, "", ())
    assert ("rounds.replay=events.jsonl" in _in_order(run)) == (not waits)
    simulated = Run(tmp_path, "train", {"clock": "simulated"}, config, "", ())
    assert _in_order(simulated) == ""
