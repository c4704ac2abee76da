"""Sites on actors against sites in process, and what happens when a run is cut or loses a site."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from safetensors.torch import load_file

from rayfed_hn.bags import store
from rayfed_hn.config import Config
from rayfed_hn.errors import DataError
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.federation.results import site_rows
from rayfed_hn.loading import load
from rayfed_hn.orchestration import train as train_module
from rayfed_hn.orchestration.actors import Progress
from rayfed_hn.orchestration.crew import Crew
from rayfed_hn.orchestration.train import train

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
ONE_HOST = "resources.sites_per_actor=9"
SHORT = ["rounds.num_versions=3", "training.steps=3", "privacy.noise_scale=0.05"]
SHORT += ["privacy.noise_source=seeded"]  # as no real run has: two of them are compared


def run(bag_root: Path, folder: Path, *words: str) -> tuple[dict[str, Any], list[Progress]]:
    folder.mkdir(exist_ok=True)
    news: list[Progress] = []
    return train(load(None, [*SHORT, *words]), bag_root, folder, news.append), news


def config(*words: str) -> Config:
    return load(None, [*SHORT, *words])


@pytest.fixture(scope="module")
def whole(
    bag_root: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None
) -> tuple[Path, dict[str, Any]]:
    """An undisturbed run with one actor per site."""
    folder = tmp_path_factory.mktemp("whole")
    summary, news = run(bag_root, folder)
    assert [n.version for n in news] == [1, 2, 3]
    return folder, summary


def test_actors_and_process_end_in_the_same_bits(
    bag_root: Path, tmp_path: Path, whole: tuple[Path, dict[str, Any]]
) -> None:
    folder, summary = whole
    plan = make_plan(config(), bag_root)
    outcome = run_in_process(plan)
    packed = [
        run(bag_root, tmp_path / str(n), f"resources.sites_per_actor={-(-3 // n)}")[0]
        for n in (1, 2)
    ]
    assert {summary["digest"], *(p["digest"] for p in packed)} == {outcome.digest}
    saved = load_file(folder / "checkpoints" / "last.safetensors")
    for name, tensor in outcome.server.rule.state().items():
        np.testing.assert_array_equal(saved[name].numpy(), tensor.numpy())
    aucs = {(r["site"], r["readout"]): r["value"] for r in site_rows(plan, outcome.scores)}
    for site in summary["sites"]:
        assert site["test_last"] == aucs[site["site"], "last"]
        assert site["test_best"] == aucs[site["site"], "best"]
        assert site["by_slide"] == site["by_case"] == site["test_mixture"]  # a case has one slide
        assert site["num_test_slides"] == site["num_test_cases"] == site["num_test"]
    assert summary["sites"] == packed[0]["sites"] == packed[1]["sites"]


def test_the_run_directory_holds_what_happened(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = whole
    assert summary["status"] == "complete"
    assert summary == json.loads((folder / "summary.json").read_text())
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {(m["version"], m["site"]) for m in metrics} == {
        (v, s) for v in range(3) for s in ("north", "south", "west")
    }
    assert list((folder / "tensorboard").iterdir())
    assert (folder / "checkpoints" / "best.safetensors").exists()
    assert len(json.loads((folder / "site_map.json").read_text())["distances"]) == 3
    for site in ("north", "south", "west"):
        scores = pq.read_table(folder / "sites" / site / "scores.parquet").to_pylist()
        assert {s["readout"] for s in scores} == {"last", "best", "mixture"}
        last = load_file(folder / "sites" / site / "network_last.safetensors")
        theta_0 = load_file(folder / "checkpoints" / "last.safetensors")["theta_0"]
        assert sum(t.numel() for t in last.values()) == theta_0.numel()
    # Opaque ids only: the names of slides and cases stay in the bag store.
    text = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
    assert b"north-1" not in text
    assert b"north-case" not in text


def test_a_resumed_run_is_the_undisturbed_one(
    bag_root: Path, tmp_path: Path, whole: tuple[Path, dict[str, Any]]
) -> None:
    class Cut(Exception):
        pass

    def interrupt(news: Progress) -> None:
        if news.version == 1:
            raise Cut

    bags = shutil.copytree(bag_root, tmp_path / "bags")
    with pytest.raises(Cut):
        train(config(ONE_HOST), bags, tmp_path, interrupt)
    # Another bag would deal the cases anew, and test cases would have been trained on.
    moved = store.SiteBags(bags, "north").entries[0].path
    moved.rename(moved.with_suffix(".away"))
    with pytest.raises(DataError, match=r"data\.bags: these are not the bags, as they were"):
        run(bags, tmp_path, ONE_HOST, "run.resume=true", f"run.dir={tmp_path}")
    moved.with_suffix(".away").rename(moved)
    summary, news = run(bags, tmp_path, ONE_HOST, "run.resume=true", f"run.dir={tmp_path}")
    assert len(news) < 3
    assert summary["digest"] == whole[1]["digest"]
    assert summary["sites"] == whole[1]["sites"]
    assert timeless_metrics(tmp_path) == timeless_metrics(whole[0])


def timeless_metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    clocks = ("seconds", "time")
    return [{k: v for k, v in json.loads(x).items() if k not in clocks} for x in lines]


def test_a_site_whose_actor_dies_is_lost_and_the_others_go_on(
    bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = train_module.Crew

    def start_and_kill(*args: Any) -> Crew:
        crew = original(*args)
        ray.kill(crew.actors[1])
        return crew

    monkeypatch.setattr(train_module, "Crew", start_and_kill)
    words = ["resources.sites_per_actor=2", "resources.site_restarts=0"]
    summary, news = run(bag_root, tmp_path, *words)
    assert [n.num_alive for n in news] == [2, 2, 2]
    assert (summary["status"], summary["exit_code"]) == ("degraded", 3)
    assert [loss["site"] for loss in summary["lost_sites"]] == ["south"]
    assert "died" in summary["lost_sites"][0]["reason"]
    # Going on with a finished run does not make its losses undone.
    words += ["run.resume=true", f"run.dir={tmp_path}"]
    monkeypatch.setattr(train_module, "Crew", original)
    again, news = run(bag_root, tmp_path, *words)
    assert not news
    assert again["lost_sites"] == summary["lost_sites"]
    assert again["exit_code"] == 3
    assert {s["site"] for s in summary["sites"] if s["test_last"] is not None} == {"north", "west"}
