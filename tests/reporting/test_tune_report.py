"""Reports of a search: every number is a trial's, and the test is what the verdict rests on."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from fake_tune import GRID, NOISE, SIZE, make_tune_run
from written_pages import HTML, SVG, page, summary, words

from rayfed_hn.errors import DataError
from rayfed_hn.reporting.report import write_report
from rayfed_hn.reporting.tune_table import tune_table
from rayfed_hn.reporting.tune_words import best_of, by_rank, paired, verdict


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be looked at only."""
    return make_tune_run(tmp_path_factory.mktemp("search") / "run")


def pictures(root: ET.Element) -> dict[str, tuple[str, str]]:
    """Of every figure what it says to those who do not see it, and all its text."""
    found = {}
    for figure in root.iter(f"{HTML}figure"):
        (svg,) = figure.iter(SVG)
        found[str(figure[0].text)] = svg.get("aria-label") or "", words(figure)
    return found


def test_the_table_ranks_trials_and_marks_the_best(search: Path) -> None:
    rows = [
        ["".join(cell.itertext()) for cell in row]
        for row in next(page(search).iter(f"{HTML}table")).iter(f"{HTML}tr")
    ]
    assert rows[0][:5] == ["trial", NOISE, SIZE, "training.optimiser", "validation AUC"]
    metrics = [row[4] for row in rows[1:]]
    assert metrics[-1] == "–"
    assert metrics[:-1] == sorted(metrics[:-1], reverse=True)
    assert int(rows[1][0]) == summary(search)["best"]
    assert rows[-1][-1] == "failed"
    told = summary(search)
    assert {row[0] for row in rows[1:] if row[5] == "yes"} == {str(n) for n in told["front"]}


def test_the_grid_holds_every_mean_as_a_number(search: Path) -> None:
    alt, text = pictures(page(search))["The grid"]
    for trial in summary(search)["trials"]:
        value = trial["validation_metric"]
        noise, size = (trial["settings"][key] for key in (NOISE, SIZE))
        shown = "–" if value is None else f"{value:.3f}"
        pair = [f"{SIZE} {size}", f"{NOISE} {noise:g}"]
        assert any(f"{', '.join(p)}: {shown}" in alt for p in (pair, pair[::-1]))
        assert shown in text


def test_there_is_a_picture_a_key_and_one_of_the_front(search: Path) -> None:
    found = pictures(page(search))
    assert {*GRID, "training.optimiser", "What mattered", "Trials over versions"} <= set(found)
    alt, _ = found["What noise_scale costs"]
    told = summary(search)
    for number in told["front"]:
        trial = told["trials"][number]
        assert f"noise_scale {trial['noise_scale']:g}: {trial['validation_metric']:.3f}" in alt
    assert len(told["front"]) == 3


def test_with_one_objective_there_is_no_front(tmp_path: Path) -> None:
    root = page(make_tune_run(tmp_path / "run", ["validation_metric"]))
    assert not any("costs" in title for title in pictures(root))
    assert "Which to take" not in words(root)


def test_the_verdict_rests_on_test_cases_of_other_divisions(search: Path) -> None:
    told = summary(search)
    (row,) = (r for r in told["final"]["table"] if r["method"] == "tuned")
    difference = paired(told)
    assert difference is not None
    assert difference["difference"] == pytest.approx(0.05, abs=0.01)
    text = verdict(told)
    assert f"reaches {row['mean_site']:.3f}, better than what is configured" in text
    assert f"{difference['difference']:+.3f}" in text
    assert f"{best_of(told)['validation_metric']:.3f}" in text
    section = words(page(search))
    found = f"{difference['difference']:+.3f}"
    assert f"Tuned minus configured, paired by site and division, on test cases: {found}" in section
    assert "a test case was a training or validation case of some trial" in section


def test_a_difference_is_turned_to_the_side_of_the_best(search: Path) -> None:
    told = summary(search)
    straight = dict(paired(told) or {})
    (one,) = told["final"]["differences"]
    one |= {"method": one["against"], "against": one["method"]}
    one |= {"difference": -one["difference"], "low": -one["high"], "high": -one["low"]}
    turned = paired(told)
    assert turned is not None
    assert {k: turned[k] for k in ("difference", "low", "high")} == pytest.approx(
        {k: straight[k] for k in ("difference", "low", "high")}
    )


def test_where_size_cannot_matter_is_said(search: Path) -> None:
    text = words(page(search))
    assert f"{SIZE} cannot matter from 4 on, the number of sites" in text
    assert "trials 1, 3 and 5" in text
    assert "training.proximal_mu changed nothing: it has an effect only with fedprox" in text


def test_failures_and_hostile_text_are_shown_as_text(search: Path) -> None:
    root = page(search)
    assert "trial 5 (" in words(root)
    assert "failed: its process <b>died</b>" in words(root)
    assert not list(root.iter(f"{HTML}b"))


def test_a_stopped_trial_ranks_behind_and_the_page_does_not_promise_to_repeat(
    tmp_path: Path,
) -> None:
    folder = make_tune_run(tmp_path / "run", stopped=True)
    told, text = summary(folder), words(page(folder))
    assert verdict(told).startswith("Of 6 settings, of which 4 made all versions, ")
    assert [r["status"] for r in by_rank(told)][-2:] == ["stopped", "failed"]
    assert "stopped at version 2" in text
    assert "1 were stopped early" in text
    assert "Which trials are stopped depends on which results come in first" in text


def test_without_a_test_the_page_says_so(tmp_path: Path) -> None:
    text = words(page(make_tune_run(tmp_path / "run", tested=False)))
    assert "It was not tested (tune.final_seeds=0)." in text
    assert "The best setting on test cases" not in text


@pytest.mark.parametrize(
    ("failed", "words"),
    [
        (["tuned", "configured"], "It could not be tested: every training for that failed."),
        (["tuned"], "It could not be tested: every training for that failed."),
        (["configured"], "; what is configured could not be tested: every training of it failed."),
    ],
)
def test_a_test_that_failed_is_not_told_as_one_that_was_not_asked_for(
    tmp_path: Path, failed: list[str], words: str
) -> None:
    told = summary(make_tune_run(tmp_path / "run"))
    told["failed_cells"] = [{"method": f, "seed": 1, "fold": 0, "reason": "x"} for f in failed]
    table = told["final"]["table"]
    told["final"]["table"] = [row for row in table if row["method"] not in failed]
    told["final"] = told["final"] if len(failed) == 1 else None
    assert verdict(told).endswith(words)


def test_a_run_without_its_trials_is_one_error(tmp_path: Path) -> None:
    folder = make_tune_run(tmp_path / "run")
    (folder / "trials.jsonl").unlink()
    with pytest.raises(DataError, match=r"trials\.jsonl cannot be read"):
        write_report(folder)


def test_the_table_for_a_terminal_has_every_trial_and_the_test(search: Path) -> None:
    told = summary(search)
    text = tune_table(told)
    for trial in told["trials"]:
        assert any(line.startswith(f"| {trial['trial']} ") for line in text.splitlines())
    assert "tuned − configured" in text or "configured − tuned" in text
    assert verdict(told).split(". ")[0][:60] in text
