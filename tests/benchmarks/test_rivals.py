"""The rivals' side of the benchmark of rounds, as far as it runs without the rivals."""

from __future__ import annotations

import subprocess
from pathlib import Path

import environments
import plain_rounds
import pytest
import torch
import workload
from measuring import Options
from torch import Tensor

from rayfed_hn.models.attention import GatedAttentionMIL


def test_the_workload_is_our_site_model() -> None:
    theirs = workload.new_model().eval()
    ours = GatedAttentionMIL(
        feature_dim=1024, num_outputs=2, hidden_dim=512, attention_dim=256, dropout=0.25
    )
    ours.load_state_dict(theirs.state_dict())
    features_ND, _ = workload.Bags().of(3, 1)
    torch.testing.assert_close(theirs(features_ND), ours(features_ND)[0])
    assert sum(p.numel() for p in ours.parameters()) == 788_739


def naive_rounds(options: Options) -> Tensor:
    """Rounds with a new model and optimiser for every site."""
    bags, mean = workload.Bags(), workload.new_model().state_dict()
    for _ in range(options.rounds):
        trained = []
        for site in range(options.sites):
            model = workload.new_model()
            model.load_state_dict(mean)
            workload.train(model, bags, site, options.steps)
            trained.append(model.state_dict())
        mean = {name: torch.stack([t[name] for t in trained]).mean(0) for name in mean}
    return torch.cat([value.reshape(-1) for value in mean.values()])


@pytest.mark.parametrize("processes", [1, 2])
def test_the_plain_loop_is_federated_averaging(processes: int) -> None:
    options = Options(sites=4, steps=2, rounds=2, processes=processes)
    measured, global_P = plain_rounds.run(options)
    torch.testing.assert_close(global_P, naive_rounds(options), rtol=0, atol=2e-5)
    assert measured.moved > 0.1  # far more than the tolerance could hide
    assert len(measured.seconds) == 2


def test_rounds_without_training_leave_the_model() -> None:
    measured, _ = plain_rounds.run(Options(sites=3, steps=0, rounds=2, processes=1))
    assert measured.moved < 1e-4  # and workload.moved would have refused more
    with pytest.raises(RuntimeError, match=r"is 0\.0 from its start"):
        workload.moved(workload.new_model().parameters(), steps=1)


def test_what_pip_says_is_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        failed = "pip" in command
        said = "\n".join([*map(str, range(9)), "ERROR: No matching distribution"])
        return subprocess.CompletedProcess(command, int(failed), "", said if failed else "")

    monkeypatch.setattr(environments.subprocess, "run", fail_pip)
    reason = environments.ensure("pfl", tmp_path)
    assert reason == "no environment for pfl: ERROR: No matching distribution"
    out, err = capsys.readouterr()
    assert not out
    assert err.splitlines() == ["5", "6", "7", "8", "ERROR: No matching distribution"]


def test_a_complete_environment_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def note(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        (tmp_path / "pfl").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(environments.subprocess, "run", note)
    python = tmp_path / "pfl" / "bin" / "python"
    assert environments.ensure("pfl", tmp_path) == python
    assert len(commands) == 2
    assert environments.ensure("pfl", tmp_path) == python
    assert len(commands) == 2


def test_a_folder_of_something_else_is_kept(tmp_path: Path) -> None:
    (tmp_path / "pfl").mkdir()
    (tmp_path / "pfl" / "notes").write_text("mine")
    assert "is none" in str(environments.ensure("pfl", tmp_path))
    assert (tmp_path / "pfl" / "notes").read_text() == "mine"
