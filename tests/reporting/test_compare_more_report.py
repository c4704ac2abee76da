"""What the report of a comparison says beside the metric of the task."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from fake_runs import SITES, make_compare_run
from fake_sweep import make_sweep_run

from rayfed_hn.evaluation.comparison import ByCase
from rayfed_hn.reporting.report import write_report

_HTML = "{http://www.w3.org/1999/xhtml}"
COST = {
    "num_cells": 10, "num_versions": 12, "bytes_down": 5e8, "bytes_up": 2e6,
    "bytes_down_per_version": 4e7, "bytes_up_per_version": 1e5, "site_seconds": 90.0,
    "seconds": 100.0, "time": 7200.0,
}  # fmt: skip
METRICS = ["balanced accuracy", "F1", "Brier score", "calibration error"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be looked at only."""
    folder = make_compare_run(
        tmp_path_factory.mktemp("more") / "run",
        methods=("local", "fedprox", "hypernetwork"),  # none of them lost a cell
        by_case=ByCase(resamples=100, seed=0),
    )
    costs = [{"method": m, **COST} for m in ("local", "fedprox", "hypernetwork")]
    _change(folder, costs=costs)
    for name in ("table.md", "table.csv", "table.tex"):
        (folder / name).write_text("")
    return folder


def _change(folder: Path, **changes: Any) -> None:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def _page(folder: Path) -> ET.Element:
    return ET.fromstring(write_report(folder).read_text(encoding="utf-8").split("\n", 1)[1])


def _section(page: ET.Element, title: str) -> ET.Element:
    return next(s for s in page.iter(f"{_HTML}section") if "".join(s[0].itertext()) == title)


def _tables(element: ET.Element) -> list[list[list[str]]]:
    return [
        [["".join(cell.itertext()) for cell in row] for row in table.iter(f"{_HTML}tr")]
        for table in element.iter(f"{_HTML}table")
    ]


def test_differences_by_case_stand_beside_those_by_split(run: Path) -> None:
    section = _section(_page(run), "Differences")
    text = "".join(section.itertext())
    assert "By split (above): what other divisions" in text
    assert "By case (below): what other patients" in text
    _, by_case, *folded = _tables(section)
    tests = [
        t
        for t in _summary(run)["tests"]
        if (t["method"], t["readout"], t["metric"]) == ("hypernetwork", "mixture", "AUC")
    ]
    whole = [t for t in tests if t["site"] is None]
    assert len(whole) == 2 * 3  # two rivals: bootstrap of the mean and pooled, DeLong pooled
    shown = {(row[1], row[2], row[3], row[4]) for row in by_case[1:]}
    assert shown == {
        (t["against"], t["scope"], t["kind"], f"{t['difference']:+.3f}") for t in whole
    }
    assert len(folded) == 4 + 1  # AUC and three that samples can judge; every site
    assert len(folded[-1]) == 1 + 2 * len(SITES)


def test_bold_are_those_that_stay_apart_when_corrected(run: Path) -> None:
    summary = _summary(run)
    for number, test in enumerate(summary["tests"]):
        test |= {"p": 0.001, "p_holm": (0.04, 0.06, 0.0)[number % 3]}  # DeLong's may be 0
    changed = make_compare_run(run.parent / "bold", methods=("local", "hypernetwork"))
    _change(changed, tests=summary["tests"], methods=summary["methods"])
    section = _section(_page(changed), "Differences")
    table = list(section.iter(f"{_HTML}table"))[1]
    rows = list(table.iter(f"{_HTML}tr"))[1:]
    p_values = {(row[-2].text, row.get("class")) for row in rows}
    assert p_values == {("0.040", "chosen"), ("0.060", None), ("< 0.001", "chosen")}


def test_of_a_metric_without_any_value_there_is_no_worst_site(tmp_path: Path) -> None:
    folder = make_compare_run(tmp_path / "run", methods=("local", "hypernetwork"))
    nothing = dict.fromkeys(("mean_site", "se", "low", "high", "worst_mean", "worst_site"))
    rows = [row | nothing for row in _summary(folder)["more_table"]]
    _change(folder, more_table=rows)
    tables = _tables(_section(_page(folder), "Beside AUC"))
    assert {row[4] for table in tables[1::2] for row in table[1:]} == {"–"}


def test_other_metrics_have_means_words_and_the_reliability_curve(run: Path) -> None:
    section = _section(_page(run), "Beside AUC")
    means, *folded = _tables(section)
    assert means[0] == ["method", *METRICS]
    (row,) = (
        r
        for r in _summary(run)["more_table"]
        if (r["method"], r["readout"], r["metric"]) == ("local", "mixture", "Brier score")
    )
    (shown,) = (r for r in means if r[0] == "local")
    assert shown[3] == f"{row['mean_site']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    assert len(folded) == 2 * 4
    assert f"({row['worst_site']})" in folded[4][1][4]
    picture = next(iter(section.iter("{http://www.w3.org/2000/svg}svg")))
    label = picture.get("aria-label") or ""
    assert all(f"{method} 0." in label for method in ("local", "fedprox", "hypernetwork"))
    text = "".join(section.itertext())
    assert "bins of equal mass: at most 10, with at least 10 bags each" in text
    assert "called positive from a probability of .5" in text


def test_costs_and_files_are_told(run: Path) -> None:
    page = _page(run)
    (costs,) = _tables(_section(page, "Costs"))
    assert costs[1] == [
        "local", "40 MB", "100 kB", "500 MB", "2 MB", "90 s", "2.00 h", "100 s"
    ]  # fmt: skip
    assert "table.md, table.csv, table.tex" in "".join(page.itertext())


def test_of_an_older_run_all_that_is_left_out(tmp_path: Path) -> None:
    folder = make_compare_run(tmp_path / "run")
    found = _summary(folder)
    newer = ("measures", "more_table", "more_per_site", "more_differences", "reliability", "tests")
    for name in newer:
        del found[name]
    (folder / "summary.json").write_text(json.dumps(found))
    page = _page(folder)
    titles = ["".join(s[0].itertext()) for s in page.iter(f"{_HTML}section")]
    assert "Differences" in titles
    assert not {"Beside AUC", "Costs"} & set(titles)
    text = "".join(page.itertext())
    assert "by case" not in text
    assert "table.tex" not in text


def test_amounts_of_noise_have_them_too(tmp_path: Path) -> None:
    folder = make_sweep_run(tmp_path / "run", amounts=(0.0, 0.3), by_case=ByCase(100, 0))
    _change(folder, costs=[{"method": "local", "noise": None, **COST}])
    page = _page(folder)
    means, *_ = _tables(_section(page, "Beside AUC"))
    assert means[0][:2] == ["method", "noise_scale"]
    assert len(means) == 1 + 1 + 2 * 2  # local once, the others with both amounts
    by_case = _tables(_section(page, "Differences between methods"))[1]
    assert {row[2] for row in by_case[1:]} == {"0", "0.3"}
    (costs,) = _tables(_section(page, "Costs"))
    assert costs[1][:3] == ["local", "–", "40 MB"]
