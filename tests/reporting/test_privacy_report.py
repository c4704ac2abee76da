"""What a training report says of privacy: what its files say, in words, and nothing else."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_privacy import VERSIONS, WORDS, Source, change, make_private_run, read, write
from fake_runs import make_train_run

from rayfed_hn.errors import DataError
from rayfed_hn.federation.privacy_record import privacy_record
from rayfed_hn.privacy.words import ratio
from rayfed_hn.reporting.privacy_section import privacy
from rayfed_hn.reporting.report import write_report
from rayfed_hn.reporting.run_files import read_run

_HTML = "{http://www.w3.org/1999/xhtml}"
_SVG = "{http://www.w3.org/2000/svg}svg"
FORMAL = ("site_ldp", "slide_dpsgd")


def section(folder: Path) -> ET.Element:
    """The section alone, as it stands in the page."""
    return ET.fromstring(f'<div xmlns="{_HTML[1:-1]}">{privacy(read_run(folder))}</div>')


def words(element: ET.Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of site_ldp, to be looked at only."""
    return make_private_run(tmp_path_factory.mktemp("private") / "run")


# -- the file says what the updates say ----------------------------------------------------------


def test_the_file_is_made_of_what_updates_say_of_themselves(private: Path) -> None:
    found, records = read(private), metrics(private)
    assert found["clipped"] == np.mean([r["clipped"] for r in records])
    values = [r["signal_to_noise"] for r in records]
    signal = found["signal_to_noise"]
    assert signal["mean"] == pytest.approx(np.mean(values), rel=1e-12)
    assert signal["lowest"] == min(values)
    assert [row["version"] for row in signal["by_version"]] == list(range(1, VERSIONS + 1))
    for row in signal["by_version"]:
        own = [r["signal_to_noise"] for r in records if r["made"] == row["version"]]
        assert row["mean"] == pytest.approx(np.mean(own), rel=1e-12)
        assert row["lowest"] == min(own)
    for site in found["sites"]:
        own = [r for r in records if r["site"] == site["site"]]
        assert site["updates"] == len(own)
        assert (site["releases"], site["epsilon"]) == (own[-1]["releases"], own[-1]["epsilon"])
        assert site["not_used"] == own[-1]["releases"] - len(own)
    assert [site["not_used"] for site in found["sites"]] == [0, 1, 0, 0, 0]


def test_what_was_planned_is_what_the_run_promised(private: Path) -> None:
    told, found = read(private, "summary.json")["privacy"], read(private)
    assert found["planned"] == {n: told[n] for n in ("epsilon", "delta", "releases", "budget")}
    assert found["planned"]["epsilon"] == pytest.approx(8, rel=1e-6)
    assert found["formal_guarantee"] == told["formal_guarantee"]
    for name, value in found["constants"].items():
        assert told[name] == value
    assert found["signal_to_noise"]["at_most"] == told["signal_to_noise_at_most"]
    assert (found["unit"], found["neighbouring"]) == ("site", "replace")


# -- the page says what the file says ------------------------------------------------------------


@pytest.mark.parametrize("mechanism", WORDS)
@pytest.mark.parametrize("source", ["os", "seeded"])
def test_every_sentence_of_the_file_is_on_the_page(
    tmp_path: Path, mechanism: str, source: Source
) -> None:
    folder = make_private_run(tmp_path / "run", mechanism, source=source)
    found, said = read(folder), words(section(folder))
    names = ("in_words", "warnings", "released_without_noise", "outside")
    sentences = [sentence for name in names for sentence in found[name]]
    sentences += [f"{who} {sees}" for who, sees in found["adversary"].items()]
    sentences += [
        found[name] for name in found if name.endswith("_in_words") and name != "in_words"
    ]
    for sentence in sentences:
        assert " ".join(sentence.split()) in said
    for name, value in found["constants"].items():
        assert f"{name} {value:.4g}" in said if isinstance(value, float) else f"{name} {value}"
    assert "nan" not in said.lower().replace("finance", "")
    assert "None" not in said


def test_the_table_of_sites_is_that_of_the_file(private: Path) -> None:
    (table,) = section(private).iter(f"{_HTML}table")
    header, *rows = [["".join(cell.itertext()) for cell in row] for row in table.iter(f"{_HTML}tr")]
    assert header[3:6] == ["releases", "not used", "epsilon"]
    for row, site in zip(rows, read(private)["sites"], strict=True):
        assert row[:3] == [site["site"], str(site["num_training_cases"]), str(site["updates"])]
        assert row[3:5] == [str(site["releases"]), str(site["not_used"])]
        assert row[5] == f"{site['epsilon']:.3g}"
        assert row[6] == f"{100 * site['clipped']:.0f} %"
        assert row[7] == ratio(site["signal_to_noise"])
    assert header[-1] == "budget spent at version"
    assert [row[-1] for row in rows] == ["5", "–", "–", "–", "–"]


