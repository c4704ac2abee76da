"""Every model trains for every task under the methods that treat sites differently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_federations import (
    METHODS,
    TASK_WORDS,
    assert_equal_outcomes,
    outcome_for,
    plan_for,
    plan_of,
)

from rayfed_hn.federation.experiment import Outcome, run_in_process
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.results import score_records, site_rows
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import MODELS

NUM_EVIDENCE = {"binary": 1, "multiclass": 3, "ordinal": 2, "survival": 1}
NUM_PREDICTIONS = {"binary": 1, "multiclass": 3, "ordinal": 3, "survival": 1}


def assert_trained(plan: Plan, outcome: Outcome) -> None:
    """Every site's network is finite and another one than at the start, its classifier too."""
    initial = plan.initial().numpy()
    places = ParameterLayout.of(plan.model()).places()
    ends = [place for name, place in places if name.startswith("classifier.")]
    for site in outcome.server.sites:
        theta = outcome.server.parameters_for(site)
        assert np.isfinite(theta).all()
        assert any(not np.array_equal(theta[place], initial[place]) for place in ends)


def assert_scored(plan: Plan, outcome: Outcome, task: str) -> None:
    assert [scores.site for scores in outcome.scores] == ["a", "b", "c"]
    for scores in outcome.scores:
        num_test = plan.num_bags[scores.site][2]
        assert num_test >= 2
        for readout in ("last_BE", "best_BE", "mixture_BE"):
            evidence_BE = getattr(scores, readout)
            assert evidence_BE.shape == (num_test, NUM_EVIDENCE[task])
            assert np.isfinite(evidence_BE).all()
            assert plan.task.predict(evidence_BE).shape == (num_test, NUM_PREDICTIONS[task])
            assert len(np.unique(evidence_BE[:, 0])) > 1  # of the bag, not of the bias alone
    assert len(site_rows(plan, outcome.scores)) == 3 * 3
    records = score_records(plan, outcome.scores)
    assert len(records) == 2 * 3 * sum(plan.num_bags[s][2] for s in plan.hospitals)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", TASK_WORDS)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_for_every_task(
    tasks_root: Path, model: str, task: str, method: str
) -> None:
    plan = plan_for(tasks_root, model, task, method)
    outcome = outcome_for(tasks_root, model, task, method)
    assert not outcome.lost
    assert plan.task.kind == task
    assert_trained(plan, outcome)
    assert_scored(plan, outcome, task)


@pytest.mark.parametrize(("model", "task"), list(zip(MODELS, [*TASK_WORDS] * 2, strict=True)))
def test_a_run_repeats_to_the_bit(tasks_root: Path, model: str, task: str) -> None:
    for method in METHODS[::3]:
        again = run_in_process(plan_for(tasks_root, model, task, method))
        assert_equal_outcomes(again, outcome_for(tasks_root, model, task, method))


METHODS_BESIDE = ["fedprox", "fedper", "pfedhn_pc", "fedavg_ft", "hypernetwork_ft", "pooled"]


@pytest.mark.parametrize("task", TASK_WORDS)
@pytest.mark.parametrize("method", METHODS_BESIDE)
def test_the_other_methods_train_for_every_task(tasks_root: Path, method: str, task: str) -> None:
    plan = plan_for(tasks_root, "gated_attention", task, method)
    outcome = run_in_process(plan)
    assert not outcome.lost
    assert {row["site"] for row in site_rows(plan, outcome.scores)} == {"a", "b", "c"}
    bags = sum(len(scores.label_B) for scores in outcome.scores)
    assert bags == sum(num_test for _, _, num_test in plan.num_bags.values())


@pytest.mark.parametrize("task", TASK_WORDS)
@pytest.mark.parametrize(
    "words",
    [
        ["rounds.buffer_size=1", "simulation.enabled=true"],
        ["rounds.cohort_size=2"],
        ["hypernetwork.estimate=rho"],
        ["privacy.noise_scale=0.1"],
        ["evaluation.readout=best", "training.patience=1", "training.look_every=1"],
        ["training.keep_optimiser=true", "training.schedule=cosine"],
    ],
    ids=str,
)
def test_every_task_goes_with_the_other_settings(
    tasks_root: Path, task: str, words: list[str]
) -> None:
    outcome = run_in_process(plan := plan_of(tasks_root, *TASK_WORDS[task], *words))
    assert not outcome.lost
    assert_scored_readouts(plan, outcome)


def assert_scored_readouts(plan: Plan, outcome: Outcome) -> None:
    rows: list[dict[str, Any]] = site_rows(plan, outcome.scores)
    assert {row["readout"] for row in rows} >= {"last", "best"}
    assert all(row["num_test"] == plan.num_bags[row["site"]][2] for row in rows)
    assert all(torch.isfinite(t).all() for t in outcome.server.state().values())
