"""Runs and bags in object storage: the same results, and another machine goes on with them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import run_verb
from s3_server import s3_server

from rayfed_hn.errors import StorageAway, StorageError
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load
from rayfed_hn.orchestration import crew as crew_module
from rayfed_hn.orchestration import train as train_module
from rayfed_hn.orchestration.actors import CentralActor, _Centre
from rayfed_hn.points import DRIVER_VERSION
from rayfed_hn.storage import elsewhere as elsewhere_module
from rayfed_hn.storage import keeping as keeping_module
from rayfed_hn.storage.claim import CLAIM, SET_ASIDE, token_of
from rayfed_hn.storage.mirror import Mirror
from rayfed_hn.storage.remote import Remote, remote_of

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


@pytest.mark.parametrize("place", ["on the machine of the command", "on a node of its own"])
def test_a_run_that_is_taken_up_elsewhere_ends_here(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
    bucket: str,
    place: str,
) -> None:
    """Whether the driver hears of it first, or the central actor."""

    def taken_up(point: str) -> None:
        heard.append(point)
        versions = heard.count(DRIVER_VERSION)
        if versions == 1:
            while remote_of(run).read("checkpoints/LATEST") is None:
                time.sleep(0.01)
            remote_of(run).write(CLAIM, b'{"host": "another", "process": 7, "token": "t"}')
        if versions == 2 and not apart:
            time.sleep(20)  # it does not get that far

    apart = place == "on a node of its own"
    heard: list[str] = []
    run, cache = f"{bucket}/runs/{'apart' if apart else 'here'}", tmp_path / "first machine"
    monkeypatch.setenv("RAYFED_HN_CACHE", str(cache))
    # The driver is not to hear of it by itself where the central actor is.
    monkeypatch.setattr(keeping_module, "PUSH_SECONDS", 60.0 if apart else 0.1)
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "reached", taken_up)
        if apart:
            patch.setattr(crew_module, "CentralActor", Elsewhere(cache))
            patch.setattr(train_module, "token_of", _token_of_another_disk)
        words = (f"data.bags={bag_root}", f"run.dir={run}", *WORDS)
        assert run_verb(patch, "train", *words) == 1
    told = capsys.readouterr().err
    assert f"{run}: another process has taken this run up (process 7 on another)" in told
    assert "trying again" not in told
    assert heard.count(DRIVER_VERSION) < 4
    (aside,) = (cache / SET_ASIDE).iterdir()
    assert str(aside) in told
    assert (aside / "config.yaml").exists()
    assert not (remote_of(run).copy / "config.yaml").exists()
    remote = remote_of(run)
    assert remote.read("checkpoints/LATEST") != b"00000004\n"
    monkeypatch.setenv("RAYFED_HN_CACHE", str(tmp_path / "second machine"))
    assert run_verb(monkeypatch, "resume", run, f"data.bags={bag_root}") == 0
    summary = json.loads(remote.read("summary.json") or b"")
    assert summary["digest"] == run_in_process(make_plan(load(None, WORDS), bag_root)).digest


class Elsewhere:
    """The central actor, where it knows what object storage is and shares no disk."""

    def __init__(self, cache: Path) -> None:
        names = [name for name in os.environ if name.startswith("AWS_")]
        self._environment = {name: os.environ[name] for name in names}
        self._environment["RAYFED_HN_CACHE"] = str(cache)

    def options(self, **given: Any) -> Any:
        return CentralActor.options(**given, runtime_env={"env_vars": self._environment})


def _token_of_another_disk(folder: Path) -> str:
    token = token_of(folder)
    (folder / CLAIM).unlink()  # by which the central actor would know that it shares this one
    return token


def test_a_central_actor_that_cannot_send_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bag_root: Path, bucket: str
) -> None:
    """With the error as it is: the driver tells no more of it than that."""

    class Committing:
        def start(self) -> int:
            return 0

        def run(self) -> Iterator[int]:
            for version in (1, 2):
                (run.copy / "metrics.jsonl").write_text(str(version))
                yield version

    def away(*given: object) -> None:
        raise StorageError("no network")

    monkeypatch.setenv("RAYFED_HN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(elsewhere_module, "RETRY_SECONDS", 0.0)
    run = remote_of(f"{bucket}/runs/three")
    run.copy.mkdir(parents=True)
    plan = replace(make_plan(load(None, WORDS), bag_root), holder="of another machine")
    centre: Any = _Centre(plan, {}, [], run.copy, False, 0.0)
    monkeypatch.setattr(centre, "_make", Committing)
    centre.start()
    news = centre.run()
    assert next(news) == 1
    assert run.read("metrics.jsonl") == b"1"
    monkeypatch.setattr(Remote, "upload", away)
    with pytest.raises(StorageAway, match=f"'rayfed-hn resume {run.uri}' goes on"):
        next(news)


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
