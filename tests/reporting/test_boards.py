"""TensorBoard's own reader finds what verbs found, under names that were given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_scale import METHODS, SITES, make_scale_run, scale_summary
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rayfed_hn.reporting.boards import write_curves, write_embedding
from rayfed_hn.reporting.points import points


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    found.Reload()
    return found


def curve(folder: Path, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in read(folder).Scalars(tag)}


def test_scale_is_drawn_over_the_number_of_sites_a_run_a_method(tmp_path: Path) -> None:
    summary = scale_summary()
    for _ in range(2):  # what was there before is gone
        write_curves(tmp_path, summary)
    assert {path.name for path in (tmp_path / "tensorboard").iterdir()} == set(METHODS)
    for method in METHODS:
        rows = {row["sites"]: row for row in summary["rows"] if row["method"] == method}
        folder = tmp_path / "tensorboard" / method
        time = curve(folder, "cost by number of sites/seconds per version")
        worst = curve(folder, "test AUC by number of sites/worst site")
        assert set(time) == set(worst) == set(SITES)
        for sites, row in rows.items():
            assert time[sites] == pytest.approx(row["seconds_per_version"])
            assert worst[sites] == pytest.approx(row["tested"]["worst"])


def test_what_was_not_tested_is_not_drawn(tmp_path: Path) -> None:
    summary = scale_summary()
    for row in summary["rows"]:
        row["tested"] = None
    assert not [p for p in points(make_scale_run(tmp_path, summary), summary) if "test" in p.tag]


def test_compare_is_drawn_over_versions_and_its_results_beside(
    compare_run: Path, tmp_path: Path
) -> None:
    summary = json.loads((compare_run / "summary.json").read_text())
    lines = (compare_run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    write_curves(compare_run, summary)
    methods = {path.name for path in (compare_run / "tensorboard").iterdir()}
    assert methods == {row["method"] for row in summary["table"]}
    for method in methods:
        drawn = curve(
            compare_run / "tensorboard" / method,
            "mean over sites, seeds and folds/validation AUC",
        )
        for version, value in drawn.items():
            own = [
                record["validation_metric"]
                for record in records
                if (record["method"], record["version"]) == (method, version)
            ]
            assert value == pytest.approx(sum(own) / len(own), abs=1e-6)
        (row,) = [r for r in summary["table"] if (r["method"], r["readout"]) == (method, "last")]
        tag = "test AUC, readout last/mean site"
        assert curve(compare_run / "tensorboard" / method, tag)[0] == pytest.approx(
            row["mean_site"]
        )


def test_onboard_is_drawn_over_labelled_bags(tmp_path: Path) -> None:
    curve_of = [
        {"arm": arm, "labelled": n, "mean": None if n == 0 else n / 10, "se": None, "num": 1}
        for arm in ("fitted embedding", "trained alone")
        for n in (0, 1, 4)
    ]
    summary = {"verb": "onboard", "metric": "AUC", "site": "north", "curve": curve_of}
    write_curves(tmp_path, summary)
    drawn = curve(tmp_path / "tensorboard" / "trained-alone", "test AUC by labelled bags/north")
    assert drawn == {1: pytest.approx(0.1), 4: pytest.approx(0.4)}


def test_audit_is_drawn_below_the_run_that_it_attacks(tmp_path: Path) -> None:
    found: dict[str, Any] = {
        "verb": "audit",
        "membership": {"north": {"auc": 0.6}, "south": None},
        "canaries": {"norm": {"promised": 8.0, "bound": {"epsilon": 1.5}}},
    }
    kept = tmp_path / "tensorboard" / "events.of.the.run"
    kept.parent.mkdir()
    kept.write_text("")
    write_curves(tmp_path, found, "audit")
    folder = tmp_path / "tensorboard" / "audit" / "attacks"
    assert curve(folder, "membership AUC/north") == {0: pytest.approx(0.6)}
    assert curve(folder, "epsilon of canaries by norm/lower bound") == {0: 1.5}
    assert kept.exists()


def test_embedding_has_histograms_by_site_and_no_name_of_a_slide(tmp_path: Path) -> None:
    write_embedding(tmp_path, [("north", 10, 0.5), ("north", 30, 1.0), ("south", 5, 0.1)])
    found = read(tmp_path / "tensorboard" / "embed")
    (event,) = found.Histograms("tiles of a slide/north")
    assert (event.histogram_value.num, event.histogram_value.sum) == (2, 40)
    assert "seconds of a slide/south" in found.Tags()["histograms"]
    write_embedding(tmp_path / "none", [])
    assert not (tmp_path / "none").exists()


def test_names_of_lines_are_names_of_folders(tmp_path: Path) -> None:
    summary = scale_summary(methods=("../../<b>x",))
    write_curves(tmp_path, summary)
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == ["b-x"]
    assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]
