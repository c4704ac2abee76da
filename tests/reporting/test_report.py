from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_runs import SITES, make_compare_run, make_train_run

from rayfed_hn.errors import DataError
from rayfed_hn.reporting.report import write_report
from rayfed_hn.reporting.run_files import READOUTS

_NUMBERS = ("mean_site", "worst_mean", "pooled", "mean_value", "out_of_fold", "se", "low", "high")
_SVG = "{http://www.w3.org/2000/svg}svg"
_HTML = "{http://www.w3.org/1999/xhtml}"


def _page(folder: Path) -> tuple[str, ET.Element]:
    return _read(write_report(folder))


def _read(report: Path) -> tuple[str, ET.Element]:
    text = report.read_text(encoding="utf-8")
    return text, ET.fromstring(text.split("\n", 1)[1])


def _words(page: ET.Element) -> str:
    return " ".join(" ".join(page.itertext()).split())


def _change(folder: Path, **changes: Any) -> None:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(params=["reported_train", "reported_private", "reported_compare", "reported_scale"])
def report(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_a_report_is_one_well_formed_page_that_asks_nothing_of_the_network(report: Path) -> None:
    text, page = _read(report)
    assert text.startswith("<!DOCTYPE html>")
    assert page.find(f"{_HTML}head/{_HTML}title") is not None
    for element in page.iter():
        for name, value in element.attrib.items():
            if name.rsplit("}")[-1] in ("src", "href"):
                assert value.startswith("#")
    assert not re.search(r"url\((?!#)|@import|<script|<link|<img(?![^>]*alt=)", text)
    assert len(text.encode()) < 3_000_000


def test_every_picture_says_in_words_what_it_shows(report: Path) -> None:
    pictures = list(_read(report)[1].iter(_SVG))
    assert len(pictures) >= 5
    for picture in pictures:
        assert picture.get("role") == "img"
        assert len(picture.get("aria-label") or "") > 20


def test_ids_are_unique_and_references_arrive(report: Path) -> None:
    text, page = _read(report)
    ids = Counter(e.get("id") for e in page.iter() if e.get("id"))
    assert max(ids.values()) == 1
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', text)) <= set(ids)


def test_pictures_follow_the_theme(report: Path) -> None:
    text, page = _read(report)
    assert "prefers-color-scheme:dark" in text
    style = "".join(page.find(f"{_HTML}head/{_HTML}style").itertext())  # type: ignore[union-attr]
    drawn = "".join(ET.tostring(picture, encoding="unicode") for picture in page.iter(_SVG))
    assert not re.search(r"#[0-9a-f]{6}\b", drawn.replace("#000000", ""))
    used = set(re.findall(r"var\((--[\w-]+)\)", drawn))
    assert used
    assert used <= set(re.findall(r"(--[\w-]+):", style))


def test_text_from_files_is_never_markup(report: Path) -> None:
    text, page = _read(report)
    assert "<b>x" in SITES
    assert "<b>" not in text
    assert page.find(f".//{_HTML}b") is None
    assert "<b>x" in _words(page)


def test_the_verdict_of_a_comparison_comes_first_and_holds_its_intervals(
    reported_compare: Path,
) -> None:
    found = _words(_read(reported_compare)[1])
    summary = json.loads((reported_compare.parent / "summary.json").read_text())
    best = next(
        d
        for d in summary["differences"]
        if (d["against"], d["readout"]) == ("local", "mixture") and d["method"] == "hypernetwork"
    )
    assert f"local ({best['difference']:+.3f}, 95 % interval {best['low']:+.3f}" in found
    order = ["The hypernetwork reaches", "fedavg, seed 1, fold 4 failed", "mean site AUC s.e."]
    places = [found.index(words) for words in [*order, "How to repeat it", "optimistic"]]
    assert places == sorted(places)


def test_a_training_run_names_the_lost_site_and_gives_intervals(reported_train: Path) -> None:
    found = _words(_read(reported_train)[1])
    assert "Cedar Hospital was lost at version 5: no answer in time" in found
    assert "at 4 of 5 sites" in found
    number = r"[01]\.\d{3}"
    assert re.search(rf"Lakeside 41 10 14 {number} {number} to {number} {number} {number} 9", found)
    assert "0.1 standard deviations of every weight tensor, none on biases; drawn from" in found
    assert "no formal guarantee" in found
    assert "once, mean and variance of every feature; at the end, scores" in found
    assert "rayfed-hn train config.yaml run.dir=train-again" in found


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        ({"mechanism": "none", "formal_guarantee": "none"}, "no noise was applied"),
        ({"mechanism": "new", "formal_guarantee": "(1, 0)-DP"}, "formal guarantee: (1, 0)-DP"),
        (None, "not recorded"),
    ],
)
def test_noise_is_stated_as_the_run_describes_it(
    train_run: Path, privacy: dict[str, str] | None, words: str
) -> None:
    _change(train_run, privacy=privacy, noise_scale=0.3)
    found = _words(_page(train_run)[1])
    assert f"noise on released networks {words}" in found.replace("mechanism 'new'; ", "")
    assert "standard deviations" not in found


