"""A comparison and a search whose driver is killed: what is finished is not repeated, and the
table in the end is that of an undisturbed run. On the session's cluster.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from started_runs import command, stamps, wait_for_files

from rayfed_hn.cli import main

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.usefixtures("ray_session")]
SHORT = ["rounds.num_versions=2", "training.steps=2"]
COMPARE = [*SHORT, "compare.methods=local,fedavg", "compare.seeds=1", "compare.folds=3"]
TUNE = [*SHORT, "tune.num_trials=4", "tune.folds=1", "tune.final_seeds=1", "tune.search=random"]
TUNE += ["tune.space.privacy.noise_scale=loguniform(0.01,1)"]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["rayfed-hn", *words])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0


def killed_after(words: Sequence[str], folder: Path, pattern: str, number: int) -> dict[str, int]:
    """Kill a run that has written so many files; returns when each of them was written."""
    address = ray.get_runtime_context().gcs_address
    # The suite's cluster is one that answers strangers.
    allowed = ("resources.insecure_cluster=true", f"run.dir={folder}")
    process = command(*words, *allowed, RAY_ADDRESS=address)
    wait_for_files(process, folder, pattern, number)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert not (folder / "summary.json").exists()
    return stamps(folder, pattern)


def said(folder: Path, *without: str) -> dict[str, Any]:
    """The summary, without times."""
    found = json.loads((folder / "summary.json").read_text())
    return {key: value for key, value in found.items() if key not in ("seconds", *without)}


def killed_and_whole(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    words: list[str],
    pattern: str,
    numbers: tuple[int, int],
) -> tuple[Path, Path]:
    """Two run directories: of a run that was killed and resumed, and of one that was not.

    Args:
        monkeypatch: Of the test.
        folder: Where to put them.
        words: The command.
        pattern: Of the files that are kept as the run goes on.
        numbers: How many there are at least when it is killed, and how many in the end.
    """
    killed, whole = folder / "killed", folder / "whole"
    few, all_of_them = numbers
    before = killed_after(words, killed, pattern, few)
    assert few <= len(before) < all_of_them
    run(monkeypatch, "resume", str(killed))
    after = stamps(killed, pattern)
    assert len(after) == all_of_them
    assert {name: after[name] for name in before} == before
    run(monkeypatch, *words, f"run.dir={whole}")
    return killed, whole


def test_a_killed_comparison(
    bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["compare", f"data.bags={bag_root}", *COMPARE]
    killed, whole = killed_and_whole(monkeypatch, tmp_path, words, "cells/*.json", (2, 6))
    assert said(killed, "costs") == said(whole, "costs")
    tables = [(one / "table.md").read_text().split("| one training") for one in (killed, whole)]
    assert tables[0][0] == tables[1][0]  # what follows is how long it took


def test_a_killed_search(bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["tune", f"data.bags={bag_root}", *TUNE]
    killed, whole = killed_and_whole(monkeypatch, tmp_path, words, "trials/trial-*.json", (1, 4))
    mine, theirs = said(killed, "trials"), said(whole, "trials")
    assert mine == theirs
    assert _untimed(killed) == _untimed(whole)
    mine, theirs = ((one / "best.yaml").read_text() for one in (killed, whole))
    allowed = "insecure_cluster: true"
    assert mine.replace(allowed, "insecure_cluster: false") == theirs


def _untimed(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "trials.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
