"""Few numbers for many parameters: lengths are kept, and training goes nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.config import ModelConfig, TrainingConfig
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.private_training import PrivateSteps, train_privately
from rayfed_hn.models.registry import initial_parameters, make_model
from rayfed_hn.models.subspace import Subspace
from rayfed_hn.models.tasks import Binary
from rayfed_hn.models.training import Trained, train_locally
from rayfed_hn.privacy.randomness import Seeded

TASK = Binary(("normal", "tumour"))
MODEL = make_model(5, TASK.num_outputs, ModelConfig(hidden_dim=6, attention_dim=4))
SIZE = ParameterLayout.of(MODEL).size
THETA = initial_parameters(ParameterLayout.of(MODEL), 0)


def bags(count: int = 6) -> list[LabelledBag]:
    rng = np.random.default_rng(1)
    return [LabelledBag(rng.normal(size=(4, 5)).astype(np.float32), i % 2) for i in range(count)]


def train(subspace: Subspace | None, **options: object) -> Trained:
    config = TrainingConfig(weight_decay=0.0, **options)  # type: ignore[arg-type]
    return train_locally(
        MODEL, THETA, bags(), config, task=TASK, learning_rate=0.01, num_steps=6, seed=2,
        subspace=subspace,
    )  # fmt: skip


@given(size=st.integers(1, 60), data=st.data())
def test_lengths_are_kept_and_numbers_come_back(size: int, data: st.DataObject) -> None:
    dim = data.draw(st.integers(1, size))
    space = Subspace(size, dim, data.draw(st.integers(0, 99)))
    numbers = torch.randn(dim, generator=torch.Generator().manual_seed(3))
    vector = space.lift(numbers)
    assert float(vector.norm()) == pytest.approx(float(numbers.norm()), rel=1e-5)
    torch.testing.assert_close(space.project(vector), numbers, rtol=1e-5, atol=1e-6)
    other = torch.randn(size, generator=torch.Generator().manual_seed(4))
    nearest = space.lift(space.project(other))
    assert float(nearest @ (other - nearest)) == pytest.approx(0, abs=1e-4)


def test_the_same_seed_is_the_same_subspace() -> None:
    numbers = torch.arange(7.0)
    same, other = (Subspace(50, 7, seed).lift(numbers) for seed in (1, 2))
    assert torch.equal(same, Subspace(50, 7, 1).lift(numbers))
    assert not torch.equal(same, other)


# Not Adam: of a gradient that is nothing but rounding it makes whole steps.
@pytest.mark.parametrize("optimiser", ["sgd", "momentum"])
def test_with_a_number_for_every_parameter_training_is_as_without(optimiser: str) -> None:
    whole, free = (train(space, optimiser=optimiser) for space in (Subspace(SIZE, SIZE, 0), None))
    torch.testing.assert_close(whole.parameters, free.parameters, rtol=1e-4, atol=1e-5)
    assert whole.loss == pytest.approx(free.loss, rel=1e-4)


def test_training_stays_within_the_subspace_and_learns() -> None:
    space = Subspace(SIZE, 9, 0)
    moved = train(space, optimiser="sgd").parameters - THETA
    assert float(moved.norm()) > 1e-3
    torch.testing.assert_close(space.lift(space.project(moved)), moved, rtol=1e-3, atol=1e-6)


def test_parameters_move_as_far_as_without() -> None:
    """One step of Adam moves every number by the rate, and every parameter as it would alone."""
    config = TrainingConfig(weight_decay=0.0)
    step = {"task": TASK, "learning_rate": 0.01, "num_steps": 1, "seed": 2}
    space = Subspace(SIZE, 9, 0)
    moved = train_locally(MODEL, THETA, bags(), config, subspace=space, **step)  # type: ignore[arg-type]
    root_mean_square = float((moved.parameters - THETA).square().mean().sqrt())
    assert root_mean_square == pytest.approx(0.01, rel=1e-3)


def test_one_step_of_sgd_is_the_projected_gradient() -> None:
    config = TrainingConfig(optimiser="sgd", weight_decay=0.0)
    space = Subspace(SIZE, 9, 0)
    step = {"task": TASK, "learning_rate": 0.1, "num_steps": 1, "seed": 2}
    free = train_locally(MODEL, THETA, bags(), config, **step).parameters  # type: ignore[arg-type]
    held = train_locally(MODEL, THETA, bags(), config, subspace=space, **step).parameters  # type: ignore[arg-type]
    expected = space.rate * space.lift(space.project(free - THETA))
    torch.testing.assert_close(held - THETA, expected, rtol=1e-3, atol=1e-6)


def test_private_steps_stay_within_it_and_their_noise_is_shorter() -> None:
    nobody = {0: [LabelledBag(np.full((2, 5), np.nan, np.float32), 0)]}
    config = TrainingConfig(optimiser="sgd", weight_decay=0.0)
    lengths = {}
    for dim in (9, None):
        space = None if dim is None else Subspace(SIZE, dim, 0)
        private = PrivateSteps(nobody, 1.0, 1.0, 1.0, Seeded(3))
        moved = train_privately(
            MODEL, THETA, private, config, task=TASK, learning_rate=1.0, num_steps=1,
            subspace=space,
        ).parameters - THETA  # fmt: skip
        lengths[dim] = float(moved.norm()) / (1.0 if space is None else space.rate)
        if space is not None:
            torch.testing.assert_close(
                space.lift(space.project(moved)), moved, rtol=1e-3, atol=1e-5
            )
    assert lengths[9] == pytest.approx(9**0.5, rel=0.7)
    assert lengths[None] == pytest.approx(SIZE**0.5, rel=0.2)