@pytest.mark.parametrize("readout", READOUTS)
def test_a_training_run_shows_its_readout_first_and_the_others_after(
    train_run: Path, readout: str
) -> None:
    sites = json.loads((train_run / "summary.json").read_text())["sites"]
    aucs = {"mixture": 0.811, "best": 0.822, "last": 0.833}
    sites[1] |= {f"test_{name}": value for name, value in aucs.items()}
    _change(train_run, readout=readout, sites=sites)
    found = _words(_page(train_run)[1])
    first, *others = sorted(READOUTS, key=lambda name: name != readout)
    header = f"AUC ({first}) 95 % interval AUC ({others[0]}) AUC ({others[1]}) best version"
    assert header in found
    values = f"{aucs[first]} [\\d.]+ to [\\d.]+ {aucs[others[0]]} {aucs[others[1]]} 9"
    assert re.search(f"Lakeside 41 10 14 {values}", found)
    assert f"Readout '{readout}', AUC in the corner" in found


def test_the_roc_curve_is_of_the_run_s_readout(train_run: Path) -> None:
    def curves() -> str:
        picture = next(
            p for p in _page(train_run)[1].iter(_SVG) if "ROC" in p.get("aria-label", "")
        )
        return ET.tostring(picture, encoding="unicode")

    before = curves()
    path = train_run / "sites" / "Lakeside" / "scores.parquet"
    rows = pq.read_table(path).to_pylist()
    for changed in ("last", "mixture"):  # the run's readout is mixture
        for row in rows:
            row["score"] = 0.5 if row["readout"] == changed else row["score"]
        pq.write_table(pa.Table.from_pylist(rows), path)
        assert (curves() == before) == (changed == "last")


def test_the_report_s_readouts_are_the_federation_s() -> None:
    from rayfed_hn.federation.results import READOUTS as MADE

    assert set(READOUTS) == set(MADE)


def test_a_run_from_before_the_mixture_is_still_reported(train_run: Path) -> None:
    summary = json.loads((train_run / "summary.json").read_text())
    for site in summary["sites"]:
        del site["test_mixture"], site["num_updates"]
    for name in ("clock", "clock_seconds", "busy_share", "num_refused", "absences"):
        del summary[name]
    (train_run / "summary.json").write_text(json.dumps(summary | {"readout": "best"}))
    metrics = list(map(json.loads, (train_run / "metrics.jsonl").read_text().splitlines()))
    for record in metrics:
        for name in ("made", "turn", "staleness", "time"):
            del record[name]
    (train_run / "metrics.jsonl").write_text("\n".join(map(json.dumps, metrics)))
    found = _words(_page(train_run)[1])
    assert "AUC (best) 95 % interval AUC (last) best version" in found
    assert "Rounds" not in found


