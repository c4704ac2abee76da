"""Dropout masks that are drawn on a CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import small

from rayfed_hn.models.masks import CpuMasks, draw_mask, masks_of


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.75, 0.9])
def test_as_many_are_kept_as_asked(keep: float) -> None:
    mask = CpuMasks(0).draw(torch.empty(400, 500), keep)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    spread = (keep * (1 - keep) / mask.numel()) ** 0.5
    assert mask.mean().item() == pytest.approx(keep, abs=5 * spread)
    # Rows, columns and neighbours know nothing of each other.
    for dim in (0, 1):
        assert mask.mean(dim=dim).std().item() == pytest.approx(
            (keep * (1 - keep) / mask.shape[dim]) ** 0.5, rel=0.2
        )
    shifted = np.corrcoef(mask.flatten()[:-1], mask.flatten()[1:])[0, 1]
    assert abs(shifted) < 0.02


def test_a_seed_gives_the_same_masks_one_after_the_other() -> None:
    like = torch.empty(7, 9)
    one, again, other = CpuMasks(1), CpuMasks(1), CpuMasks(2)
    first, second = (one.draw(like, 0.5) for _ in range(2))
    assert torch.equal(again.draw(like, 0.5), first)
    assert torch.equal(again.draw(like, 0.5), second)
    assert not torch.equal(first, second)
    assert not torch.equal(other.draw(like, 0.5), first)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_mask_is_of_the_kind_of_what_it_is_for(kind: torch.dtype) -> None:
    assert CpuMasks(0).draw(torch.empty(3, dtype=kind), 0.5).dtype == kind


def test_dropout_keeps_the_mean() -> None:
    model = small("mean", dropout=0.2)
    dropped = model._drop(torch.ones(20_000), CpuMasks(0))
    assert sorted(dropped.unique().tolist()) == pytest.approx([0.0, 1.25])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)


def test_a_cpu_has_its_own_source_and_others_are_asked_as_they_are() -> None:
    assert isinstance(masks_of(3, "cpu"), CpuMasks)
    like = torch.empty(50)
    generator = torch.Generator().manual_seed(3)
    expected = torch.empty(50).bernoulli_(0.5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(draw_mask(generator, like, 0.5), expected)
