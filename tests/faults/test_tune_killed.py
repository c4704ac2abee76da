"""A search whose driver is killed goes on, repeats no trial, and ends in the same table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drivers import family, left_after

from rayfed_hn.loading import load
from rayfed_hn.tuning.learning import Learning
from rayfed_hn.tuning.search import Search
from rayfed_hn.tuning.trials import trial_config

pytestmark = pytest.mark.faults
WORDS = ["rounds.num_versions=4", "training.steps=3", "tune.num_trials=5", "tune.final_seeds=1"]
WORDS += ["tune.space.privacy.noise_scale=loguniform(0.01, 1)"]
WORDS += ["tune.space.training.learning_rate=loguniform(0.001, 0.1)"]


def command(*words: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "rayfed_hn", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (folder / "trials").glob("trial-*.json")}


def wait_for_trials(process: subprocess.Popen[str], folder: Path, number: int) -> None:
    end = time.monotonic() + 200
    while time.monotonic() < end and process.poll() is None:
        if len(finished(folder)) >= number:
            return
        time.sleep(0.02)
    raise AssertionError(f"{number} trials never ended: {process.poll()}")


def test_a_killed_search_goes_on(bag_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = command(
        "tune", f"data.bags={bag_root}", f"run.dir={folder}", "resources.cpus=2", *WORDS
    )
    wait_for_trials(process, folder, 2)
    processes, before = family(process), finished(folder)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert 2 <= len(before) < 5
    # Ray's agents look for their parent now and then, and hold nothing of a run.
    assert not [one for one in left_after(processes, 60) if "Agent" not in one]
    before = finished(folder)
    resumed = command("resume", str(folder), "resources.cpus=2")
    output, _ = resumed.communicate(timeout=280)
    assert resumed.returncode == 0, output
    after = finished(folder)
    assert len(after) == 5
    assert {name: after[name] for name in before} == before
    assert output.count("(finished)") == 5 - len(before)
    summary = json.loads((folder / "summary.json").read_text())
    search = Search.of(load(None, WORDS), bag_root)
    for trial, record in zip(search.trials, summary["trials"], strict=True):
        *_, last = Learning(trial_config(search.config, trial.settings), bag_root)
        assert (record["trial"], record["settings"]) == (trial.number, dict(trial.settings))
        assert record["validation_metric"] == last.mean
        assert record["status"] == "finished"
    assert len(summary["final"]["rows"]) > 0
    again = command("resume", str(folder))
    output, _ = again.communicate(timeout=60)
    assert "is finished (tune, complete)" in output