def test_sites_with_hostile_names_are_drawn(tmp_path: Path) -> None:
    names = ["$x^$", "_hidden", "病院", "a\u202eb", "q\"uo'te & <svg>", "long " * 30, "\\1 \\g<0>"]
    for folder in (
        make_train_run(tmp_path / "train", ["lost", *names]),
        make_compare_run(tmp_path / "compare", names),
    ):
        found = _words(_page(folder)[1])
        assert all(name in found for name in ("$x^$", "_hidden", "病院", "\\1 \\g<0>"))


def test_many_sites_stay_small_and_show_the_lowest(tmp_path: Path) -> None:
    sites = [f"hospital {i}" for i in range(40)]
    text, page = _page(make_train_run(tmp_path / "train", sites))
    assert "The 12 lowest of 40 sites" in text
    assert "median of 40" in _words(page)
    text, _ = _page(
        make_compare_run(tmp_path / "compare", sites, methods=("local", "hypernetwork"))
    )
    assert "The 12 lowest of 40 sites" in text
    assert len(text.encode()) < 1_000_000


def test_undefined_everywhere_is_said_and_not_drawn(tmp_path: Path) -> None:
    train = make_train_run(tmp_path / "train", num_bags=1)
    assert "No AUC is defined after 12 versions" in _words(_page(train)[1])
    compare = make_compare_run(tmp_path / "compare")
    summary = json.loads((compare / "summary.json").read_text())
    summary["reliability"] = []
    tables = ("table", "per_site", "differences")
    for row in (row for t in tables for row in (*summary[t], *summary[f"more_{t}"])):
        row |= {k: None for k in row if k in _NUMBERS}
        row |= {"difference": None} if "against" in row else {}
    _change(compare, **summary)
    (compare / "metrics.jsonl").write_text("")
    text, page = _page(compare)
    assert "every test fold holds one class only" in _words(page)
    assert not list(page.iter(_SVG))
    assert "nan" not in text.lower().split("config.yaml")[0]


def test_a_report_repeats_byte_for_byte(report: Path) -> None:
    before = report.read_bytes()
    assert write_report(report.parent).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("summary.json", None, "run.resume=true"),
        ("summary.json", "{", "summary.json cannot be used"),
        ("summary.json", '{"verb": "embed"}', "onboard, scale or tune"),
        ("summary.json", '{"verb": "train"}', "has no 'status'"),
        ("config.yaml", None, "config.yaml is missing"),
        ("config.yaml", "a: [", "config.yaml cannot be used"),
        ("config.yaml", "just words", "holds no sections"),
        ("metrics.jsonl", None, "metrics.jsonl is missing"),
        ("metrics.jsonl", '{"version": 1, "site": "x"}\n{"vers', "line 2"),
        ("sites/Lakeside/scores.parquet", None, "scores.parquet is missing"),
        ("sites/Lakeside/scores.parquet", "PAR1", "scores.parquet cannot be used"),
    ],
)
def test_a_missing_or_broken_file_is_named_with_a_remedy(
    train_run: Path, name: str, content: str | None, words: str
) -> None:
    path = train_run / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=re.escape(words)) as caught:
        write_report(train_run)
    assert str(path) in str(caught.value)
    assert not (train_run / "report.html").exists()


def test_a_site_name_cannot_leave_the_run_directory(train_run: Path) -> None:
    sites = json.loads((train_run / "summary.json").read_text())["sites"]
    sites[1]["site"] = "../../elsewhere"
    _change(train_run, sites=sites)
    with pytest.raises(DataError, match="no name of a site"):
        write_report(train_run)


def test_a_summary_of_another_version_is_refused(train_run: Path) -> None:
    _change(train_run, sites=[{"site": "Lakeside"}])
    with pytest.raises(DataError, match="not what this version"):
        write_report(train_run)


def test_reporting_imports_neither_torch_nor_ray() -> None:
    program = (
        "import sys, rayfed_hn.reporting.report as _; "
        "sys.exit(bool({'torch', 'ray', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_from_within_its_folder_a_run_is_repeated_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_compare_run(tmp_path / "mine", methods=("local", "hypernetwork")))
    assert "run.dir=mine-again" in _words(_page(Path())[1])
