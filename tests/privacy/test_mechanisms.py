"""The paper's noise is what it says: its size, where it goes, and what it promises."""

from __future__ import annotations

import pytest
import torch

from rayfed_hn.privacy.mechanisms import PaperNoise

PLACES = [
    ("layer.weight", slice(0, 40_000)),
    ("layer.bias", slice(40_000, 40_100)),
    ("single.weight", slice(40_100, 40_101)),
    ("wide.weight", slice(40_101, 80_101)),
]


def parameters() -> torch.Tensor:
    theta = torch.randn(80_101, generator=torch.Generator().manual_seed(0))
    theta[40_101:] *= 5
    return theta


def test_noise_has_alpha_times_the_spread_of_each_weight_tensor() -> None:
    theta = parameters()
    noise = PaperNoise(0.2).privatise(theta, PLACES, seed=1) - theta
    assert noise[:40_000].std().item() == pytest.approx(0.2, rel=0.02)
    assert noise[40_101:].std().item() == pytest.approx(1.0, rel=0.02)
    assert abs(noise[:40_000].mean().item()) < 0.005


def test_biases_and_single_numbers_stay_as_they_are() -> None:
    theta = parameters()
    noisy = PaperNoise(1.0).privatise(theta, PLACES, seed=1)
    assert torch.equal(noisy[40_000:40_101], theta[40_000:40_101])
    assert torch.isfinite(noisy).all()


def test_seeded_noise_repeats_and_the_machines_does_not() -> None:
    theta = parameters()
    seeded = [PaperNoise(0.1).privatise(theta, PLACES, seed=1) for _ in range(2)]
    fresh = [PaperNoise(0.1, "os").privatise(theta, PLACES, seed=1) for _ in range(2)]
    assert torch.equal(*seeded)
    assert not torch.equal(*fresh)


def test_it_never_claims_a_guarantee_and_leaves_its_input_alone() -> None:
    theta = parameters()
    before = theta.clone()
    PaperNoise(0.3).privatise(theta, PLACES, seed=1)
    assert torch.equal(theta, before)
    for scale in (0.0, 0.1, 100.0):
        assert PaperNoise(scale).describe()["formal_guarantee"] == "none"
