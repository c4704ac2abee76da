"""Which sites train together, and which one by one, with the very bits of plain training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_cohorts import (
    ALONE,
    BINARY,
    DIM,
    alone,
    assert_alike,
    assert_same,
    compare,
    network,
    some_bags,
    some_jobs,
)

from rayfed_hn.config import TrainingConfig
from rayfed_hn.models import cohort
from rayfed_hn.models.cohort import groups, train_cohort
from rayfed_hn.models.labelled_bag import LabelledBag

# -- groups ------------------------------------------------------------------------------------


def test_groups_stay_within_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, config = network(), TrainingConfig(optimiser="momentum")
    jobs = some_jobs(model, num=7)
    whole = train_cohort(model, jobs, config, task=BINARY)
    limit = 2.5 * cohort._bytes_of_a_site(model, 41)  # two of the longest, more of shorter ones
    monkeypatch.setattr(cohort, "GROUP_BYTES", limit)
    found = groups(model, jobs, config)
    assert sorted(i for group in found for i in group) == list(range(7))
    assert len(found) > 1
    for group in found:
        longest = max(len(bag) for i in group for bag in jobs[i].bags)
        assert len(group) * cohort._bytes_of_a_site(model, longest) <= limit
    for ours, expected in zip(train_cohort(model, jobs, config, task=BINARY), whole, strict=True):
        assert_alike(model, ours, expected)


def test_a_site_too_large_for_a_group_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "GROUP_BYTES", 1)
    model, config = network(), TrainingConfig()
    jobs = some_jobs(model)
    assert [len(group) for group in groups(model, jobs, config)] == [1, 1, 1, 1]
    for ours, job in zip(train_cohort(model, jobs, config, task=BINARY), jobs, strict=True):
        assert_same(ours, alone(model, job, config))


def test_a_limit_of_tiles_makes_groups_larger() -> None:
    model, huge = network(), np.zeros((4_000_000, DIM), np.float32)
    jobs = [replace(job, bags=[LabelledBag(huge, 0)]) for job in some_jobs(model)]
    assert len(groups(model, jobs, TrainingConfig())) > 1
    assert len(groups(model, jobs, TrainingConfig(max_instances=1000))) == 1


# -- one by one --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALONE)
def test_other_models_train_one_by_one(name: Any) -> None:
    model, config = network(name), TrainingConfig(clip_gradient=1.0)
    jobs = some_jobs(model, proximal_mu=0.1)
    for ours, job in zip(train_cohort(model, jobs, config, task=BINARY), jobs, strict=True):
        assert_same(ours, alone(model, job, config))


def test_sites_that_may_stop_early_train_one_by_one() -> None:
    model, config = network(), TrainingConfig(patience=1, look_every=2)
    jobs = some_jobs(model, num_steps=30, validation=some_bags(9, BINARY))
    found = train_cohort(model, jobs, config, task=BINARY)
    assert min(trained.num_steps for trained in found) < 30
    for ours, job in zip(found, jobs, strict=True):
        assert_same(ours, alone(model, job, config))


def test_patience_without_validation_bags_is_no_reason() -> None:
    model = network()
    compare(model, some_jobs(model), TrainingConfig(optimiser="momentum", patience=1))


def test_one_job_is_plain_training_and_none_is_nothing() -> None:
    model, config = network(), TrainingConfig()
    (job,) = some_jobs(model, num=1)
    (ours,) = train_cohort(model, [job], config, task=BINARY)
    assert_same(ours, alone(model, job, config))
    assert train_cohort(model, [], config, task=BINARY) == []
