"""The ways in which private releases go wrong in practice, each caught by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import checks
import pytest
import torch
from torch import Tensor

from rayfed_hn.privacy.accounting import Spent
from rayfed_hn.privacy.ledger import Charge, ReleaseKey
from rayfed_hn.privacy.mechanisms import Places, Released, SiteGaussian
from rayfed_hn.privacy.randomness import Randomness
from rayfed_hn.privacy.release import Gate, content_of, make_gate


class NoClipping(SiteGaussian):
    def privatise(
        self,
        received: Tensor,
        trained: Tensor,
        places: Places,
        noise: Randomness,
        out: Tensor | None = None,
    ) -> Released:
        drawn = torch.from_numpy(noise.normal(len(received))).float()
        return Released(received - trained + self.deviation * drawn)


class EveryTensorClippedAlone(SiteGaussian):
    def privatise(
        self,
        received: Tensor,
        trained: Tensor,
        places: Places,
        noise: Randomness,
        out: Tensor | None = None,
    ) -> Released:
        parts = received.clone()
        for _, place in places:
            own = SiteGaussian(self.clip_norm, self.multiplier, self.neighbouring)
            whole = [("all", slice(0, place.stop - place.start))]
            parts[place] = own.privatise(received[place], trained[place], whole, noise).update
        return Released(parts)


class NoiseBeforeClipping(SiteGaussian):
    def privatise(
        self,
        received: Tensor,
        trained: Tensor,
        places: Places,
        noise: Randomness,
        out: Tensor | None = None,
    ) -> Released:
        drawn = torch.from_numpy(noise.normal(len(received))).float()
        noisy = received - trained + self.deviation * drawn
        return Released(noisy * min(1.0, self.clip_norm / float(noisy.norm())))


class LessNoise(SiteGaussian):
    share: float

    @property
    def deviation(self) -> float:
        return super().deviation * self.share


class HalfTheNoise(LessNoise):
    share = 0.5


class NoiseDividedByTheSites(LessNoise):
    share = 1 / 6


class BiasesInTheClear(SiteGaussian):
    def privatise(
        self,
        received: Tensor,
        trained: Tensor,
        places: Places,
        noise: Randomness,
        out: Tensor | None = None,
    ) -> Released:
        found = super().privatise(received, trained, places, noise).update
        still = super().privatise(received, trained, places, checks.Silent()).update
        for name, place in places:
            if name.endswith("bias"):
                found[place] = still[place]
        return Released(found)


def charged_after_sending(gate: Gate) -> None:
    def release(key: ReleaseKey, spent: Spent | None, message: bytes) -> bytes:
        assert gate._outbox is not None
        gate._outbox.seal(key, message, 0)
        later.append(Charge(key, content_of(message), spent))
        return message

    later: list[Charge] = []
    gate.release = release  # type: ignore[method-assign]


def fresh_noise_for_who_asks_again(gate: Gate) -> None:
    gate.again = lambda key, spent: None  # type: ignore[method-assign]


def a_key_is_charged_once_whatever_leaves(gate: Gate) -> None:
    charge = gate._ledger.charge

    def once(one: Charge, *rest: object) -> None:
        if one.key not in (known.key for known in gate._ledger.charges()):
            charge(one)

    gate._ledger.charge = once  # type: ignore[method-assign]


OF_MECHANISMS: list[tuple[type[SiteGaussian], Callable[[SiteGaussian], None]]] = [
    (NoClipping, checks.sites_cannot_move_more_than_the_sensitivity),
    (EveryTensorClippedAlone, checks.sites_cannot_move_more_than_the_sensitivity),
    (NoiseBeforeClipping, checks.clipping_comes_before_noise),
    (NoiseDividedByTheSites, checks.every_coordinate_has_noise_of_the_stated_size),
    (HalfTheNoise, checks.every_coordinate_has_noise_of_the_stated_size),
    (BiasesInTheClear, checks.every_coordinate_has_noise_of_the_stated_size),
]
OF_THE_WAY_OUT = [
    (charged_after_sending, checks.nothing_is_sent_before_it_is_charged),
    (fresh_noise_for_who_asks_again, checks.who_asks_again_is_sent_the_same_bytes),
    (a_key_is_charged_once_whatever_leaves, checks.nothing_is_released_twice_for_one_charge),
]


@pytest.mark.parametrize("neighbouring", ["replace", "zero_out"])
@pytest.mark.parametrize("check", dict.fromkeys(check for _, check in OF_MECHANISMS))
def test_the_mechanism_holds(check: Callable[[SiteGaussian], None], neighbouring: str) -> None:
    check(SiteGaussian(1.0, 3.0, neighbouring))  # type: ignore[arg-type]


@pytest.mark.parametrize(("mutant", "check"), OF_MECHANISMS)
def test_a_mutant_of_the_mechanism_is_caught(
    mutant: type[SiteGaussian], check: Callable[[SiteGaussian], None]
) -> None:
    with pytest.raises(AssertionError):
        check(mutant(1.0, 3.0, "replace"))


@pytest.mark.parametrize("check", [check for _, check in OF_THE_WAY_OUT])
def test_the_way_out_holds(check: Callable[[Gate], None], tmp_path: Path) -> None:
    check(a_gate(tmp_path))


@pytest.mark.parametrize(("mutate", "check"), OF_THE_WAY_OUT)
def test_a_mutant_of_the_way_out_is_caught(
    mutate: Callable[[Gate], None], check: Callable[[Gate], None], tmp_path: Path
) -> None:
    gate = a_gate(tmp_path)
    mutate(gate)
    with pytest.raises(AssertionError):
        check(gate)


def a_gate(folder: Path) -> Gate:
    return make_gate(folder, secret=True, delta=1e-5, budget=None, run_budget=None)


def test_the_sensitivity_is_that_of_the_relation() -> None:
    assert SiteGaussian(0.5, 1.0, "replace").sensitivity == 1.0
    assert SiteGaussian(0.5, 1.0, "zero_out").sensitivity == 0.5
    assert math.isclose(SiteGaussian(0.5, 3.0, "replace").deviation, 3.0)
