"""Sites that train together end as each would alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_cohorts import (
    BINARY,
    OPTIMISERS,
    SURVIVAL,
    TASKS,
    TOGETHER,
    alone,
    assert_alike,
    compare,
    network,
    some_jobs,
)

from rayfed_hn.config import TrainingConfig
from rayfed_hn.models.cohort import train_cohort
from rayfed_hn.models.tasks import Task

# -- equal to one-by-one -----------------------------------------------------------------------


@pytest.mark.parametrize("name", TOGETHER)
@OPTIMISERS
def test_a_cohort_ends_as_its_sites_do_alone(name: Any, optimiser: Any) -> None:
    model = network(name)
    config = TrainingConfig(optimiser=optimiser, weight_decay=0.01, keep_optimiser=True)
    jobs = some_jobs(model)
    found = compare(model, jobs, config)
    for ours, job in zip(found, jobs, strict=True):
        assert (ours.parameters - job.parameters).norm() > 0.02  # else this would show nothing


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_every_task(name: Any, task: Task) -> None:
    model = network(name, task)
    smoothing = 0.0 if task is SURVIVAL else 0.1
    config = TrainingConfig(optimiser="momentum", label_smoothing=smoothing)
    compare(model, some_jobs(model, task), config, task)


@OPTIMISERS
def test_sites_with_fewer_steps_stop(optimiser: Any) -> None:
    model = network()
    jobs = [
        replace(job, num_steps=n) for job, n in zip(some_jobs(model), (3, 0, 7, 3), strict=True)
    ]
    found = compare(model, jobs, TrainingConfig(optimiser=optimiser, keep_optimiser=True))
    assert [trained.num_steps for trained in found] == [3, 0, 7, 3]
    assert torch.equal(found[1].parameters, jobs[1].parameters)


def test_nobody_takes_a_step() -> None:
    model = network()
    jobs = some_jobs(model, num_steps=0)
    for ours, job in zip(compare(model, jobs, TrainingConfig()), jobs, strict=True):
        assert torch.equal(ours.parameters, job.parameters)


@OPTIMISERS
def test_sites_have_their_own_rates_and_proximal_terms(optimiser: Any) -> None:
    model = network()
    rates, pulls = (0.05, 0.01, 0.05, 0.002), (0.0, 1.5, 0.5, 0.0)
    jobs = [
        replace(job, learning_rate=rate, proximal_mu=mu)
        for job, rate, mu in zip(some_jobs(model), rates, pulls, strict=True)
    ]
    compare(model, jobs, TrainingConfig(optimiser=optimiser))


@pytest.mark.parametrize("limit", [0.05, 0.4, 1e6])
def test_clipping_is_of_every_site_apart(limit: float) -> None:
    model = network()
    jobs = some_jobs(model, proximal_mu=0.5)
    compare(model, jobs, TrainingConfig(optimiser="momentum", clip_gradient=limit))


@OPTIMISERS
def test_moments_go_on_also_beside_sites_that_start_afresh(optimiser: Any) -> None:
    model = network()
    config = TrainingConfig(optimiser=optimiser, keep_optimiser=True)
    jobs = some_jobs(model)
    before = [alone(model, replace(job, num_steps=2 + s), config) for s, job in enumerate(jobs)]
    kept = [
        replace(job, parameters=done.parameters, moments=done.moments)
        for job, done in zip(jobs, before, strict=True)
    ]
    copies = [{name: value.clone() for name, value in done.moments.items()} for done in before]
    compare(model, [kept[0], jobs[1], kept[2], kept[3]], config)
    for done, copied in zip(before, copies, strict=True):
        for name, value in copied.items():
            assert torch.equal(done.moments[name], value), "what was passed in has changed"


@pytest.mark.parametrize("tiles", [{"instance_dropout": 0.4}, {"max_instances": 3}])
def test_tiles_are_left_out_as_alone(tiles: dict[str, Any]) -> None:
    model = network()
    compare(model, some_jobs(model), TrainingConfig(optimiser="momentum", **tiles))


@pytest.mark.parametrize("name", TOGETHER)
def test_without_dropout(name: Any) -> None:
    model = network(name, dropout=0.0)
    compare(model, some_jobs(model), TrainingConfig(optimiser="momentum"))


def test_moments_come_back_only_where_they_are_kept() -> None:
    model = network()
    for keep in (True, False):
        found = train_cohort(
            model, some_jobs(model), TrainingConfig(keep_optimiser=keep), task=BINARY
        )
        assert all(bool(trained.moments) == keep for trained in found)


# -- independence ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOGETHER)
def test_a_site_does_not_depend_on_who_else_is_there(name: Any) -> None:
    model, config = network(name), TrainingConfig(optimiser="momentum")
    first, second, *others = some_jobs(model, num=5)
    few, many = (
        train_cohort(model, jobs, config, task=BINARY)[0]
        for jobs in ([first, second], [first, *others])
    )
    assert_alike(model, few, many)


def test_a_site_whose_network_bursts_harms_nobody() -> None:
    model, config = network(), TrainingConfig(optimiser="momentum", clip_gradient=1.0)
    jobs = some_jobs(model)
    jobs[1] = replace(jobs[1], parameters=torch.full_like(jobs[1].parameters, float("nan")))
    found = train_cohort(model, jobs, config, task=BINARY)
    assert found[1].parameters.isnan().all()
    for s in (0, 2, 3):
        assert_alike(model, found[s], alone(model, jobs[s], config))


def test_the_order_of_the_jobs_is_that_of_what_is_returned() -> None:
    model, config = network(), TrainingConfig(optimiser="momentum")
    jobs = [
        replace(job, num_steps=n) for job, n in zip(some_jobs(model), (2, 5, 1, 4), strict=True)
    ]
    there = train_cohort(model, jobs, config, task=BINARY)
    back = train_cohort(model, jobs[::-1], config, task=BINARY)[::-1]
    for ours, other in zip(there, back, strict=True):
        assert_alike(model, ours, other)


def test_what_is_returned_is_a_sites_own_memory() -> None:
    model = network()
    jobs = some_jobs(model)
    received = [job.parameters.clone() for job in jobs]
    for trained in train_cohort(model, jobs, TrainingConfig(), task=BINARY):
        assert trained.parameters.untyped_storage().nbytes() == 4 * len(trained.parameters)
    for job, before in zip(jobs, received, strict=True):
        assert torch.equal(job.parameters, before)


# -- on a GPU ----------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", TOGETHER)
@OPTIMISERS
def test_on_a_gpu(name: Any, optimiser: Any) -> None:
    model = network(name)
    config = TrainingConfig(optimiser=optimiser, weight_decay=0.01, keep_optimiser=True)
    jobs = [
        replace(job, num_steps=3 + s) for s, job in enumerate(some_jobs(model, proximal_mu=0.1))
    ]
    for _ in range(2):  # afresh, then going on from the moments
        found = train_cohort(model, jobs, config, task=BINARY, device="cuda")
        for s, (ours, job) in enumerate(zip(found, jobs, strict=True)):
            own = alone(model, job, config)
            on_gpu = train_cohort(model, [job], config, task=BINARY, device="cuda")[0]
            assert on_gpu.num_steps == own.num_steps
            assert_alike(model, ours, on_gpu, moments=True)
            jobs[s] = replace(job, parameters=ours.parameters, moments=ours.moments)