def test_the_curve_says_in_words_where_it_begins_and_ends(private: Path) -> None:
    (picture,) = section(private).iter(_SVG)
    by_version = read(private)["signal_to_noise"]["by_version"]
    alt = picture.get("aria-label") or ""
    for name in ("mean", "lowest"):
        first, last = (ratio(by_version[at][name]) for at in (0, -1))
        assert f"from {first} to {last}" in alt


def test_a_site_whose_budget_is_spent_has_stopped_and_was_not_lost(private: Path) -> None:
    text = words(ET.fromstring(write_report(private).read_text().split("\n", 1)[1]))
    stopped = "Cedar Hospital stopped at version 5: "
    assert f"{stopped}the site's privacy budget does not allow it" in text
    assert "Cedar Hospital was lost" not in text
    assert f"{stopped}its privacy budget does not allow more." in text


# -- the words of each mechanism -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("mechanism", "source", "first"),
    [
        ("paper", "os", "Formal guarantee: none."),
        ("paper", "seeded", "Formal guarantee: none."),
        ("none", "seeded", "Formal guarantee: none."),
        ("site_ldp", "os", "Formal guarantee: (8, 1e-05)-DP of every site after 12 releases of a"),
        ("site_ldp", "seeded", "Formal guarantee: none in this simulation, whose noise was drawn"),
        ("slide_dpsgd", "seeded", "Formal guarantee: none in this simulation"),
    ],
)
def test_the_first_sentence_says_what_is_guaranteed(
    tmp_path: Path, mechanism: str, source: Source, first: str
) -> None:
    folder = make_private_run(tmp_path / "run", mechanism, source=source)
    assert words(section(folder)).removeprefix("Privacy ").startswith(first)
    if source == "seeded":
        assert read(folder)["formal_guarantee"] == "none"


def test_the_first_sentence_of_hidden_patients_names_them(tmp_path: Path) -> None:
    folder = make_private_run(tmp_path / "run", "slide_dpsgd")
    told = read(folder, "summary.json")["privacy"]
    first = read(folder)["in_words"][0]
    assert first == f"Formal guarantee: {told['formal_guarantee']}."
    assert "-DP of every patient after 12 releases of a site." in first


def test_paper_noise_says_why_it_guarantees_nothing(tmp_path: Path) -> None:
    clear = read(make_private_run(tmp_path / "clear", "paper"))["in_words"][1]
    assert "nothing was clipped" in clear
    assert "the scale of the noise follows the data" in clear
    assert "biases left in the clear" in clear
    noised = make_private_run(tmp_path / "noised", "paper", words=["privacy.noise_biases=true"])
    assert "biases" not in read(noised)["in_words"][1]


@pytest.mark.parametrize("mechanism", ["paper", "none"])
@pytest.mark.parametrize("method", ["hypernetwork", "local", "pooled"])
def test_without_guarantee_there_is_no_number_that_looks_like_one(
    tmp_path: Path, mechanism: str, method: str
) -> None:
    folder = make_private_run(tmp_path / "run", mechanism, method=method)
    found, said = read(folder), words(section(folder))
    assert found["planned"] is None
    assert not re.search(r"(epsilon|delta)\W+\d|-DP", said)
    assert {site["epsilon"] for site in found["sites"]} == {None}
    header = [
        cell.text for cell in section(folder).iter(f"{_HTML}th") if cell.get("scope") == "col"
    ]
    assert "releases" not in header
    if method != "hypernetwork":
        assert "No noise was added" in said


def test_the_reading_of_epsilon_is_its_exponential(private: Path) -> None:
    meaning = read(private)["in_words"][1]
    epsilon = read(private)["planned"]["epsilon"]
    assert f"at most {np.exp(epsilon):,.0f} times as likely" in meaning
    assert "plus a chance of 1e-05" in meaning


def test_an_epsilon_beyond_all_bounds_is_none(tmp_path: Path) -> None:
    words_ = ["privacy.target_epsilon=null", "privacy.noise_multiplier=0.0001"]
    folder = make_private_run(tmp_path / "run", words=words_)
    found = read(folder)
    assert found["in_words"][0] == "Formal guarantee: none."
    assert (found["formal_guarantee"], found["planned"]) == ("none", None)
    assert "beyond 1,000,000" in words(section(folder))


# -- what is not defined -------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", FORMAL)
def test_what_sites_withhold_is_said_to_be_withheld(tmp_path: Path, mechanism: str) -> None:
    folder = make_private_run(tmp_path / "run", mechanism, words=["privacy.metrics=withheld"])
    found, part = read(folder), section(folder)
    assert (found["clipped"], found["signal_to_noise"]) == (None, None)
    assert words(part).count("withheld by the sites (privacy.metrics)") == 2
    assert not list(part.iter(_SVG))
    assert {site["epsilon"] for site in found["sites"]} != {None}  # the ledger's are no secret


