"""Asynchronous rounds on actors: in simulated time and in the order of an earlier run."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from tiny_bags import make_bag

from rayfed_hn.bags import store
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.messages import Request
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.loading import load
from rayfed_hn.orchestration import crew as crew_module
from rayfed_hn.orchestration.actors import _Sites
from rayfed_hn.orchestration.train import train

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
SHORT = ["training.steps=2", "training.learning_rate=0.01", "rounds.num_versions=12"]
ASYNC = [*SHORT, "rounds.buffer_size=2", "rounds.max_staleness=4"]
SIMULATED = [*ASYNC, "simulation.enabled=true", "simulation.slowest=6", "simulation.dropout=0.1"]


@pytest.fixture(scope="module")
def five_sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("five")
    rng = np.random.default_rng(5)
    store.create(root, {"encoder": "test", "feature_dim": 12})
    for number, site in enumerate("abcde"):
        for i in range(10):
            store.write(root, make_bag(rng, site, i, number))
    return root


@pytest.fixture
def slow_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer takes a while that nothing decides."""

    class Slow(_Sites):
        @ray.method(num_returns="streaming")
        def answers(self, requests: Sequence[Request]) -> Iterator[list[np.ndarray]]:
            for request in requests:
                time.sleep(random.SystemRandom().uniform(0, 0.03))
                yield from self._host.answers([request])

    actor: Any = ray.remote(max_restarts=0, max_task_retries=0)(Slow)
    monkeypatch.setattr(crew_module, "SiteActor", actor)


def trained(root: Path, folder: Path, words: Sequence[str]) -> dict[str, Any]:
    folder.mkdir()
    return train(load(None, [*words]), root, folder, lambda news: None)


def planned(root: Path, words: Sequence[str]) -> Plan:
    return make_plan(load(None, [*words]), root)


@pytest.mark.parametrize("method", ["hypernetwork", "fedper"])
@pytest.mark.usefixtures("slow_sites")
def test_simulated_time_does_not_depend_on_workers_or_packing(
    five_sites: Path, tmp_path: Path, method: str
) -> None:
    words = [*SIMULATED, f"method.name={method}"]
    expected = run_in_process(planned(five_sites, words))
    for each in (5, 2) if method == "hypernetwork" else (3,):
        where = tmp_path / str(each)
        summary = trained(five_sites, where, [*words, f"resources.sites_per_actor={each}"])
        assert summary["digest"] == expected.digest
        assert summary["clock_seconds"] == pytest.approx(expected.seconds, abs=1e-3)
        assert summary["busy_share"] == expected.busy_share
        updates = {site["site"]: site["num_updates"] for site in summary["sites"]}
        assert updates == expected.server.num_updates
        assert summary["absences"] == len(expected.absences) > 0
        assert summary["status"] == "complete"  # who came back was not lost


@pytest.mark.usefixtures("slow_sites")
def test_a_run_in_real_time_can_be_replayed_without_a_cluster(
    five_sites: Path, tmp_path: Path
) -> None:
    summary = trained(five_sites, tmp_path / "run", [*ASYNC, "resources.sites_per_actor=2"])
    assert summary["clock"] == "real"
    replay = f"rounds.replay={tmp_path / 'run' / 'events.jsonl'}"
    again = run_in_process(planned(five_sites, [*ASYNC, replay]))
    assert again.digest == summary["digest"]
