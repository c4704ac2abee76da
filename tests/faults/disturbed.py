"""Runs on actors that something happens to, against the run in process that nothing happens to."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import killing
import pytest
import ray
from ray import cloudpickle

from rayfed_hn.federation.experiment import Outcome, run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.federation.results import site_rows
from rayfed_hn.loading import load
from rayfed_hn.orchestration import crew as crew_module
from rayfed_hn.orchestration.actors import Progress, _Centre, _Sites
from rayfed_hn.orchestration.train import train

SHORT = (
    *("rounds.num_versions=3", "training.steps=2", "training.learning_rate=0.01"),
    *("model.hidden_dim=5", "model.attention_dim=4", "hypernetwork.embedding_dim=3"),
    *("privacy.noise_scale=0.05", "privacy.noise_source=seeded", "resources.sites_per_actor=2"),
)
SHARED = "model.standardise=shared"  # sites are told of the scale, and forget it when they die
SIMULATED = ("simulation.enabled=true", "simulation.slowest=3")


@cache
def undisturbed(root: Path, *words: str) -> Outcome:
    return run_in_process(make_plan(load(None, [*SHORT, *words]), root))


def disturb(monkeypatch: pytest.MonkeyPatch, who: str, *how: Any) -> None:
    """Let what happens at a point of ``killing.arm`` happen to site actors or the central one."""
    cloudpickle.register_pickle_by_value(killing)
    name, base = ("SiteActor", _Sites) if who == "site" else ("CentralActor", _Centre)
    actor: Any = ray.remote(max_restarts=0, max_task_retries=0)(killing.armed(base, *how))
    monkeypatch.setattr(crew_module, name, actor)


def trained(root: Path, folder: Path, *words: str) -> tuple[dict[str, Any], list[Progress]]:
    folder.mkdir(exist_ok=True)
    news: list[Progress] = []
    config = load(None, [*SHORT, *words, f"run.dir={folder}"])
    return train(config, root, folder, news.append), news


def assert_undisturbed(summary: dict[str, Any], root: Path, *words: str) -> None:
    """The run ended as if nothing had happened: its state, and every site's scores."""
    plan = make_plan(load(None, [*SHORT, *words]), root)
    outcome = undisturbed(root, *words)
    assert summary["digest"] == outcome.digest
    assert (summary["status"], summary["exit_code"]) == ("complete", 0)
    values = {(r["site"], r["readout"]): r["value"] for r in site_rows(plan, outcome.scores)}
    found = {
        (site["site"], readout): site[f"test_{readout}"]
        for site in summary["sites"]
        for readout in ("last", "best", "mixture")
    }
    assert found == values
