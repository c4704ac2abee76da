"""The command of the job for Kubernetes is the same at every attempt, and goes on."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from manifests import documents, of_kind

from rayfed_hn import cli

pytestmark = pytest.mark.ray
SHORT = ["rounds.num_versions=2", "training.steps=2"]


def attempt(monkeypatch: pytest.MonkeyPatch, folder: Path) -> object:
    """Run the entrypoint, with what pods have mounted in a folder of ours; returns its status."""
    (job,) = of_kind(documents(), "RayJob")
    words = job["spec"]["entrypoint"].split()
    assert words[0] == "rayfed-hn"
    words = [word.replace("=/", f"={folder}/") for word in words]
    monkeypatch.setattr(sys, "argv", [*words, *SHORT])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


@pytest.mark.usefixtures("ray_session")
def test_attempts_begin_go_on_and_are_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bag_root: Path
) -> None:
    """The cluster of the tests has one node, that of north."""
    (tmp_path / "bags").mkdir()
    shutil.copy(bag_root / "recipe.json", tmp_path / "bags")
    shutil.copytree(bag_root / "site=north", tmp_path / "bags" / "site=north")
    run = tmp_path / "runs" / "train"
    assert attempt(monkeypatch, tmp_path) == 0
    first = json.loads((run / "summary.json").read_text())
    (run / "summary.json").unlink()  # as of a head that is lost while it writes the last file
    assert attempt(monkeypatch, tmp_path) == 0
    again = json.loads((run / "summary.json").read_text())
    assert again["digest"] == first["digest"]
    assert again["num_versions"] == 2
    assert (run / "run_id").read_text()
