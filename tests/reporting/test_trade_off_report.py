"""Reports of what noise costs: every number is the summary's, at its own amount of noise."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from fake_sweep import AMOUNTS, FORMAL, make_sweep_run
from written_pages import HTML, SVG, page, summary, words

from rayfed_hn.evaluation.markdown import markdown_table
from rayfed_hn.evaluation.subject import seen_from
from rayfed_hn.privacy.mechanisms import NoNoise, PaperNoise, SiteGaussian
from rayfed_hn.privacy.words import mechanism
from rayfed_hn.reporting.run_files import read_run
from rayfed_hn.reporting.trade_off import about, parts
from rayfed_hn.reporting.trade_off_figures import places
from rayfed_hn.reporting.verdict import kind_of


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the paper's noise, to be looked at only."""
    return make_sweep_run(tmp_path_factory.mktemp("sweep") / "run")


def picture(root: ET.Element, title: str) -> tuple[str, str] | None:
    for figure in root.iter(f"{HTML}figure"):
        if figure[0].text == title:
            (svg,) = figure.iter(SVG)
            return svg.get("aria-label") or "", words(figure)
    return None


def test_every_site_is_drawn_with_the_least_and_the_most_noise(sweep: Path) -> None:
    found = summary(sweep)
    method = about(found["table"], "mixture")
    told = picture(page(sweep), "Who pays for it")
    assert told is not None
    values = {
        (r["site"], r["noise"]): r["mean_value"]
        for r in found["per_site"]
        if (r["method"], r["readout"]) == (method, "mixture")
    }
    ends = min(AMOUNTS), max(AMOUNTS)
    assert {noise for _, noise in values} == {*AMOUNTS}
    for (site, noise), value in values.items():
        said = f"{site} {value:.3f} with {found['noise_of']} {noise:g}"
        assert (said in told[0]) == (noise in ends), told[0]


def test_the_table_has_a_row_a_method_and_amount(sweep: Path) -> None:
    tables = [
        [["".join(cell.itertext()) for cell in row] for row in table.iter(f"{HTML}tr")]
        for table in page(sweep).iter(f"{HTML}table")
    ]
    # In sight is the method in question and what releases nothing; the second has all, folded.
    header, *rows = tables[1]
    assert tables[0][0] == header
    shown = [row[0] for row in tables[0][1:]]
    assert shown == ["local", *["hypernetwork"] * len(AMOUNTS)]
    assert all(row in rows for row in tables[0][1:])
    assert header[:3] == ["method", "noise_scale", "mean site AUC"]
    means = {
        (r["method"], "–" if r["noise"] is None else f"{r['noise']:g}"): f"{r['mean_site']:.3f}"
        for r in summary(sweep)["table"]
        if r["readout"] == "mixture"
    }
    assert len(rows) == len(means) == 1 + 2 * len(AMOUNTS)
    assert {(row[0], row[1]): row[2] for row in rows} == means


def test_the_picture_says_every_mean_at_its_amount(sweep: Path) -> None:
    found = picture(page(sweep), "What noise costs")
    assert found is not None
    alt, text = found
    for row in summary(sweep)["table"]:
        if row["readout"] != "mixture":
            continue
        value = f"{row['mean_site']:.3f}"
        told = value if row["noise"] is None else f"{value} at {row['noise']:g}"
        assert re.search(rf"\b{row['method']} [^;]*{re.escape(told)}\b", alt)
    assert all(f" {tick} " in f" {text} " for tick in ("0", "0.03", "0.1", "0.3", "1"))
    assert picture(page(sweep), "What noise hides") is None


def test_the_verdict_compares_with_sites_that_release_nothing(sweep: Path) -> None:
    told, found = parts(read_run(sweep)).verdict, summary(sweep)
    seen = {
        d["noise"]: d
        for d in seen_from("hypernetwork", found["differences"])
        if (d["against"], d["readout"]) == ("local", "mixture")
    }
    assert set(seen) == set(AMOUNTS)
    for noise, difference in seen.items():
        kind = kind_of(difference)
        (claim,) = (part for part in told.split(": it is ")[1].split("; ") if kind in part)
        assert re.search(rf"\b{noise:g}\b", claim.replace(".", ". ") if noise == 1 else claim)
    assert len({kind_of(d) for d in seen.values()}) > 1  # else this test shows nothing
    assert "With noise_scale 0, hypernetwork reaches a mean site AUC of" in told


def test_differences_are_within_one_amount_of_noise(sweep: Path) -> None:
    found = summary(sweep)
    for d in found["differences"]:
        expected = None if {d["method"], d["against"]} <= {"local", "pooled"} else d["noise"]
        assert d["noise"] == expected
    text = words(page(sweep))
    for d in found["differences"]:
        if (d["method"], d["readout"]) == ("hypernetwork", "mixture"):
            row = f"hypernetwork {d['against']} {d['noise']:g} {d['difference']:+.3f}"
            assert row.replace("-", "-") in text


def test_what_noise_costs_is_within_one_method(sweep: Path) -> None:
    text = words(page(sweep))
    own = [d for d in summary(sweep)["by_amount"] if d["readout"] == "mixture"]
    assert len(own) >= len(AMOUNTS) - 1
    for d in own:
        assert f"{d['method']} {d['noise']:g} {d['difference']:+.3f}" in text


def test_the_least_noise_is_the_largest_epsilon(tmp_path: Path) -> None:
    folder = make_sweep_run(tmp_path / "run", (3.0, 8.0, 1.0), words=FORMAL)
    found = {(d["against_noise"], d["noise"]) for d in summary(folder)["by_amount"]}
    assert found == {(8.0, 3.0), (8.0, 1.0)}


