"""Smoothing, schedules and instances that are left out, against their formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call

from rayfed_hn.config import ModelConfig, TrainingConfig
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.masks import CpuMasks
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import initial_parameters, make_model
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.tasks import Multiclass, Survival, Task
from rayfed_hn.models.training import Trained, draw_bags, draw_rows, rate_factor, train_locally
from rayfed_hn.seeds import derive

CLASSES = Multiclass(("a", "b", "c"))
TIMES = Survival(("0", "1", "2"), cuts=(1.0, 2.0))
MODEL = make_model(6, 3, ModelConfig(hidden_dim=5, attention_dim=4))
LAYOUT = ParameterLayout.of(MODEL)
START = initial_parameters(LAYOUT, seed=1)


def some_bags(seed: int = 0) -> list[LabelledBag]:
    rng = np.random.default_rng(seed)
    return [
        LabelledBag(rng.normal(size=(3 + i, 6)).astype(np.float32), i % 3, event=i == 4)
        for i in range(6)
    ]


BAGS = some_bags()


def train(task: Task = CLASSES, *, seed: int = 3, steps: int = 12, **options: Any) -> Trained:
    call: Any = {"learning_rate": 0.05, "num_steps": steps, "seed": seed}
    return train_locally(MODEL, START, BAGS, TrainingConfig(**options), task=task, **call)


def by_hand(smoothing: float, dropout: float, limit: int | None) -> torch.Tensor:
    """Plain SGD over named tensors, with instances drawn as ``draw_rows`` says."""
    config = TrainingConfig(instance_dropout=dropout, max_instances=limit)
    named = {k: v.clone().requires_grad_(True) for k, v in LAYOUT.unflatten(START).items()}
    stepper = torch.optim.SGD(named.values(), lr=0.05)
    masks = CpuMasks(3)
    rows = np.random.Generator(np.random.Philox(derive(3, "instances")))
    labels = [bag.label for bag in BAGS]
    for index in draw_bags(labels, 12, class_balanced=True, seed=3):
        features_ND = torch.tensor(BAGS[index].features_ND)
        chosen = draw_rows(len(features_ND), config, rows)
        features_ND = features_ND if chosen is None else features_ND[torch.tensor(chosen)]
        logits_O, _ = functional_call(MODEL, named, (features_ND, masks))
        target = torch.full((3,), smoothing / 3)
        target[labels[index]] += 1 - smoothing
        stepper.zero_grad()
        F.cross_entropy(logits_O, target).backward()
        stepper.step()
    return LAYOUT.flatten(named)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("limit", [None, 2])
def test_options_of_a_step_are_their_formulas(
    smoothing: float, dropout: float, limit: int | None
) -> None:
    ours = train(
        optimiser="sgd",
        weight_decay=0.0,
        label_smoothing=smoothing,
        instance_dropout=dropout,
        max_instances=limit,
    )
    torch.testing.assert_close(ours.parameters, by_hand(smoothing, dropout, limit))
    if smoothing or dropout or limit:
        assert not torch.allclose(ours.parameters, by_hand(0.0, 0.0, None), atol=1e-4)


def smoothed_loss(theta: torch.Tensor, bags: list[LabelledBag], smoothing: float) -> float:
    tensors, losses = LAYOUT.unflatten(theta), []
    for bag in bags:
        logits_O, _ = functional_call(MODEL, tensors, (bag.tensor(),))
        losses.append(CLASSES.target(bag, smoothing).loss(logits_O).item())
    return float(np.mean(losses))


def test_what_validates_is_not_smoothed() -> None:
    # The network that patience keeps is the one with the smallest loss of the labels themselves.
    bags, options = some_bags(1), {"label_smoothing": 0.7, "optimiser": "adam"}
    config: Any = TrainingConfig(patience=50, look_every=2, **options)
    call: Any = {"task": CLASSES, "learning_rate": 0.05, "seed": 3, "validation": bags}
    kept = train_locally(MODEL, START, BAGS, config, num_steps=40, **call)
    seen = [train(steps=steps, **options).parameters for steps in range(2, 41, 2)]
    losses = [score_bags(MODEL, theta, bags, CLASSES).loss for theta in seen]
    assert torch.equal(kept.parameters, seen[int(np.argmin(losses))])
    assert np.argmin(losses) != np.argmin([smoothed_loss(theta, bags, 0.7) for theta in seen])


def test_balance_is_of_events_under_survival(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bool] = []
    original = Survival.target

    def spy(self: Survival, bag: LabelledBag, smoothing: float = 0.0) -> Any:
        drawn.append(bag.event)
        return original(self, bag, smoothing)

    monkeypatch.setattr(Survival, "target", spy)
    for balanced, share in ((True, 1 / 2), (False, 1 / 6)):
        drawn.clear()
        train(TIMES, steps=400, class_balanced=balanced)
        assert np.mean(drawn) == pytest.approx(share, abs=0.08)


# -- instances ---------------------------------------------------------------------------------


@given(
    st.integers(1, 30),
    st.floats(0, 0.95),
    st.none() | st.integers(1, 12),
    st.integers(0, 2**32),
)
def test_some_instances_stay_in_their_order(
    num: int, dropout: float, limit: int | None, seed: int
) -> None:
    config = TrainingConfig(instance_dropout=dropout, max_instances=limit)
    rows = draw_rows(num, config, np.random.default_rng(seed))
    if rows is None:
        assert limit is None or num <= limit
        return
    assert 1 <= len(rows) <= min(num - 1, limit or num)
    assert rows.dtype == np.int64
    assert (np.diff(rows) > 0).all()
    assert rows[0] >= 0
    assert rows[-1] < num


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.95])
def test_every_instance_stays_as_often_as_it_should(dropout: float) -> None:
    config, rng, num = TrainingConfig(instance_dropout=dropout), np.random.default_rng(0), 40
    kept = np.zeros(num)
    for _ in range(2000):
        rows = draw_rows(num, config, rng)
        kept[slice(None) if rows is None else rows] += 1
    # Where all were to go, one stays: dropout^num of the draws, 1 of num instances.
    expected = 1 - dropout + dropout**num / num
    np.testing.assert_allclose(kept / 2000, expected, atol=0.05)
    assert kept.mean() / 2000 == pytest.approx(expected, abs=0.005)


def test_a_limit_alone_draws_as_it_did_before_there_was_dropout() -> None:
    config = TrainingConfig(max_instances=4)
    for seed in range(20):
        expected = np.random.default_rng(seed).choice(9, size=4, replace=False)
        found = draw_rows(9, config, np.random.default_rng(seed))
        assert found is not None
        assert found.tolist() == sorted(expected.tolist())


def test_the_limit_is_of_those_that_dropout_leaves() -> None:
    both = TrainingConfig(instance_dropout=0.5, max_instances=3)
    for seed in range(50):
        left = draw_rows(10, TrainingConfig(instance_dropout=0.5), np.random.default_rng(seed))
        drawn = draw_rows(10, both, np.random.default_rng(seed))
        assert left is not None
        assert drawn is not None
        assert set(drawn) <= set(left)
        assert len(drawn) == min(3, len(left))


@pytest.mark.parametrize("options", [{"instance_dropout": 0.4}, {"label_smoothing": 0.2}], ids=str)
def test_options_repeat_with_the_seed(options: dict[str, Any]) -> None:
    one = train(**options).parameters
    assert torch.equal(train(**options).parameters, one)
    assert not torch.equal(train(**options, seed=4).parameters, one)
    assert not torch.equal(train().parameters, one)


# -- schedules ---------------------------------------------------------------------------------


@given(st.integers(1, 500), st.data())
def test_schedules_are_their_formulas(num_versions: int, data: st.DataObject) -> None:
    version = data.draw(st.integers(0, num_versions - 1))
    progress = version / num_versions
    constant, linear, cosine = (
        rate_factor(TrainingConfig(schedule=name), progress)
        for name in ("constant", "linear", "cosine")
    )
    assert constant == 1
    assert linear == pytest.approx((num_versions - version) / num_versions)
    assert cosine == pytest.approx(math.cos(math.pi * progress / 2) ** 2)
    assert 0 < linear <= 1
    assert 0 < cosine <= 1
    assert (linear == 1) == (cosine == 1) == (version == 0)
