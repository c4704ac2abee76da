"""A search whose driver is killed goes on, repeats no trial, and ends in the same table."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from drivers import family, left_after
from started_runs import command, stamps, wait_for_files

from rayfed_hn.federation.cell import Cell, run_cell
from rayfed_hn.loading import load
from rayfed_hn.tuning.learning import Learning
from rayfed_hn.tuning.search import Search
from rayfed_hn.tuning.trials import final_divisions, trial_config

pytestmark = pytest.mark.faults
WORDS = ["rounds.num_versions=4", "training.steps=3", "tune.num_trials=5", "tune.final_seeds=1"]
WORDS += ["tune.space.privacy.noise_scale=loguniform(0.01, 1)"]
WORDS += ["tune.space.training.learning_rate=loguniform(0.001, 0.1)"]
TRIALS = "trials/trial-*.json"


def test_a_killed_search_goes_on(bag_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = command(
        "tune", f"data.bags={bag_root}", f"run.dir={folder}", "resources.cpus=2", *WORDS
    )
    wait_for_files(process, folder, TRIALS, 2)
    processes, before = family(process), stamps(folder, TRIALS)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert 2 <= len(before) < 5
    # Ray's agents look for their parent now and then, and hold nothing of a run.
    assert not [one for one in left_after(processes, 60) if "Agent" not in one]
    before = stamps(folder, TRIALS)
    resumed = command("resume", str(folder), "resources.cpus=2")
    output, _ = resumed.communicate(timeout=280)
    assert resumed.returncode == 0, output
    after = stamps(folder, TRIALS)
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
    _check_final(summary, search, bag_root)
    again = command("resume", str(folder))
    output, _ = again.communicate(timeout=60)
    assert "is finished (tune, complete)" in output


def _check_final(summary: dict[str, Any], search: Search, root: Path) -> None:
    """The test in the end is that of the best setting, trained here."""
    (best,) = (r for r in summary["trials"] if r["trial"] == summary["best"])
    asked = search.finals(best["settings"])
    rows = [
        {**row, "method": arm}
        for arm, config in asked.items()
        for division in final_divisions(search.config)
        for row in run_cell(Cell(config.method.name, *division), config, root)["rows"]
    ]
    assert summary["final"]["rows"] == rows