def test_without_any_update_nothing_is_claimed_to_be_spent(tmp_path: Path) -> None:
    folder = make_private_run(tmp_path / "run")
    (folder / "metrics.jsonl").write_text("")
    change(folder)
    found = read(folder)
    assert {site["epsilon"] for site in found["sites"]} == {None}
    assert "not known what was spent" in words(section(folder))


def test_a_run_from_before_says_the_little_it_knows(tmp_path: Path) -> None:
    folder = make_train_run(tmp_path / "run")
    text = words(ET.fromstring(write_report(folder).read_text().split("\n", 1)[1]))
    assert "Model and privacy" in text
    assert "0.1 standard deviations of every weight tensor" in text


# -- warnings ------------------------------------------------------------------------------------


def test_a_delta_above_one_over_the_cases_is_warned_of(tmp_path: Path) -> None:
    folder = make_private_run(tmp_path / "run", words=["privacy.target_delta=0.048"])
    cases = {s["site"]: s["num_training_cases"] for s in read(folder)["sites"]}
    large = {site: n for site, n in cases.items() if 1 / n < 0.048}
    assert 0 < len(large) < len(cases)
    (warning,) = [w for w in read(folder)["warnings"] if w.startswith("Delta")]
    assert all((f"{site} ({n})" in warning) == (site in large) for site, n in cases.items())
    assert f"below {1 / max(large.values()):.3g}" in warning
    assert not [w for w in read(make_private_run(tmp_path / "b"))["warnings"] if "Delta" in w]


def test_of_single_slides_delta_is_compared_with_their_number(tmp_path: Path) -> None:
    sgd = ["privacy.mechanism=slide_dpsgd", "training.class_balanced=false", "privacy.unit=slide"]
    folder = make_private_run(tmp_path / "run", words=[*sgd, "privacy.target_delta=0.025"])
    sites = read(folder)["sites"]
    assert all(1 / site["num_training_cases"] > 0.025 for site in sites)
    large = {s["site"]: s["num_train"] for s in sites if 1 / s["num_train"] < 0.025}
    (warning,) = [w for w in read(folder)["warnings"] if w.startswith("Delta")]
    assert large
    assert all(f"{site} ({n})" in warning for site, n in large.items())
    assert "training slides" in warning


@pytest.mark.parametrize(("source", "repeats"), [("os", False), ("seeded", True)])
def test_how_to_repeat_a_run_says_whether_that_can_be(
    tmp_path: Path, source: Source, repeats: bool
) -> None:
    page = write_report(make_private_run(tmp_path / "run", source=source)).read_text()
    assert ("makes the same numbers" in page) == repeats
    assert ("every site is charged for both" in page) != repeats


def test_spending_more_than_planned_is_warned_of(tmp_path: Path) -> None:
    folder = make_private_run(tmp_path / "run")
    (warning,) = [w for w in read(folder)["warnings"] if "more than the 8" in w]
    assert warning.startswith("Lakeside has spent epsilon 8.4")
    assert "in 13 releases" in warning


@pytest.mark.parametrize("releases", [0, 1])
def test_what_was_released_beside_a_ledger_is_warned_of(tmp_path: Path, releases: int) -> None:
    """Without noise a site goes on though it cannot write anything down."""
    folder = make_private_run(tmp_path / "run", "none")
    summary = read(folder, "summary.json")
    records = [record | {"releases": record["made"]} for record in metrics(folder)]
    last = summary["sites"][-1]["site"]
    for record in records:
        record["releases"] *= releases if record["site"] == last else 1
    for told, warned in ((summary["privacy"], False), ({"in_ledger": True}, not releases)):
        found = privacy_record(summary | {"privacy": summary["privacy"] | told}, records)
        text = " ".join(found["warnings"])
        assert (f"The ledger of {last} could not be written" in text) == warned


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("privacy.json", "{"),
        ("privacy.json", "[]"),
        ("privacy.json", '{"format": 1}'),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    folder = make_private_run(tmp_path / "run")
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=f"{name} cannot be used"):
        write_report(folder)


def test_many_sites_are_folded(tmp_path: Path) -> None:
    folder = make_private_run(tmp_path / "run")
    found = read(folder)
    found["sites"] = [found["sites"][1] | {"site": f"hospital {i}"} for i in range(40)]
    write(folder, "privacy.json", found)
    (details,) = section(folder).iter(f"{_HTML}details")
    assert len(list(details.iter(f"{_HTML}tr"))) == 41