def test_what_a_run_would_promise_is_told_with_every_amount(tmp_path: Path) -> None:
    folder = make_sweep_run(tmp_path / "run", (1.0, 8.0), words=FORMAL)
    promised = [
        {
            "noise": noise,
            "promise": dict(SiteGaussian(1.0, 4.0, "replace").describe())
            | {"formal_guarantee": f"({noise:g}, 1e-05)-DP of every site"},
            "without_noise": ["numbers of its bags"],
        }
        for noise in (1.0, 8.0)
    ]
    (folder / "summary.json").write_text(json.dumps(summary(folder) | {"promises": promised}))
    text = words(page(folder))
    rows = ("1 site_ldp (1, 1e-05)", "8 site_ldp (8, 1e-05)")
    for expected in ("a simulation", *rows, "numbers of its bags"):
        assert expected in text


@pytest.mark.parametrize("amounts", [(0.0, 0.3), (0.3, 0.0)])
def test_the_mechanism_that_is_told_is_that_of_the_noise(
    tmp_path: Path, amounts: tuple[float, float]
) -> None:
    folder = make_sweep_run(tmp_path / "run", amounts)
    made = {0.0: NoNoise().describe(), 0.3: PaperNoise(0.3).describe()}
    promised = [{"noise": a, "promise": dict(made[a]), "without_noise": []} for a in amounts]
    (folder / "summary.json").write_text(json.dumps(summary(folder) | {"promises": promised}))
    assert mechanism(made[0.3]) in words(page(folder))


def test_under_a_guarantee_the_axis_is_epsilon(tmp_path: Path) -> None:
    folder = make_sweep_run(tmp_path / "run", (1.0, 3.0, 8.0), words=FORMAL)
    root = page(folder)
    found = picture(root, "What noise costs")
    assert found is not None
    assert "epsilon of a site, at delta 1e-05" in found[1]
    assert "With epsilon 8, hypernetwork reaches" in words(root)  # from little noise to much
    assert "3 amounts of noise (site_ldp)" in words(root)


def test_what_attacks_see_is_a_panel_of_its_own(tmp_path: Path) -> None:
    folder = make_sweep_run(tmp_path / "run", attacked=True)
    found = picture(page(folder), "What noise hides")
    assert found is not None
    for row in summary(folder)["membership"]:
        assert f"{row['mean']:.3f}" in found[0]


@pytest.mark.parametrize("amounts", [(0.1,), (0.0,), (0.0, 0.1)])
def test_few_amounts_are_drawn_too(tmp_path: Path, amounts: tuple[float, ...]) -> None:
    root = page(make_sweep_run(tmp_path / "run", amounts, attacked=True))
    assert picture(root, "What noise costs") is not None
    assert "nan" not in words(root).lower().split("config.yaml")[0]


def test_undefined_means_are_gaps(tmp_path: Path) -> None:
    folder = make_sweep_run(tmp_path / "run", (0.1, 1.0))
    changed = summary(folder)
    for row in changed["table"]:
        if row["noise"] == 1.0:
            row |= dict.fromkeys(("mean_site", "se", "low", "high", "worst_mean", "worst_site"))
    (folder / "summary.json").write_text(json.dumps(changed))
    assert "hypernetwork – at 1" not in words(page(folder))
    changed["table"] = [row | {"mean_site": None} for row in changed["table"]]
    (folder / "summary.json").write_text(json.dumps(changed))
    assert "No AUC is defined" in parts(read_run(folder)).verdict


def test_baselines_alone_are_an_ordinary_comparison(tmp_path: Path) -> None:
    folder = make_sweep_run(tmp_path / "run", methods=("local", "pooled"))
    assert "Best of all" in words(page(folder))


def test_without_a_hypernetwork_it_is_about_the_best_that_releases(tmp_path: Path) -> None:
    folder = make_sweep_run(tmp_path / "run", methods=("local", "fedavg", "fedprox"))
    rows = [row for row in summary(folder)["table"] if row["readout"] == "mixture"]
    noised = [row for row in rows if row["noise"] is not None]
    best = max(noised, key=lambda row: row["mean_site"])
    assert about(rows, "mixture") == best["method"]


def test_the_markdown_table_has_a_row_a_method_and_amount(sweep: Path) -> None:
    found = summary(sweep)
    lines = markdown_table(found, "mixture").splitlines()
    assert lines[0].startswith("| method | noise_scale | readout | mean site AUC ± s.e. |")
    assert sum(line.startswith("| local | – | mixture |") for line in lines) == 1
    for noise in AMOUNTS:
        (row,) = (x for x in lines if x.startswith(f"| hypernetwork | {noise:g} | mixture |"))
        (mean,) = (
            r["mean_site"]
            for r in found["table"]
            if (r["method"], r["noise"], r["readout"]) == ("hypernetwork", noise, "mixture")
        )
        assert f"| {mean:.3f} ± " in row
        start = f"| hypernetwork − local | {noise:g} | mixture |"
        assert sum(line.startswith(start) for line in lines) == 1
    columns = {line.count("|") for line in lines[: 2 + len(found["table"])]}
    assert len(columns) == 1


def test_no_noise_is_left_of_the_least() -> None:
    assert places([0.1]) == {0.1: -1}
    assert places([0.0]) == {0.0: -0.5}
    found = places([1.0, 0.0, 0.01, 0.1])
    assert found == pytest.approx({0.0: -3, 0.01: -2, 0.1: -1, 1.0: 0})
