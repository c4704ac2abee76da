"""Tables of more and more sites: their numbers are those of the summary."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_scale import METHODS, SITES, scale_summary

from rayfed_hn.config import METHODS as ALL_METHODS
from rayfed_hn.reporting.scale_report import scale_table, write_scale_files
from rayfed_hn.reporting.scale_rows import digits
from rayfed_hn.reporting.scale_words import verdict

Table = dict[tuple[str, int], dict[str, str]]


def _tables(text: str) -> list[Table]:
    """Return the tables of markdown: by method and number of sites, cells by their columns."""
    found: list[Table] = []
    for block in text.split("\n\n"):
        lines = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in block.split("\n")
        ]
        if block.startswith("|"):
            rows = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
            found.append({(r["method"], int(r["sites"].replace(",", ""))): r for r in rows})
    return found


def _number(cell: str) -> float:
    return float(cell.removesuffix(" %").replace(",", ""))


def _about(value: float) -> Any:
    return pytest.approx(value, rel=0.005, abs=0.0005)


def test_the_numbers_of_the_tables_are_those_of_the_summary() -> None:
    summary = scale_summary()
    every, scores, phases, memory = _tables(scale_table(summary))
    assert len(every) == len(scores) == len(phases) == len(memory) == len(METHODS) * len(SITES)
    for row in summary["rows"]:
        key = row["method"], row["sites"]
        found = {name: _number(cell) for name, cell in every[key].items() if name != "method"}
        assert found["cohort"] == row["cohort_size"]
        assert found["hosts"] == row["num_hosts"]
        assert found["seconds"] == _about(row["seconds_per_version"])
        assert found["min"] == _about(row["seconds_lowest"])
        assert found["max"] == _about(row["seconds_highest"])
        assert found["updates/s"] == _about(row["updates_per_second"])
        assert found["MB down"] == _about(row["bytes_down"] / 1e6)
        assert found["MB up"] == _about(row["bytes_up"] / 1e6)
        assert found["MiB"] == _number(memory[key]["in all"]) == _about(row["total_pss_mib"])
        names = {"mean": "mean", "lowest_tenth": "lowest tenth", "worst": "worst"}
        names |= {"sites": "tested", "scored": "scored", "trained": "trained", "bags": "bags"}
        for name, title in names.items():
            assert _number(scores[key][title]) == _about(row["tested"][name])
        for phase, seconds in row["phases"].items():
            assert _number(phases[key][phase.replace("_", "-")]) == _about(1000 * seconds)
        for kind, taken in row["memory"].items():
            assert _number(memory[key][kind]) == _about(taken["pss_mib"])


def test_steps_of_a_method_are_together_few_sites_first() -> None:
    summary = scale_summary()
    summary["rows"].reverse()
    assert list(_tables(scale_table(summary))[0]) == [(m, n) for m in METHODS[::-1] for n in SITES]


def test_long_versions_and_much_memory_have_larger_units() -> None:
    summary = scale_summary()
    for row in summary["rows"]:
        row["seconds_per_version"] *= 100
        row["phases"] = {phase: 100 * seconds for phase, seconds in row["phases"].items()}
        row["total_pss_mib"] *= 100
    every, _, phases, _ = _tables(scale_table(summary))
    row = summary["rows"][-1]
    key = row["method"], row["sites"]
    assert _number(phases[key]["training"]) == _about(row["phases"]["training"])
    assert _number(every[key]["GiB"]) == _about(row["total_pss_mib"] / 1024)


def test_tables_fit_a_terminal() -> None:
    summary = scale_summary((10, 100_000), ALL_METHODS)
    summary["rows"][0]["lost_sites"] = 10_000
    lines = scale_table(summary).splitlines()
    assert max(map(len, lines)) <= 120


def test_below_the_tables_is_how_to_read_them() -> None:
    summary = scale_summary()
    text = " ".join(scale_table(summary).split())
    assert "Medians over 19 versions; the first version" in text
    assert "PSS, in which pages that processes share count once" in text
    most = max(row["total_rss_mib"] for row in summary["rows"])
    assert f"RSS, which counts them in every process, is {most / 1024:.1f} GiB at most" in text


def test_copying_is_every_byte_read_and_written_once_at_the_measured_bandwidth() -> None:
    summary = scale_summary((100,), ("hypernetwork",))
    bandwidth = {"copy_bytes_per_second": 4e9}  # 8 GB read or written: 2 s of 10 s
    moved = {"bytes_down": 3e9, "bytes_up": 1e9, "seconds_per_version": 10.0}
    summary["rows"][0] |= bandwidth | moved
    text = scale_table(summary)
    assert _tables(text)[2]["hypernetwork", 100]["copying"] == "20.0 %"
    assert "would take 20.0 % (hypernetwork, 100 sites) of its time" in " ".join(text.split())


def _timed(seconds: dict[str, list[float]], sites: tuple[int, ...]) -> dict[str, Any]:
    summary = scale_summary(sites, tuple(seconds))
    for row in summary["rows"]:
        row["tested"] = None
        row["seconds_per_version"] = seconds[row["method"]][sites.index(row["sites"])]
        row["total_pss_mib"] = 3174.4 if row["sites"] == sites[-1] else 9999.0
    return summary


@pytest.mark.parametrize(
    ("seconds", "sites", "words"),
    [
        (
            {"hypernetwork": [0.4, 4.0, 4.1, 4.2]},
            SITES,
            "10,000 sites: 1.05 times the time per version at 100 sites (medians of 19 versions); "
            "3.1 GiB in all.",
        ),
        (
            {"hypernetwork": [0.4, 4.0, 4.1, 4.2], "fedavg": [0.3, 3.0, 3.0, 2.7]},
            SITES,
            "10,000 sites: 1.05 times (hypernetwork) and 0.900 times (fedavg) the time per version "
            "at 100 sites (medians of 19 versions); at most 3.1 GiB in all.",
        ),
        (
            {m: [1.0, 1.0 + i / 10] for i, m in enumerate(("fedavg", "local", "fedper", "pfedhn"))},
            (100, 1000),
            "1,000 sites: 1.00 times (fedavg) to 1.30 times (pfedhn) the time per version at 100 "
            "sites (medians of 19 versions); at most 3.1 GiB in all.",
        ),
        (
            {"fedavg": [1.0, 12.0]},
            (10, 100),
            "100 sites: 12.0 times the time per version at 10 sites, with 10 times the updates "
            "(medians of 19 versions); "
            "3.1 GiB in all.",
        ),
        (
            {"fedavg": [0.02]},
            (100,),
            "100 sites: 20.0 ms a version (medians of 19 versions); 3.1 GiB in all.",
        ),
        (
            {"fedavg": [2.0], "local": [1.0]},
            (1,),
            "1 site: 2.00 s (fedavg) and 1.00 s (local) a version (medians of 19 versions); at "
            "most 3.1 GiB in all.",
        ),
    ],
)
def test_the_verdict_compares_versions_of_as_many_updates(
    seconds: dict[str, list[float]], sites: tuple[int, ...], words: str
) -> None:
    summary = _timed(seconds, sites)
    assert verdict(summary) == words
    assert " ".join(scale_table(summary).split()).startswith(words)


def test_the_verdict_says_how_good_networks_are_at_both_ends() -> None:
    summary = scale_summary((10, 1000))
    assert verdict(summary).endswith(
        "Test AUC, mean over sites and worst site: 0.949 and 0.799 (hypernetwork at 1,000; 0.950 "
        "and 0.800 at 10) and 0.929 and 0.779 (fedavg at 1,000; 0.930 and 0.780 at 10)."
    )
    text = " ".join(scale_table(summary).split())
    assert "which is lower by chance the more are scored" in text
    assert "could not be scored" not in text
    summary["rows"][0]["tested"] |= {"scored": 7, "worst": None, "mean": None}
    summary["rows"][0]["tested"]["lowest_tenth"] = None
    text = " ".join(scale_table(summary).split())
    assert "3 site(s) in all could not be scored" in text
    assert "were lost" not in text
    summary["rows"][0]["tested"]["unanswered"] = 2
    lost = " ".join(scale_table(summary).split())
    assert "1 site(s) in all could not be scored" in lost
    assert "2 site(s) in all were lost, and gave no scores" in lost
    assert _tables(scale_table(summary))[1]["hypernetwork", 10]["mean"] == "–"


def test_older_ladders_were_not_tested_and_say_nothing_of_it() -> None:
    summary = scale_summary()
    for row in summary["rows"]:
        row.pop("tested")
    text = scale_table(summary)
    assert len(_tables(text)) == 3
    assert "AUC" not in text


def test_the_verb_s_file_is_the_table(tmp_path: Path) -> None:
    write_scale_files(tmp_path, scale_summary())
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == scale_table(scale_summary())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00031, "0.000"),
        (0.41, "0.410"),
        (4.797, "4.80"),
        (63.1, "63.1"),
        (3774.7, "3,775"),
    ],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert digits(value) == text


def test_the_verb_s_tables_need_no_drawing_and_no_training_code() -> None:
    program = (
        "import sys, rayfed_hn.reporting.scale_report as _; "
        "sys.exit(bool({'torch', 'ray', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
