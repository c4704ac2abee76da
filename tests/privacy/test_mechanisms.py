"""Mechanisms are what they say: the size of their noise, where it goes, what they promise."""

from __future__ import annotations

import math

import pytest
import torch
from sources import Counted, Silent

from rayfed_hn.privacy.mechanisms import (
    Mechanism,
    NoNoise,
    PaperNoise,
    SiteGaussian,
    TrainedPrivately,
    promised,
)
from rayfed_hn.privacy.randomness import Seeded

SIZE = 80_101
PLACES = [
    ("layer.weight", slice(0, 40_000)),
    ("layer.bias", slice(40_000, 40_100)),
    ("single.weight", slice(40_100, 40_101)),
    ("wide.weight", slice(40_101, SIZE)),
]
ALL: list[Mechanism] = [
    NoNoise(),
    PaperNoise(0.3),
    SiteGaussian(1.0, 2.0, "replace"),
    TrainedPrivately("patient", 1.0, 2.0, 0.1),
]


def trained() -> torch.Tensor:
    theta = torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    theta[40_101:] *= 5
    return theta


def received() -> torch.Tensor:
    return trained() + 0.01 * torch.randn(SIZE, generator=torch.Generator().manual_seed(1))


def noise_of(mechanism: Mechanism) -> torch.Tensor:
    update = mechanism.privatise(received(), trained(), PLACES, Seeded(3)).update
    return update - mechanism.privatise(received(), trained(), PLACES, Silent()).update


def test_papers_noise_has_alpha_times_the_spread_of_each_weight_tensor() -> None:
    noise = noise_of(PaperNoise(0.2))
    assert noise[:40_000].std().item() == pytest.approx(0.2, rel=0.02)
    assert noise[40_101:].std().item() == pytest.approx(1.0, rel=0.02)
    assert abs(noise[:40_000].mean().item()) < 0.005
    assert not noise[40_000:40_101].any()  # biases, and the deviation of one number


def test_papers_noise_on_biases_too() -> None:
    noise = noise_of(PaperNoise(0.2, biases=True))
    spread = trained()[40_000:40_100].std().item()
    assert noise[40_000:40_100].std().item() == pytest.approx(0.2 * spread, rel=0.3)
    assert noise[40_100] == 0


def test_papers_noise_by_the_spread_of_the_update() -> None:
    noise = noise_of(PaperNoise(0.2, of="update"))
    assert noise[:40_000].std().item() == pytest.approx(0.2 * 0.01, rel=0.03)
    assert noise[40_101:].std().item() == pytest.approx(0.2 * 0.01, rel=0.03)


@pytest.mark.parametrize("mechanism", [NoNoise(), TrainedPrivately("patient", 1.0, 2.0, 0.1)])
def test_what_adds_nothing_leaves_the_update_as_it_is(mechanism: Mechanism) -> None:
    noise = Counted()
    released = mechanism.privatise(received(), trained(), PLACES, noise)
    assert torch.equal(released.update, received() - trained())
    assert noise.drawn == 0


@pytest.mark.parametrize("mechanism", ALL)
def test_arguments_are_not_changed(mechanism: Mechanism) -> None:
    before, after = received(), trained()
    mechanism.privatise(before, after, PLACES, Seeded(1))
    assert torch.equal(before, received())
    assert torch.equal(after, trained())


@pytest.mark.parametrize("mechanism", ALL)
def test_tensors_that_do_not_leave_the_site_get_no_noise(mechanism: Mechanism) -> None:
    most = mechanism.privatise(received(), trained(), PLACES[:2], Seeded(1)).update
    if isinstance(mechanism, SiteGaussian):
        assert not most[40_100:].any()
    else:
        assert torch.equal(most[40_100:], (received() - trained())[40_100:])


@pytest.mark.parametrize(("scale", "clipped"), [(0.5, 0.0), (3.0, 1.0)])
def test_signal_to_noise_is_what_is_left_over_what_is_added(scale: float, clipped: float) -> None:
    update = torch.zeros(SIZE)
    update[0] = scale
    mechanism = SiteGaussian(1.0, 2.0, "replace")
    found = mechanism.privatise(update, torch.zeros(SIZE), PLACES, Seeded(1))
    assert found.clipped == clipped
    assert found.signal_to_noise == pytest.approx(min(scale, 1.0) / (4.0 * math.sqrt(SIZE)))


def test_signal_to_noise_of_the_papers_noise() -> None:
    mechanism = PaperNoise(0.2)
    noise = float(noise_of(mechanism).norm())
    found = mechanism.privatise(received(), trained(), PLACES, Seeded(1)).signal_to_noise
    assert found == pytest.approx(float((received() - trained()).norm()) / noise, rel=0.02)


def test_only_what_is_clipped_and_noised_promises_anything() -> None:
    for scale in (0.1, 100.0):
        mechanism = PaperNoise(scale)
        assert mechanism.describe()["formal_guarantee"] == "none"
        assert promised(mechanism, releases=1, steps=1, delta=1e-5) == math.inf
    assert promised(NoNoise(), releases=1, steps=1, delta=1e-5) == math.inf
    site = SiteGaussian(1.0, 4.244, "replace")
    assert promised(site, releases=50, steps=40, delta=1e-5) == pytest.approx(8, abs=2e-3)
    patients = TrainedPrivately("patient", 1.0, 1.0, 0.25)
    assert promised(patients, releases=10, steps=5, delta=1e-5) == pytest.approx(12.6536, abs=5e-4)
    assert patients.spent(0) is None
