"""A comparison whose driver is killed goes on, repeats no cell, and ends in the same table."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from drivers import family, left_after
from started_runs import command, stamps, wait_for_files

pytestmark = pytest.mark.faults
CELLS = "cells/*.json"
WORDS = ["rounds.num_versions=4", "training.steps=3", "compare.seeds=2", "compare.folds=3"]
WORDS += ["compare.methods=local,hypernetwork", "resources.cpus=2"]


@pytest.fixture(scope="module")
def undisturbed(bag_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    process = command("compare", f"data.bags={bag_root}", f"run.dir={folder}", *WORDS)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    return folder


def said(folder: Path) -> dict[str, Any]:
    """The summary, without times."""
    found = json.loads((folder / "summary.json").read_text())
    return {key: value for key, value in found.items() if key not in ("seconds", "costs")}


@pytest.mark.parametrize("number", [1, 7, 11])
def test_a_killed_comparison_goes_on(
    bag_root: Path, tmp_path: Path, undisturbed: Path, number: int
) -> None:
    folder = tmp_path / "run"
    process = command("compare", f"data.bags={bag_root}", f"run.dir={folder}", *WORDS)
    wait_for_files(process, folder, CELLS, number)
    processes = family(process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    # Ray's agents look for their parent now and then, and hold nothing of a run.
    assert not [one for one in left_after(processes, 60) if "Agent" not in one]
    before = stamps(folder, CELLS)
    assert number <= len(before)
    assert not (folder / "summary.json").exists()
    resumed = command("resume", str(folder), "resources.cpus=2")
    output, _ = resumed.communicate(timeout=280)
    assert resumed.returncode == 0, output
    after = stamps(folder, CELLS)
    assert after.keys() == stamps(undisturbed, CELLS).keys()
    assert {name: after[name] for name in before} == before
    assert said(folder) == said(undisturbed)
    tables = [(one / "table.md").read_text() for one in (folder, undisturbed)]
    ours, theirs = (text.split("| one training")[0] for text in tables)  # what follows is time
    assert ours == theirs
