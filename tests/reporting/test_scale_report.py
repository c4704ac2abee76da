"""Reports of more and more sites: what is in front, what pictures show, and that they add up."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from fake_scale import METHODS, make_scale_run, scale_summary
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.config import METHODS as ALL_METHODS
from rayfed_hn.errors import DataError
from rayfed_hn.reporting.report import write_report
from rayfed_hn.reporting.rung_charts import log_ticks
from rayfed_hn.reporting.scale_figures import phase_stack
from rayfed_hn.reporting.scale_report import scale_table
from rayfed_hn.reporting.scale_rows import digits, memories, rounds
from rayfed_hn.reporting.scale_words import verdict

_HTML = "{http://www.w3.org/1999/xhtml}"
_SVG = "{http://www.w3.org/2000/svg}svg"


def _page(folder: Path) -> ET.Element:
    return ET.fromstring(write_report(folder).read_text(encoding="utf-8").split("\n", 1)[1])


def _words(page: ET.Element) -> str:
    return " ".join(" ".join(page.itertext()).split())


def _pictures(page: ET.Element) -> dict[str, str]:
    """What pictures say in words, by their titles."""
    return {
        "".join(figure[0].itertext()): svg.get("aria-label") or ""
        for figure in page.iter(f"{_HTML}figure")
        for svg in figure.iter(_SVG)
    }


def test_phases_of_a_bar_add_up_to_the_time_per_version() -> None:
    rows = scale_summary()["rows"]
    stacks = phase_stack(rows)
    for place, row in enumerate(rows):
        parts = {phase: heights[place] for phase, heights in stacks.items()}
        assert sum(row["phases"].values()) != pytest.approx(row["seconds_per_version"])
        assert sum(parts.values()) == pytest.approx(row["seconds_per_version"])
        share = row["phases"]["pull_back"] / row["phases"]["training"]
        assert parts["pull-back"] / parts["training"] == pytest.approx(share)


def test_a_lost_site_is_said_in_the_table_and_before_it(tmp_path: Path) -> None:
    summary = scale_summary()
    assert "lost" not in rounds(summary).header
    lost = next(r for r in summary["rows"] if (r["method"], r["sites"]) == ("fedavg", 1000))
    lost["lost_sites"] = 3
    summary |= {"status": "degraded", "exit_code": 3}
    told = {(row[0], row[1]): row[-1] for row in rounds(summary).rows}
    assert rounds(summary).header[-1] == "lost"
    assert told.pop(("fedavg", "1,000")) == "3"
    assert set(told.values()) == {"0"}
    page = _words(_page(make_scale_run(tmp_path / "run", summary)))
    lines = "Not everything went through 3 sites of fedavg at 1,000 sites were lost"
    order = [verdict(summary), lines, "Every step:"]
    assert [page.index(words) for words in order] == sorted(page.index(words) for words in order)


def test_a_page_has_verdict_tables_pictures_configuration_and_versions(tmp_path: Path) -> None:
    summary = scale_summary()
    page = _page(make_scale_run(tmp_path / "run", summary))
    words = _words(page)
    order = [verdict(summary), "Every step:", "Time per version", "Where the time of a version"]
    order += [
        "Memory by kind of process (MiB).",
        "Bytes moved",
        "rayfed-hn scale config.yaml run.dir=run-again",
    ]
    order += ["2.60.0", "Sites are virtual"]
    assert [words.index(part) for part in order] == sorted(words.index(part) for part in order)
    assert "hypernetwork, fedavg · 10 to 10,000 sites · 4 gradient steps a version" in words
    for row in summary["rows"]:
        assert (
            f" {row['sites']:,} {row['cohort_size']} 2 {digits(row['seconds_per_version'])} "
            in words
        )


def test_every_picture_tells_its_numbers(tmp_path: Path) -> None:
    summary = scale_summary()
    told = _pictures(_page(make_scale_run(tmp_path / "run", summary)))
    names = ["Time per version", "How good networks are", "Memory", "Where the time goes"]
    assert list(told) == [*names, "Updates per second", "Bytes moved"]
    row = summary["rows"][-1]
    time = f"{digits(row['seconds_per_version'])} s"
    assert f"{time} at 10,000" in told["Time per version"]
    assert f"training 71 %, transport 12 % of {time} (fedavg, 10,000" in told["Where the time goes"]
    assert "fedavg 0.930 (worst site 0.780) at 10, " in told["How good networks are"]
    total = f"{row['total_pss_mib'] / 1024:.1f} GiB (fedavg, 10,000 sites)"
    assert f"site actors 55 %, server actor 28 % of {total}" in told["Memory"]
    assert f"{digits(row['updates_per_second'])} at 10,000" in told["Updates per second"]
    moved = digits((row["bytes_down"] + row["bytes_up"]) / 1e6)
    assert f"up 98 %, down 2 % of {moved} MB (fedavg, 10,000 sites)" in told["Bytes moved"]


@pytest.mark.parametrize(
    ("sites", "methods"),
    [((1,), ("local",)), ((100,), METHODS), ((10, 20, 30, 50, 70, 100, 200), ("fedavg",))],
)
def test_ladders_of_any_length_are_drawn(
    tmp_path: Path, sites: tuple[int, ...], methods: tuple[str, ...]
) -> None:
    assert (
        len(_pictures(_page(make_scale_run(tmp_path / "run", scale_summary(sites, methods))))) == 6
    )


def test_pictures_of_many_methods_keep_the_references_and_say_so(tmp_path: Path) -> None:
    page = _page(make_scale_run(tmp_path / "run", scale_summary(methods=ALL_METHODS)))
    told = _pictures(page)["Time per version"]
    shown = {method for method in ALL_METHODS if f" {method} " in told}
    assert len(shown) == 6
    assert {"hypernetwork", "local", "fedavg", "pooled"} < shown
    assert _words(page).count("6 of 11 methods; the tables have all.") == 6


def test_sites_that_are_no_processes_have_memory_of_one(tmp_path: Path) -> None:
    summary = scale_summary() | {"where": "process", "steps": 0}
    for row in summary["rows"]:
        row["memory"] = {"driver": row["memory"]["driver"], "zygote": row["memory"]["driver"]}
    text = scale_table(summary)
    assert memories(summary).header == ("method", "sites", "driver", "zygote", "in all")
    assert "All ran in one process" in text
    words = _words(_page(make_scale_run(tmp_path / "run", summary)))
    assert "sites answer without training" in words
    assert "in one process · run.seed 0" in words


def test_a_summary_of_another_version_is_refused(tmp_path: Path) -> None:
    for rows in ([], [{}]):
        with pytest.raises(DataError, match="not what this version"):
            write_report(make_scale_run(tmp_path / "run", scale_summary() | {"rows": rows}))
    summary = {name: value for name, value in scale_summary().items() if name != "rows"}
    with pytest.raises(DataError, match="has no 'rows'"):
        write_report(make_scale_run(tmp_path / "run", summary))


@given(st.floats(1e-6, 1e9), st.floats(1, 1e6))
def test_ticks_are_few_and_enclose_the_values(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio)
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 9
    assert ticks[0] <= low <= low * ratio <= ticks[-1]


def test_ticks_are_round_numbers() -> None:
    assert log_ticks(0.395, 4.8) == [0.2, 0.5, 1, 2, 5]
    assert log_ticks(0.02, 70) == [0.01, 0.1, 1, 10, 100]
