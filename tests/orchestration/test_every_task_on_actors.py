"""Every model, task and method on actors against the same runs in process.

The sites of all runs live on two actors, so that no time goes into starting them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import cloudpickle
from tiny_federations import (
    METHODS,
    SHORT,
    TASK_WORDS,
    assert_equal_outcomes,
    outcome_for,
    plan_for,
)

from rayfed_hn.federation.experiment import Outcome, finish, prepare, run_in_process
from rayfed_hn.federation.loop import run_federation
from rayfed_hn.federation.messages import Request
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.results import site_rows
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.loading import load
from rayfed_hn.models.registry import MODELS
from rayfed_hn.orchestration.executor import RayExecutor
from rayfed_hn.orchestration.train import train

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
SHARES = (("a", "c"), ("b",))  # sites of the two actors


class Hosts:
    """The sites of many runs."""

    def __init__(self) -> None:
        self.hosts: dict[int, SiteHost] = {}

    def open(self, run: int, plan: Plan, names: Sequence[str]) -> None:
        self.hosts[run] = SiteHost(plan, names)

    @ray.method(num_returns="streaming")
    def answers(self, run: int, requests: Sequence[Request]) -> Iterator[list[np.ndarray]]:
        yield from self.hosts[run].answers(requests)


class OfOneRun:
    """An actor as the executor knows it: with the method ``answers.remote(requests)``."""

    def __init__(self, actor: Any, run: int) -> None:
        self.answers, self.actor, self.run = self, actor, run

    def remote(self, requests: Sequence[Request]) -> Any:
        return self.actor.answers.remote(self.run, requests)


@pytest.fixture(scope="module")
def actors(ray_session: None) -> Any:
    # Workers cannot import test modules.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    made: list[Any] = [ray.remote(num_cpus=0)(Hosts).remote() for _ in SHARES]
    yield made
    for actor in made:
        ray.kill(actor)


def run_on(actors: Sequence[Any], plan: Plan, run: int) -> Outcome:
    shares = [(OfOneRun(actor, run), names) for actor, names in zip(actors, SHARES, strict=True)]
    hosts: Mapping[str, Any] = {name: host for host, names in shares for name in names}
    for actor, names in zip(actors, SHARES, strict=True):
        actor.open.remote(run, plan, names)  # calls of one caller keep their order
    server, executor = plan.server(), plan.executor(RayExecutor(hosts))
    prepare(plan, server, executor)
    assert len(list(run_federation(server, executor))) == plan.config.rounds.num_versions
    return finish(plan, server, executor)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", TASK_WORDS)
def test_actors_and_process_end_in_the_same_bits(
    tasks_root: Path, actors: Sequence[Any], model: str, task: str
) -> None:
    for method in METHODS:
        run = list(product(MODELS, TASK_WORDS, METHODS)).index((model, task, method))
        plan = plan_for(tasks_root, model, task, method)
        found = run_on(actors, plan, run)
        assert_equal_outcomes(found, outcome_for(tasks_root, model, task, method))


@pytest.mark.parametrize("task", ["survival", "multiclass", "binary"])
def test_a_whole_run_on_actors_is_the_run_in_process(
    tasks_root: Path, tmp_path: Path, task: str
) -> None:
    words = [*SHORT, *TASK_WORDS[task], "training.schedule=linear", "resources.sites_per_actor=9"]
    words += ["training.instance_dropout=0.3", "training.max_instances=3"]
    config = load(None, words)
    plan = make_plan(config, tasks_root)
    outcome = run_in_process(plan)
    summary = train(config, tasks_root, tmp_path, lambda news: None)
    assert summary["digest"] == outcome.digest
    metrics = {"survival": "C-index", "multiclass": "macro AUC", "binary": "AUC"}
    assert (summary["task"], summary["metric"]) == (task, metrics[task])
    # The binary run leaves out the bags of the third class, and says so.
    assert (summary["status"], summary["exit_code"]) == (
        ("degraded", 3) if task == "binary" else ("complete", 0)
    )
    reasons = {why["site"]: why["reason"] for why in summary["set_aside"]}
    left_out = dict.fromkeys("abc", "3 of its bags have none of the labels 0, 1, but '2' (3)")
    assert reasons == (left_out if task == "binary" else {})
    assert summary["classes"] == list(plan.task.names)
    quantiles = [words for words in summary["released_without_noise"] if "quantiles" in words]
    assert len(quantiles) == (task == "survival")
    values = {
        (row["site"], row["readout"]): row["value"] for row in site_rows(plan, outcome.scores)
    }
    for site in summary["sites"]:
        for readout in ("last", "best", "mixture"):
            assert site[f"test_{readout}"] == values[site["site"], readout]
    assert any(value is not None for value in values.values())
