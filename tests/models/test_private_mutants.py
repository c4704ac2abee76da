"""The ways in which private steps go wrong in practice, each caught by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import test_private_training as honest
import torch
from torch import Tensor

from rayfed_hn.models import private_training
from rayfed_hn.models.private_training import PrivateSteps

noise, clip_factor = private_training._noise, private_training.clip_factor
no_dropout = honest.no_dropout


def no_clipping(gradients: Sequence[Tensor], limit: float) -> tuple[float, float]:
    return 1.0, clip_factor(gradients, limit)[1]


def every_tensor_clipped_alone(gradients: Sequence[Tensor], limit: float) -> tuple[float, float]:
    for gradient in gradients:
        gradient.mul_(clip_factor([gradient], limit)[0])
    return 1.0, 0.0


def no_numbers_let_through(gradients: Sequence[Tensor], limit: float) -> tuple[float, float]:
    factor, norm = clip_factor(gradients, limit)
    return factor or 1.0, norm


def half_the_noise(total: Sequence[Tensor], private: PrivateSteps, counted: Any) -> None:
    less = PrivateSteps(**{**vars(private), "multiplier": private.multiplier / 2})
    noise(total, less, counted)


def noise_divided_by_the_patients(
    total: Sequence[Tensor], private: PrivateSteps, counted: Any
) -> None:
    share = private.multiplier / max(1, len(private.patients))
    noise(total, PrivateSteps(**{**vars(private), "multiplier": share}), counted)


def biases_in_the_clear(total: Sequence[Tensor], private: PrivateSteps, counted: Any) -> None:
    expected = max(private.sampling_rate * len(private.patients), 1.0)
    clear = [part.clone() / expected for part in total]
    noise(total, private, counted)
    for part, own in zip(total, clear, strict=True):
        if part.dim() == 1:
            part.copy_(own)


def noise_before_clipping(total: Sequence[Tensor], private: PrivateSteps, counted: Any) -> None:
    noise(total, private, counted)
    norm = torch.cat([part.flatten() for part in total]).norm()
    for part in total:
        part.mul_(min(1.0, private.clip_norm / float(norm)))


def batches_of_a_fixed_size(private: PrivateSteps, secret: int, step: int) -> Iterator[int]:
    yield from list(private.patients)[: round(private.sampling_rate * len(private.patients))]


MUTANTS: list[tuple[str, Callable[..., object], Callable[[], None]]] = [
    ("clip_factor", no_clipping,
     honest.test_one_patient_more_moves_the_sum_by_no_more_than_the_limit),
    ("clip_factor", no_clipping,
     honest.test_every_patient_is_clipped_as_a_whole_over_slides_and_tensors),
    ("clip_factor", every_tensor_clipped_alone,
     honest.test_one_patient_more_moves_the_sum_by_no_more_than_the_limit),
    ("clip_factor", no_numbers_let_through,
     honest.test_a_patient_whose_gradient_is_no_number_adds_nothing),
    ("_noise", half_the_noise,
     lambda: honest.test_noise_has_the_stated_size_on_every_coordinate(50, 0.2)),
    ("_noise", noise_divided_by_the_patients,
     lambda: honest.test_noise_has_the_stated_size_on_every_coordinate(50, 0.2)),
    ("_noise", biases_in_the_clear,
     lambda: honest.test_noise_has_the_stated_size_on_every_coordinate(50, 0.2)),
    ("_noise", noise_before_clipping,
     lambda: honest.test_noise_has_the_stated_size_on_every_coordinate(50, 0.2)),
    ("_drawn", batches_of_a_fixed_size,
     honest.test_who_takes_part_does_not_depend_on_the_others),
]  # fmt: skip


@pytest.mark.parametrize(("name", "mutant", "check"), MUTANTS)
def test_a_mutant_of_private_steps_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    mutant: Callable[..., object],
    check: Callable[[], None],
) -> None:
    check()  # what is right passes
    monkeypatch.setattr(private_training, name, mutant)
    with pytest.raises(AssertionError):
        check()
