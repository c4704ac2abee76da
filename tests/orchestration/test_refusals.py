"""Updates that are not taken, told wherever a run tells of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bags import make_bag

from rayfed_hn.bags import store
from rayfed_hn.federation.cell import Cell, run_cell
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load
from rayfed_hn.orchestration.train import train
from rayfed_hn.reporting.troubles import troubles
from rayfed_hn.verbs.common import print_troubles

pytestmark = pytest.mark.ray

WORDS = [
    "rounds.num_versions=4",
    "training.steps=4",
    "training.optimiser=sgd",
    "training.learning_rate=0.001",
    "model.standardise=none",
    "method.name=fedavg",
    "evaluation.readout=last",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sites, of which one has features in another unit, so that its gradients are huge."""
    root = tmp_path_factory.mktemp("units")
    rng = np.random.default_rng(7)
    store.create(root, {"encoder": "test", "feature_dim": 12})
    for number, site in enumerate(("east", "north", "south", "west")):
        for i in range(10):
            bag = make_bag(rng, site, i, number)
            unit = np.float32(1e5 if site == "west" else 1)
            store.write(root, replace(bag, features_ND=unit * bag.features_ND))
    return root


def events(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.usefixtures("ray_session")
def test_a_run_tells_what_it_did_not_take(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load(None, WORDS)
    summary = train(config, root, tmp_path, lambda news: None)
    assert (summary["status"], summary["exit_code"]) == ("degraded", 3)
    refused = summary["refused"]
    assert [(r["site"], r["version"]) for r in refused] == [("west", 0), ("west", 1), ("west", 2)]
    assert all(r["reason"].startswith("norm ") for r in refused)
    assert summary["num_refused"] == 0  # of age
    assert [(loss["site"], loss["version"]) for loss in summary["lost_sites"]] == [("west", 2)]
    by_site = {row["site"]: row["num_updates"] for row in summary["sites"]}
    assert by_site == {"east": 4, "north": 4, "south": 4, "west": 0}
    told = [e for e in events(tmp_path) if e["event"] == "screened"]
    assert [(e["site"], e["version"], e["turn"], e["made"]) for e in told] == [
        ("west", 0, 0, 1),
        ("west", 1, 1, 2),
        ("west", 2, 2, 3),
    ]
    metrics = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {m["site"] for m in metrics} == {"east", "north", "south"}
    assert summary["digest"] == run_in_process(make_plan(config, root)).digest
    last = refused[-1]["reason"]
    print_troubles(summary)
    says = f"refused: 3 of the updates of site west, the last one at version 2: {last}"
    assert says in capsys.readouterr().out
    assert f"west: 3 updates were refused, the last one at version 2: {last}" in troubles(summary)


def test_a_cell_of_a_comparison_tells_too(root: Path) -> None:
    result = run_cell(Cell("fedavg", 0, 0), load(None, WORDS), root)
    assert [(r["method"], r["site"], r["version"]) for r in result["refused"]] == [
        ("fedavg", "west", version) for version in (0, 1, 2)
    ]
    (line, *_) = troubles({"refused": result["refused"]})
    assert line.startswith("west: 3 updates were refused in fedavg, seed 0, fold 0, the last one")


def test_nothing_is_refused_without_being_asked_to(root: Path) -> None:
    result = run_cell(Cell("fedavg", 0, 0), load(None, [*WORDS, "rounds.norm_factor=null"]), root)
    assert result["refused"] == []
    assert result["lost"] == []
