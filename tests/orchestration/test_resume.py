"""``rayfed-hn resume``: the verb that goes on with whatever a run directory holds."""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rayfed_hn import cli
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load
from rayfed_hn.orchestration import compare as compare_module
from rayfed_hn.orchestration import train as train_module
from rayfed_hn.points import DRIVER_VERSION

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
SHORT = ["rounds.num_versions=4", "training.steps=2", "resources.sites_per_actor=9"]
SIMULATED = ["simulation.enabled=true", "simulation.slowest=3", "rounds.buffer_size=2"]
INTERRUPTED, DONE = 4, 0


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    """Give a command; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["rayfed-hn", *words])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def wait_for_the_centre(folder: Path) -> None:
    """Until it has ended: it is told to, and may be writing a commit."""
    with (folder / "checkpoints" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back with the file


def stamps(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


def test_a_training_run_goes_on_and_ends_in_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
) -> None:
    def cut(point: str) -> None:
        heard.append(point)
        if heard.count(DRIVER_VERSION) == 2:
            raise KeyboardInterrupt

    heard: list[str] = []
    words = [*SHORT, *SIMULATED]
    with monkeypatch.context() as cutting:
        cutting.setattr(train_module, "reached", cut)
        place = [f"data.bags={bag_root}", f"run.dir={tmp_path}"]
        assert run(cutting, "train", *place, *words) == INTERRUPTED
    assert f"'rayfed-hn resume {tmp_path}'" in capsys.readouterr().err
    assert not (tmp_path / "summary.json").exists()
    wait_for_the_centre(tmp_path)
    pointer = tmp_path / "checkpoints" / "LATEST"
    committed = int(pointer.read_text())
    assert committed >= 2
    flipped = tmp_path / "checkpoints" / f"{committed:08}" / "state.safetensors"
    flipped.write_bytes(flipped.read_bytes()[:-1])

    assert run(monkeypatch, "resume", str(tmp_path)) == DONE
    told = capsys.readouterr()
    assert f"Going on with train in {tmp_path}" in told.out
    damage = f"the commit of version {committed} is damaged: state.safetensors is not what was"
    assert f"warning: {damage}" in told.err
    assert f"note: {damage}" in told.out
    assert f"the run went on from version {committed - 1}" in told.out
    summary = summary_of(tmp_path)
    whole = run_in_process(make_plan(load(None, words), bag_root))
    assert summary["digest"] == whole.digest
    assert summary["resumed_from"] == [committed - 1]
    assert (summary["code_changed"], summary["ledgers_back"]) == (False, [])

    before = stamps(tmp_path)
    assert run(monkeypatch, "resume", str(tmp_path)) == DONE
    assert "is finished (train, complete); nothing is left to do" in capsys.readouterr().out
    assert stamps(tmp_path) == before

    # A run that failed has a summary too, and is not finished.
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"status": "failed"}))
    assert run(monkeypatch, "resume", str(tmp_path)) == DONE
    again = summary_of(tmp_path)
    assert (again["status"], again["digest"]) == ("complete", whole.digest)


def test_a_comparison_does_the_cell_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    words = ["compare.methods=local", "compare.seeds=1", "compare.folds=3", *SHORT]
    with monkeypatch.context() as cutting:
        cutting.setattr(compare_module, "_conclude", cut)
        place = [f"data.bags={bag_root}", f"run.dir={tmp_path}"]
        assert run(cutting, "compare", *place, *words) == INTERRUPTED
    first, missing, last = sorted((tmp_path / "cells").iterdir())
    found = json.loads(missing.read_text())
    missing.unlink()
    before = stamps(tmp_path / "cells")
    assert run(monkeypatch, "resume", str(tmp_path)) == DONE
    assert f"Going on with compare in {tmp_path}" in capsys.readouterr().out
    after = stamps(tmp_path / "cells")
    assert {path: after[path] for path in (first, last)} == before
    again = json.loads(missing.read_text())
    assert (again["fingerprint"], again["rows"]) == (found["fingerprint"], found["rows"])
    assert len(summary_of(tmp_path)["rows"]) == 3 * len(found["rows"])


def test_what_holds_no_run_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "something").write_text("")
    assert run(monkeypatch, "resume", str(tmp_path)) == 2
    assert f"RUN: {tmp_path} holds no run (no config.yaml)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["something"]
