"""Private steps: what one patient can change, who takes part, and what noise is added."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rayfed_hn.config import ModelConfig, TrainingConfig
from rayfed_hn.models.cohort import Job, train_cohort
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.parameters import ParameterLayout, bind
from rayfed_hn.models.private_training import PrivateSteps, _drawn, train_privately
from rayfed_hn.models.registry import initial_parameters, make_model
from rayfed_hn.models.tasks import Binary
from rayfed_hn.models.training import Trained
from rayfed_hn.privacy.randomness import Randomness, Seeded

DIM = 5
TASK = Binary(("normal", "tumour"))
MODEL = make_model(DIM, TASK.num_outputs, ModelConfig(hidden_dim=6, attention_dim=4))
LAYOUT = ParameterLayout.of(MODEL)
THETA = initial_parameters(LAYOUT, 0)
PLAIN = TrainingConfig(optimiser="sgd", weight_decay=0.0, class_balanced=False)
RATE = 0.1
Patients = Mapping[int, Sequence[LabelledBag]]


class Silent:
    """No noise, so that what lies under it is seen."""

    def __init__(self, secret: int = 11) -> None:
        self._secret = secret

    def normal(self, size: int) -> np.ndarray:
        return np.zeros(size)

    def secret(self) -> int:
        return self._secret


def patients(count: int, slides: int = 1, scale: float = 1.0) -> dict[int, list[LabelledBag]]:
    rng = np.random.default_rng(5)

    def bag() -> LabelledBag:
        features = scale * rng.normal(size=(int(rng.integers(2, 7)), DIM))
        return LabelledBag(features.astype(np.float32), int(rng.integers(2)))

    return {1000 + i: [bag() for _ in range(slides)] for i in range(count)}


def train(who: Patients, **options: Any) -> Trained:
    config = options.pop("config", PLAIN)
    steps = options.pop("num_steps", 1)
    noise: Randomness = options.pop("noise", Silent())
    values = {"clip_norm": 1.0, "multiplier": 1.0, "sampling_rate": 1.0} | options
    private = PrivateSteps(who, values["clip_norm"], values["multiplier"],
                           values["sampling_rate"], noise)  # fmt: skip
    return train_privately(
        MODEL, THETA, private, config, task=TASK, learning_rate=RATE, num_steps=steps
    )


def summed(who: Patients, **options: Any) -> Tensor:
    """The sum of gradients that one step of SGD moved by."""
    expected = max(options.get("sampling_rate", 1.0) * len(who), 1.0)
    return (THETA - train(who, **options).parameters).double() / RATE * expected


def gradient(bags: Sequence[LabelledBag]) -> Tensor:
    """By hand: of the mean loss over the slides of a patient, without dropout."""
    network = bind(MODEL, THETA.clone(), trains=True)
    losses = [network.objective(bag.tensor(), TASK.target(bag, 0.0), None) for bag in bags]
    torch.stack(losses).mean().backward()
    return torch.cat([
        (torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in network.parameters()
    ])  # fmt: skip


@pytest.fixture(autouse=True)
def no_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients by hand have none."""
    for module in MODEL.modules():
        if hasattr(module, "dropout"):
            monkeypatch.setattr(module, "dropout", 0.0)


@pytest.mark.parametrize("slides", [1, 3])
def test_a_step_without_limit_or_noise_is_one_on_all_patients(slides: int) -> None:
    who = patients(4, slides)
    expected = torch.stack([gradient(bags) for bags in who.values()]).sum(dim=0)
    torch.testing.assert_close(summed(who, clip_norm=1e6), expected.double(), rtol=1e-3, atol=1e-4)


def test_every_patient_is_clipped_as_a_whole_over_slides_and_tensors() -> None:
    who, limit = patients(5, slides=2, scale=4.0), 0.05
    expected = torch.zeros(LAYOUT.size)
    for bags in who.values():
        own = gradient(bags)
        expected += own * min(1.0, limit / float(own.norm()))
    found = summed(who, clip_norm=limit)
    torch.testing.assert_close(found, expected.double(), rtol=1e-3, atol=1e-4)
    assert train(who, clip_norm=limit).clipped == 1.0
    assert train(who, clip_norm=1e6).clipped == 0.0


def test_signal_is_told_beside_the_noise_of_all_steps() -> None:
    """One patient, scaled down to the limit whenever it takes part, which it does now and then."""
    who, steps = patients(1), 12
    found = train(who, clip_norm=1e-3, multiplier=2.0, sampling_rate=0.4, num_steps=steps)
    private = PrivateSteps(who, 1e-3, 2.0, 0.4, Silent())
    times = sum(len(list(_drawn(private, Silent().secret(), step))) for step in range(steps))
    assert 0 < times < steps
    expected = math.sqrt(times / steps) / (2.0 * math.sqrt(LAYOUT.size))
    assert found.signal_to_noise == pytest.approx(expected, rel=1e-4)
    assert found.clipped == 1.0


def test_where_nobody_took_part_nothing_is_told() -> None:
    found = train(patients(2), sampling_rate=1e-9, num_steps=3)
    assert (found.signal_to_noise, found.clipped) == (None, None)


