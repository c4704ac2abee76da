from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest

from rayfed_hn.errors import DataError
from rayfed_hn.reporting.report import write_report
from rayfed_hn.reporting.troubles import troubles

_KEYS = [{"method": m, "seed": 0, "fold": f} for m in ("local", "fedavg") for f in (2, 3)]
_IDLE = {"site": "Lakeside", "reason": "no case to train on", "remedy": "fewer folds"}
_GONE = {"site": "North Clinic", "reason": "no answer"}


def _summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def _report(folder: Path, summary: dict[str, Any]) -> str:
    (folder / "summary.json").write_text(json.dumps(summary))
    return html.unescape(write_report(folder).read_text(encoding="utf-8"))


def test_what_many_cells_share_is_one_line(compare_run: Path) -> None:
    lost = [key | _GONE | {"version": i} for i, key in enumerate(_KEYS[:2])]
    lost.append(_KEYS[0] | {"site": "Cedar", "version": 7, "reason": "late"})
    summary = _summary(compare_run) | {
        "failed_cells": [key | {"reason": "its worker died"} for key in _KEYS[1:]],
        "lost_sites": lost,
        "set_aside": [*(k | _IDLE for k in _KEYS), _KEYS[3] | _IDLE | {"site": "Cedar"}],
    }
    expected = [
        "local, seed 0, fold 3 failed: its worker died",
        "fedavg: 2 cells failed: its worker died",
        "North Clinic was lost in 2 cells: no answer",
        "Cedar was lost at version 7 in local, seed 0, fold 2: late",
        "Lakeside was set aside in 4 cells: no case to train on (fewer folds)",
        "Cedar was set aside in fedavg, seed 0, fold 3: no case to train on (fewer folds)",
    ]
    assert list(troubles(summary)) == expected
    assert "".join(f"<li>{line}</li>" for line in expected) in _report(compare_run, summary)


def test_a_training_run_has_no_cells() -> None:
    summary = {"lost_sites": [_GONE | {"version": 5}], "set_aside": [_IDLE]}
    assert troubles(summary) == (
        "North Clinic was lost at version 5: no answer",
        "Lakeside was set aside: no case to train on (fewer folds)",
    )


@pytest.mark.parametrize("name", ["lost_sites", "set_aside"])
def test_a_summary_without_its_reasons_is_refused(compare_run: Path, name: str) -> None:
    summary = _summary(compare_run)
    del summary[name]
    with pytest.raises(DataError, match=f"has no '{name}'"):
        _report(compare_run, summary)


@pytest.mark.parametrize("verb", ["train", "compare", "scale", "embed"])
def test_a_failed_run_is_said_to_have_failed(train_run: Path, verb: str) -> None:
    (train_run / "metrics.jsonl").unlink()
    summary: dict[str, Any] = {"verb": verb, "status": "failed"}
    assert f"This run of {verb} failed: no reason given." in _report(train_run, summary)
    aside = {"slide_id": "s1", "site": "Lakeside", "reason": "damaged", "remedy": "copy it again"}
    summary |= {"reason": "nothing is left", "seconds": 5, "set_aside": [aside]}
    found = _report(train_run, summary)
    assert f"This run of {verb} failed: nothing is left. It has no results." in found
    assert "s1 was set aside: damaged (copy it again)" in found
    assert f"rayfed-hn {verb} config.yaml run.dir=train-again" in found
