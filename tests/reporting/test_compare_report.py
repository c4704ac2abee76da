"""Reports of many methods under three readouts: what is in front, and that nothing is missing."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_runs import SITES, make_compare_run

from rayfed_hn.config import METHODS
from rayfed_hn.reporting.report import write_report

_HTML = "{http://www.w3.org/1999/xhtml}"
_SVG = "{http://www.w3.org/2000/svg}svg"
Table = list[list[str]]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of all methods, to be looked at only."""
    return make_compare_run(tmp_path_factory.mktemp("many") / "run", methods=METHODS)


def _page(folder: Path) -> ET.Element:
    return ET.fromstring(write_report(folder).read_text(encoding="utf-8").split("\n", 1)[1])


def _summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def _rows(table: ET.Element) -> Table:
    return [["".join(cell.itertext()) for cell in row] for row in table.iter(f"{_HTML}tr")]


def _folded(page: ET.Element) -> dict[str, Table]:
    return {
        "".join(part[0].itertext()): _rows(table)
        for part in page.iter(f"{_HTML}details")
        for table in part.iter(f"{_HTML}table")
    }


def _in_sight(page: ET.Element) -> list[ET.Element]:
    """Return the tables that nothing hides."""

    def walk(element: ET.Element) -> Iterator[ET.Element]:
        for child in element:
            if child.tag == f"{_HTML}table":
                yield child
            elif child.tag != f"{_HTML}details":
                yield from walk(child)

    return list(walk(page))


def _picture(page: ET.Element, title: str) -> tuple[str, str]:
    """Return what a picture says in words, and its caption."""
    for figure in page.iter(f"{_HTML}figure"):
        if "".join(figure[0].itertext()) == title:
            picture = figure.find(_SVG)
            assert picture is not None
            return picture.get("aria-label") or "", "".join(figure[-1].itertext())
    raise AssertionError(title)


def test_in_sight_is_one_row_a_method_best_first_other_readouts_dimmed(many: Path) -> None:
    table, differences, *_ = _in_sight(_page(many))
    means = {(r["method"], r["readout"]): r["mean_site"] for r in _summary(many)["table"]}
    header, *rows = _rows(table)
    assert header[-2:] == ["mean (best)", "mean (last)"]
    expected = sorted(METHODS, key=lambda method: -means[method, "mixture"])
    assert [row[0] for row in rows] == expected
    for row in rows:
        shown = [f"{means[row[0], name]:.3f}" for name in ("mixture", "best", "last")]
        assert [row[1], *row[-2:]] == shown
    last = next(iter(table.iter(f"{_HTML}tbody")))[0][-1]
    assert last.get("class") == "quiet"
    against = [row[0] for row in _rows(differences)[1:]]
    assert against == [method for method in expected if method != "hypernetwork"]


def test_the_subject_and_what_it_is_told_apart_from_are_bold(many: Path) -> None:
    found = {
        d["against"]
        for d in _summary(many)["differences"]
        if (d["method"], d["readout"]) == ("hypernetwork", "mixture")
        and (d["low"] > 0 or d["high"] < 0)
    }
    methods, differences = (
        [row[0].text for row in table.iter(f"{_HTML}tr") if row.get("class") == "chosen"]
        for table in _in_sight(_page(many))[:2]
    )
    assert methods == ["hypernetwork"]
    assert 0 < len(found) < len(METHODS) - 1  # else this test shows nothing
    assert set(differences) == found


def test_everything_is_in_the_folded_tables(many: Path) -> None:
    folded = _folded(_page(many))
    num_pairs = len(METHODS) * (len(METHODS) - 1) // 2
    assert len(folded["Every readout"]) == 1 + 3 * len(METHODS)
    for readout in ("mixture", "best", "last"):
        assert len(folded[f"Every pair of methods, readout '{readout}'"]) == 1 + num_pairs
    assert len(folded["Every site, method and readout"]) == 1 + 3 * len(METHODS) * len(SITES)
    matrices = [table for table in map(_rows, _in_sight(_page(many))) if table[0][0] == "site"]
    header, *rows = matrices[0]
    assert len(rows) == len(SITES)
    (cell,) = (
        r
        for r in _summary(many)["per_site"]
        if (r["method"], r["readout"], r["site"]) == ("fedper", "mixture", "Lakeside")
    )
    row = next(row for row in rows if row[0] == "Lakeside")
    assert row[header.index("fedper")] == f"{cell['mean_value']:.3f}"


def test_pictures_that_cannot_hold_all_keep_the_references_and_say_so(many: Path) -> None:
    page = _page(many)
    for title in ("Every site", "Validation AUC"):
        words, caption = _picture(page, title)
        shown = {method for method in METHODS if re.search(rf"\b{method} \d", words)}
        assert len(shown) == 6
        assert {"hypernetwork", "local", "fedavg", "pooled"} < shown
        assert "6 of 11 methods" in caption
    assert all(f"{method} 0." in _picture(page, "Methods")[0] for method in METHODS)
    words, _ = _picture(page, "Hypernetwork against")
    assert all(f"{method} (" in words for method in METHODS if method != "hypernetwork")


def test_the_readout_of_the_configuration_decides(many: Path, tmp_path: Path) -> None:
    folder = make_compare_run(tmp_path / "run")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("readout: mixture", "readout: last"))
    table = _in_sight(_page(folder))[0]
    assert "Readout 'last': the final version." in "".join(table[0].itertext())
    assert _rows(table)[0][-2:] == ["mean (mixture)", "mean (best)"]
    means = {
        r["method"]: r["mean_site"] for r in _summary(folder)["table"] if r["readout"] == "last"
    }
    assert [row[1] for row in _rows(table)[1:]] == [
        f"{mean:.3f}" for mean in sorted(means.values(), reverse=True)
    ]


def test_a_comparison_from_before_the_mixture_falls_back_to_what_it_has(compare_run: Path) -> None:
    summary = _summary(compare_run)
    for name in ("table", "per_site", "differences"):
        summary[name] = [r for r in summary[name] if r["readout"] != "mixture"]
    (compare_run / "summary.json").write_text(json.dumps(summary))
    assert _rows(_in_sight(_page(compare_run))[0])[0][-1] == "mean (last)"


def test_one_method_alone_is_reported_without_differences(tmp_path: Path) -> None:
    page = _page(make_compare_run(tmp_path / "run", methods=("hypernetwork",)))
    assert len(_in_sight(page)) == 3  # of the task's metric, of its sites, and of other metrics
    assert "No two methods can be compared." in "".join(page.itertext())