@settings(max_examples=25)
@given(
    count=st.integers(0, 6),
    scale=st.sampled_from([1e-3, 1.0, 1e3, math.inf]),
    rate=st.sampled_from([0.3, 0.7, 1.0]),
    secret=st.integers(0, 2**30),
)
def test_one_patient_more_moves_the_sum_by_no_more_than_the_limit(
    count: int, scale: float, rate: float, secret: int
) -> None:
    limit, others = 0.1, patients(count)
    features = np.full((3, DIM), np.float32(scale))
    more = others | {7: [LabelledBag(features, 1)]}
    options: dict[str, Any] = {"clip_norm": limit, "sampling_rate": rate, "noise": Silent(secret)}
    moved = summed(more, **options) - (summed(others, **options) if others else 0)
    assert float(moved.norm()) <= limit * (1 + 1e-4)  # of the arithmetic of this test


def test_a_patient_whose_gradient_is_no_number_adds_nothing() -> None:
    odd = {1: [LabelledBag(np.full((2, DIM), np.nan, np.float32), 1)]}
    assert torch.equal(train(odd).parameters, THETA)


def test_who_takes_part_does_not_depend_on_the_others() -> None:
    who = patients(30)
    alone = {k: summed({k: v}, sampling_rate=0.4, clip_norm=1e6) for k, v in who.items()}
    together = summed(who, sampling_rate=0.4, clip_norm=1e6)
    torch.testing.assert_close(together, sum(alone.values()), rtol=1e-3, atol=1e-4)
    taking = sum(bool(one.abs().max() > 1e-9) for one in alone.values())
    assert 0 < taking < 30


def test_dropout_of_one_patient_does_not_depend_on_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    who = patients(6)
    alone = sum(summed({key: bags}, clip_norm=1e6) for key, bags in who.items())
    torch.testing.assert_close(summed(who, clip_norm=1e6), alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_each_takes_part_with_the_stated_chance(rate: float) -> None:
    who, steps = patients(200), 20
    private = PrivateSteps(who, 1.0, 1.0, rate, Seeded(1))
    taken = [len(list(_drawn(private, 5, step))) for step in range(steps)]
    deviation = math.sqrt(rate * (1 - rate) * 200 * steps)
    assert abs(sum(taken) - rate * 200 * steps) < 4 * deviation
    assert len(set(taken)) > 3  # Poisson, not a batch of fixed size


@pytest.mark.parametrize(("count", "rate"), [(50, 0.2), (3, 0.1)])
def test_noise_has_the_stated_size_on_every_coordinate(count: int, rate: float) -> None:
    nobody = {key: [LabelledBag(np.full((2, DIM), np.nan, np.float32), 0)] for key in range(count)}
    options = {"sampling_rate": rate, "clip_norm": 0.5, "multiplier": 3.0}
    drawn = torch.stack([summed(nobody, noise=Seeded(seed), **options) for seed in range(40)])
    assert drawn.std().item() == pytest.approx(1.5, rel=0.05)
    assert bool((drawn.std(dim=0) > 0.5).all())


def test_noise_is_drawn_at_every_step_and_divided_by_who_is_expected() -> None:
    who = {key: [LabelledBag(np.full((2, DIM), np.nan, np.float32), 0)] for key in range(40)}
    found = train(who, noise=Seeded(2), num_steps=25, sampling_rate=0.5, clip_norm=2.0)
    moved = (found.parameters - THETA) / RATE
    assert moved.std().item() == pytest.approx(2.0 / 20 * 5, rel=0.15)


def test_the_same_secret_gives_the_same_training_and_another_another() -> None:
    who = patients(8)
    one, same, other = (
        train(who, noise=Seeded(seed), num_steps=3, sampling_rate=0.5).parameters
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_cohort_trains_private_sites_alone_and_in_the_same_bits() -> None:
    who = patients(6)
    config = TrainingConfig(class_balanced=False)
    bags = [bag for own in who.values() for bag in own]

    def job() -> Job:
        steps = PrivateSteps(who, 0.3, 1.0, 0.5, Seeded(4))
        return Job(THETA, bags, RATE, 5, seed=3, private=steps)

    alone = train(who, config=config, noise=Seeded(4), num_steps=5, sampling_rate=0.5,
                  clip_norm=0.3)  # fmt: skip
    plain = Job(THETA, bags, RATE, 5, seed=3)
    for trained in train_cohort(MODEL, [job(), plain, job()], config, task=TASK)[::2]:
        assert torch.equal(trained.parameters, alone.parameters)
        assert trained.signal_to_noise == alone.signal_to_noise


def test_a_kept_optimiser_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    who = patients(4)
    config = TrainingConfig(optimiser="momentum", weight_decay=0.0, keep_optimiser=True)
    first = train(who, config=config)
    assert set(first.moments) == {"momentum_buffer"}
    private = PrivateSteps(who, 1.0, 1.0, 1.0, Silent())
    options: Any = {"task": TASK, "learning_rate": RATE, "num_steps": 1}
    second = train_privately(
        MODEL, first.parameters, private, config, moments=first.moments, **options
    )
    fresh = train_privately(MODEL, first.parameters, private, config, **options)
    assert not torch.equal(second.parameters, fresh.parameters)


def test_a_proximal_term_pulls_back() -> None:
    who = patients(4)
    private = PrivateSteps(who, 1.0, 1.0, 1.0, Silent())
    free, held = (
        train_privately(MODEL, THETA, private, PLAIN, task=TASK, learning_rate=RATE,
                        num_steps=10, proximal_mu=mu).parameters
        for mu in (0.0, 5.0)
    )  # fmt: skip
    assert float((held - THETA).norm()) < float((free - THETA).norm())
