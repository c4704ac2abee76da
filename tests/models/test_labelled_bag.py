"""A bag of several slides is the bag of all their instances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.config import ModelConfig, TrainingConfig
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import MODELS, initial_parameters, make_model
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.standardise import Standardisation
from rayfed_hn.models.tasks import Binary, Ordinal, Survival
from rayfed_hn.models.training import train_locally

DIM = 3
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def instances(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, DIM)).astype(np.float32)


def divided(features_ND: np.ndarray, sizes: list[int], **about: Any) -> LabelledBag:
    parts = np.split(features_ND, np.cumsum(sizes)[:-1])
    return LabelledBag(parts[0], 1, more=tuple(parts[1:]), **about)


@given(SIZES, st.booleans(), st.data())
def test_rows_are_drawn_across_slides(sizes: list[int], scaled: bool, data: st.DataObject) -> None:
    whole_ND = instances(sum(sizes))
    scale = Standardisation(np.full(DIM, 0.5), np.full(DIM, 2.0)) if scaled else None
    bag = divided(whole_ND, sizes, standardisation=scale)
    assert len(bag) == sum(sizes)
    rows = data.draw(st.none() | st.sets(st.integers(0, len(bag) - 1), min_size=1))
    chosen = None if rows is None else np.array(sorted(rows))
    expected = torch.tensor(whole_ND if chosen is None else whole_ND[chosen])
    expected = expected if scale is None else scale.apply(expected)
    assert torch.equal(bag.tensor(rows=chosen), expected)


TASKS = (
    Binary(("0", "1")),
    Ordinal(("0", "1", "2")),
    Survival(("0", "1", "2"), cuts=(1.0, 2.0)),
)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_networks_see_no_border_between_slides(name: Any, task: Any) -> None:
    config = ModelConfig(name=name, hidden_dim=5, attention_dim=4)
    model = make_model(DIM, task.num_outputs, config)
    theta = initial_parameters(ParameterLayout.of(model), 1)
    parts = [[2, 3, 1], [4, 2], [6]]
    united = [divided(instances(6, seed), sizes) for seed, sizes in enumerate(parts)]
    whole = [LabelledBag(instances(6, seed), 1) for seed in range(3)]
    found, expected = (score_bags(model, theta, bags, task) for bags in (united, whole))
    np.testing.assert_array_equal(found.evidence_BE, expected.evidence_BE)
    assert found.loss == expected.loss
    training = TrainingConfig(max_instances=4, instance_dropout=0.2)
    call: Any = {"task": task, "learning_rate": 0.05, "num_steps": 5, "seed": 3}
    one, other = (train_locally(model, theta, bags, training, **call) for bags in (united, whole))
    assert torch.equal(one.parameters, other.parameters)
    assert not torch.equal(one.parameters, theta)
