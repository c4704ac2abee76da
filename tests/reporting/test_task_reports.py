"""Reports of every kind of task: the right metric, the right picture, nothing of another task."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_runs import SITES, make_compare_run, make_train_run
from fake_tasks import CLASSES, KINDS, make_task_compare_run, make_task_train_run

from rayfed_hn.errors import DataError
from rayfed_hn.evaluation.judging import NAMES, Kind
from rayfed_hn.evaluation.survival import logrank
from rayfed_hn.reporting.report import write_report

_SVG = "{http://www.w3.org/2000/svg}svg"
_PICTURES = {
    "binary": "One ROC curve per site",
    "multiclass": "Confusion matrix",
    "ordinal": "Confusion matrix",
    "survival": "Kaplan-Meier curves",
}
_TESTED = SITES[1:]  # the first is lost


def _page(folder: Path) -> ET.Element:
    return ET.fromstring(write_report(folder).read_text(encoding="utf-8").split("\n", 1)[1])


def _words(page: ET.Element) -> str:
    return " ".join(" ".join(page.itertext()).split())


def _told(page: ET.Element) -> list[str]:
    return [picture.get("aria-label") or "" for picture in page.iter(_SVG)]


def _outcome(folder: Path, kind: Kind) -> str:
    """What the picture of the test bags says in words."""
    (words,) = (told for told in _told(_page(folder)) if told.startswith(_PICTURES[kind]))
    return words


def _scores(folder: Path, unit: str) -> dict[str, list[dict[str, Any]]]:
    """Scores of every site under the run's readout."""
    rows = {s: pq.read_table(folder / "sites" / s / "scores.parquet").to_pylist() for s in _TESTED}
    return {
        site: [r for r in own if (r["unit"], r["readout"]) == (unit, "mixture")]
        for site, own in rows.items()
    }


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def train(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be looked at only."""
    return make_task_train_run(tmp_path_factory.mktemp("train") / kind, kind)


@pytest.fixture(scope="module")
def compare(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be looked at only."""
    return make_task_compare_run(tmp_path_factory.mktemp("compare") / kind, kind)


def _names_only(page: ET.Element, kind: Kind) -> None:
    everything = _words(page) + " ".join(_told(page))
    if kind in ("ordinal", "survival"):
        assert not re.search(r"\bAUC\b", everything)
        assert "ROC" not in everything
    if kind == "multiclass":
        assert not re.search(r"(?<!macro )\bAUC\b", everything)
    if kind == "survival":
        assert "class" not in everything.split("config.yaml")[0]
        assert "cross-entropy" not in everything


def test_a_training_run_names_its_metric_and_shows_its_picture(kind: Kind, train: Path) -> None:
    page = _page(train)
    words = _words(page)
    assert f"Mean site test {NAMES[kind]} 0." in words
    assert sum(told.startswith(tuple(set(_PICTURES.values()))) for told in _told(page)) == 1
    assert _outcome(train, kind)
    _names_only(page, kind)


def test_a_comparison_names_its_metric(kind: Kind, compare: Path) -> None:
    page = _page(compare)
    words = _words(page)
    assert f"The hypernetwork reaches a mean site {NAMES[kind]} of 0." in words
    assert "better than local (+" in words
    _names_only(page, kind)


def test_the_metric_of_cases_stands_beside_that_of_slides(
    kind: Kind, train: Path, compare: Path
) -> None:
    page = _words(_page(train))
    name = NAMES[kind]
    assert f"{name} (mixture) 95 % interval of whole cases {name} (best)" in page
    site = json.loads((train / "summary.json").read_text())["sites"][1]
    interval = r"[\d.]+ to [\d.]+" if kind == "binary" else "–"
    values = f"{site['test_mixture']:.3f} {interval} {site['by_case']:.3f} {site['test_best']:.3f}"
    assert re.search(f"Lakeside 41 10 24 {values}", page)
    page = _words(_page(compare))
    assert f"method mean site {name} s.e. 95 % interval of whole cases worst site" in page
    for row in json.loads((compare / "summary.json").read_text())["table"]:
        if row["readout"] == "mixture":
            shown = rf"{row['method']} {row['mean_site']:.3f} [\d.]+ .{{5,16}} {row['by_case']:.3f}"
            assert re.search(shown, page)


@pytest.mark.parametrize("make", [make_task_train_run, make_task_compare_run])
def test_where_a_bag_is_a_case_slides_stand_beside_it(make: Any, tmp_path: Path) -> None:
    words = _words(_page(make(tmp_path / "run", "binary", "case")))
    assert "a bag is a case" in words
    assert "of single slides" in words
    assert "of whole cases" not in words


@pytest.mark.parametrize("make", [make_train_run, make_compare_run])
def test_where_cases_and_slides_are_one_there_is_no_column(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    for site in summary.get("sites", []):
        site |= {"num_test_slides": 14, "num_test_cases": 14, "by_slide": 0.5, "by_case": 0.5}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "of whole cases" not in _words(_page(folder))


def test_what_is_predicted_is_said() -> None:
    from rayfed_hn.reporting.run_files import Run
    from rayfed_hn.reporting.task_words import predicted

    def said(kind: Kind, names: list[str] | None = None) -> str:
        summary = {"task": kind, "classes": names or CLASSES[kind]}
        return predicted(Run(Path(), "train", summary, {}, "", ()))

    assert said("binary") == "tumour against normal"
    assert said("multiclass") == "3 classes: adenocarcinoma, squamous, other"
    assert said("multiclass", list("abcdefg")) == "7 classes"
    assert said("ordinal") == "4 grades from 0 to 3"
    assert said("survival") == "time until an event, in 3 intervals"


@pytest.mark.parametrize("kind", ["multiclass", "ordinal"])
def test_the_confusion_matrix_counts_the_test_bags(kind: Kind, tmp_path: Path) -> None:
    folder = make_task_train_run(tmp_path / "run", kind)
    names = CLASSES[kind]
    counts: dict[tuple[str, str], int] = {}
    for row in (row for rows in _scores(folder, "slide").values() for row in rows):
        grades = row["probabilities"]
        called = grades.index(max(grades))
        if kind == "ordinal":
            called = round(sum(k * p for k, p in enumerate(grades)))
        pair = names[row["label"]], names[called]
        counts[pair] = counts.get(pair, 0) + 1
    told = _outcome(folder, kind)
    for true in names:
        (row,) = re.findall(rf"[.;] {true}: ([^;]*)(?=[;.])", told)
        found = {m[2]: int(m[1]) for m in re.finditer(r"(\d+) called (\w+)", row)}
        assert found == {called: n for (t, called), n in counts.items() if t == true}
    right = sum(n for (true, called), n in counts.items() if true == called)
    assert f"{right} of {24 * len(_TESTED)} right" in _words(_page(folder))


def test_survival_curves_are_of_cases_split_at_the_median_of_their_own_site(tmp_path: Path) -> None:
    folder = make_task_train_run(tmp_path / "run", "survival")
    columns: list[tuple[float, bool, bool]] = []
    for rows in _scores(folder, "case").values():
        ranked = sorted(rows, key=lambda row: row["score"])
        half = len(ranked) // 2
        columns += [(row["time"], row["event"], i >= half) for i, row in enumerate(ranked)]
    times, events, high = map(np.array, zip(*columns, strict=True))
    p = logrank(times, events, high)
    told = _outcome(folder, "survival")
    assert p is not None
    assert f"log-rank p = {p:.3f}" in told or (p < 0.001 and "log-rank p < 0.001" in told)
    for name, group in (("low", ~high), ("high", high)):
        assert f"{name} risk: {group.sum()} cases, {events[group].sum()} events" in told
    assert "Left out" not in _words(_page(folder))
    # A site whose cases all have one risk cannot be split.
    path = folder / "sites" / "Lakeside" / "scores.parquet"
    rows = [row | {"score": 1.0} for row in pq.read_table(path).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert "Left out: 1 of 4 sites" in _words(_page(folder))


def test_without_an_event_survival_is_drawn_and_its_test_undefined(tmp_path: Path) -> None:
    folder = make_task_train_run(tmp_path / "run", "survival")
    for site in _TESTED:
        path = folder / "sites" / site / "scores.parquet"
        rows = [row | {"event": False} for row in pq.read_table(path).to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows), path)
    told = _outcome(folder, "survival")
    assert "low risk: 24 cases, 0 events, 100 % without event" in told
    assert "log-rank p undefined" in told


def test_an_undefined_metric_is_told_in_the_words_of_its_task(
    kind: Kind, train: Path, compare: Path, tmp_path: Path
) -> None:
    from dataclasses import replace

    from rayfed_hn.reporting.run_files import read_run
    from rayfed_hn.reporting.train_report import parts
    from rayfed_hn.reporting.verdict import verdict

    run = read_run(train)
    sites = [s | {"test_mixture": None, "num_test": 0} for s in run.summary["sites"]]
    nothing = parts(replace(run, summary={**run.summary, "sites": sites})).verdict
    assert nothing.startswith(f"No {NAMES[kind]} is defined after")
    run = read_run(compare)
    table = [row | {"mean_site": None} for row in run.summary["table"]]
    nothing = verdict(replace(run, summary={**run.summary, "table": table}))
    assert nothing.startswith(f"No {NAMES[kind]} is defined: ")
    assert ("class" in nothing) == (kind in ("binary", "multiclass"))


def _older(value: Any) -> Any:
    """Give a summary or a metric the names that it had before there were tasks."""
    names = {
        "mean_site": "mean_site_auc",
        "worst_mean": "worst_site_auc",
        "pooled": "pooled_auc",
        "mean_value": "mean_auc",
        "out_of_fold": "out_of_fold_auc",
        "validation_metric": "validation_auc",
        "value": "auc",
        **{f"test_{readout}": f"auc_{readout}" for readout in ("last", "best", "mixture")},
    }
    if isinstance(value, dict):
        gone = ("task", "metric", "unit")
        return {names.get(k, k): _older(v) for k, v in value.items() if k not in gone}
    return [_older(v) for v in value] if isinstance(value, list) else value


_NEWER = (
    *("measures", "more_table", "more_per_site", "more_differences"),
    *("reliability", "tests", "costs"),
)


@pytest.mark.parametrize("make", [make_train_run, make_compare_run])
def test_a_run_from_before_there_were_tasks_is_reported_as_binary(
    make: Any, tmp_path: Path
) -> None:
    folder = make(tmp_path / "run")
    summary = folder / "summary.json"
    told = json.loads(summary.read_text())
    summary.write_text(json.dumps({name: told[name] for name in told if name not in _NEWER}))
    today = write_report(folder).read_bytes()
    summary.write_text(json.dumps(_older(json.loads(summary.read_text()))))
    metrics = folder / "metrics.jsonl"
    lines = [json.dumps(_older(json.loads(line))) for line in metrics.read_text().splitlines()]
    metrics.write_text("\n".join(lines))
    assert "_auc" in summary.read_text() + metrics.read_text()
    assert write_report(folder).read_bytes() == today


def test_a_task_of_the_future_is_refused(tmp_path: Path) -> None:
    folder = make_train_run(tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"task": "regression"}))
    with pytest.raises(DataError, match="not what this version"):
        write_report(folder)


def test_probabilities_of_different_lengths_are_a_broken_file(tmp_path: Path) -> None:
    folder = make_task_train_run(tmp_path / "run", "ordinal")
    path = folder / "sites" / "Lakeside" / "scores.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0]["probabilities"] = [1.0]
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(DataError, match=r"scores\.parquet cannot be used"):
        write_report(folder)
