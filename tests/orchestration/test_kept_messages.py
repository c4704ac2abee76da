"""Messages that ``train`` keeps are those of the run, and an audit reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run_verb

from rayfed_hn.audit.run import KEPT, make_again, read_run
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
SHORT = ("rounds.num_versions=3", "training.steps=3", "privacy.noise_scale=0.05")
QUICK = ("audit.shadows=4", "audit.shadowed=1", "audit.canaries=12")


def test_train_keeps_what_an_audit_reads(
    bag_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, words = tmp_path / "run", [*SHORT, f"data.bags={bag_root}"]
    # Noise that can be drawn again, so that the run can be made again and compared.
    words += ["privacy.noise_source=seeded", f"run.dir={folder}", "run.keep_messages=true"]
    assert run_verb(monkeypatch, "train", *words) == 0
    assert "note: run.keep_messages keeps 0.1 MB of networks and updates" in capsys.readouterr().out
    run = read_run(folder)
    assert run.source == KEPT
    again, _ = make_again(make_plan(load(None, words), bag_root))
    for name, site in run.sites.items():
        assert len(site.exchanges) == 3
        for one, other in zip(site.exchanges, again[name], strict=True):
            np.testing.assert_array_equal(one.received, other.received)
            np.testing.assert_array_equal(one.update, other.update)
    assert run_verb(monkeypatch, "audit", folder, *QUICK) == 0
    assert json.loads((folder / "audit.json").read_text())["messages"] == KEPT


def test_real_noise_cannot_be_made_again(
    bag_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, words = tmp_path / "run", [*SHORT, f"data.bags={bag_root}"]
    assert run_verb(monkeypatch, "train", *words, f"run.dir={folder}") == 0
    assert not (folder / "messages").exists()
    assert run_verb(monkeypatch, "audit", folder, "audit.attacks=inversion") == 0
    assert "Train with run.keep_messages=true to attack those" in capsys.readouterr().out
