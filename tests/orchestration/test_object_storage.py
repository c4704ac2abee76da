"""Runs and bags in object storage: the same results, and another machine goes on with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import run_verb
from s3_server import s3_server

from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load
from rayfed_hn.orchestration import train as train_module
from rayfed_hn.points import DRIVER_VERSION
from rayfed_hn.storage.mirror import Mirror
from rayfed_hn.storage.remote import remote_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
WORDS = [
    *("rounds.num_versions=4", "training.steps=2", "resources.sites_per_actor=9"),
    *("simulation.enabled=true", "simulation.slowest=3", "rounds.buffer_size=2"),
]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as address:
        yield address


def test_another_machine_goes_on_and_ends_in_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
    bucket: str,
) -> None:
    def cut(point: str) -> None:
        heard.append(point)
        if heard.count(DRIVER_VERSION) == 2:
            raise KeyboardInterrupt

    heard: list[str] = []
    run, bags = f"{bucket}/runs/one", f"{bucket}/bags"
    shutil.copytree(bag_root, tmp_path / "bags")
    Mirror(tmp_path / "bags", remote_of(bags)).push()
    monkeypatch.setenv("RAYFED_HN_CACHE", str(tmp_path / "first machine"))
    with monkeypatch.context() as cutting:
        cutting.setattr(train_module, "reached", cut)
        assert run_verb(cutting, "train", f"data.bags={bags}", f"run.dir={run}", *WORDS) == 4
    told = capsys.readouterr()
    assert f"Run directory: {run}" in told.out
    assert f"'rayfed-hn resume {run}'" in told.err
    files = remote_of(run).files()
    assert "checkpoints/LATEST" in files
    assert "summary.json" not in files

    monkeypatch.setenv("RAYFED_HN_CACHE", str(tmp_path / "second machine"))
    assert run_verb(monkeypatch, "resume", run, f"data.bags={bags}") == 0
    assert f"Going on with train in {run}" in capsys.readouterr().out
    summary = json.loads(remote_of(run).read("summary.json") or b"")
    whole = run_in_process(make_plan(load(None, WORDS), bag_root))
    assert (summary["status"], summary["digest"]) == ("complete", whole.digest)
    assert summary["resumed_from"]

    # And a third one looks at it.
    monkeypatch.setenv("RAYFED_HN_CACHE", str(tmp_path / "third machine"))
    assert run_verb(monkeypatch, "report", run) == 0
    assert "report.html" in remote_of(run).files()
    to = tmp_path / "scores.csv"
    assert run_verb(monkeypatch, "predict", run, "--bags", bags, "--to", to) == 0
    assert len(to.read_text().splitlines()) > 10


def test_a_run_there_is_not_written_over(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
    bucket: str,
) -> None:
    run = f"{bucket}/runs/two"
    remote_of(run).write("config.yaml", b"run: {seed: 3}\n")
    monkeypatch.setenv("RAYFED_HN_CACHE", str(tmp_path / "cache"))
    assert run_verb(monkeypatch, "train", f"data.bags={bag_root}", f"run.dir={run}", *WORDS) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert set(remote_of(run).files()) == {"config.yaml"}


def test_ledgers_have_to_be_on_a_disk(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
    bucket: str,
) -> None:
    copied, bags = tmp_path / "bags", f"{bucket}/more-bags"
    shutil.copytree(bag_root, copied)
    Mirror(copied, remote_of(bags)).push()
    monkeypatch.setenv("RAYFED_HN_CACHE", str(tmp_path / "cache"))
    words = ("privacy.mechanism=site_ldp", "privacy.target_epsilon=8")
    assert run_verb(monkeypatch, "train", f"data.bags={bags}", *words) == 2
    assert f"data.bags: {bags} is in object storage, and a site's ledger" in capsys.readouterr().err
