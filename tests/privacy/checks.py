"""What must hold of mechanisms and of the way out, as functions that mutants are put through."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sources import Counted, Silent
from torch import Tensor

from rayfed_hn.privacy.accounting import Spent
from rayfed_hn.privacy.ledger import ReleaseKey
from rayfed_hn.privacy.mechanisms import SiteGaussian
from rayfed_hn.privacy.release import KEPT, Gate

PLACES = [
    ("layer.weight", slice(0, 3000)),
    ("layer.bias", slice(3000, 3100)),
    ("head.weight", slice(3100, 5000)),
    ("head.bias", slice(5000, 5001)),
]
SIZE = 5001
SPENT = Spent("site", "replace", 2.0)


def learned(scale: float, seed: int = 0) -> Tensor:
    """What training changed, of which every tensor alone is longer than 1 where scale is."""
    rng = torch.Generator().manual_seed(seed)
    update = torch.randn(SIZE, generator=rng)
    for _, place in PLACES:
        update[place] *= scale / update[place].norm()
    return update


def release(mechanism: SiteGaussian, update: Tensor, noise: Counted | Silent) -> Tensor:
    return mechanism.privatise(update, torch.zeros(SIZE), PLACES, noise).update


def sites_cannot_move_more_than_the_sensitivity(mechanism: SiteGaussian) -> None:
    for scale in (1e-3, 1.0, 1e6):
        one = release(mechanism, learned(scale), Silent())
        assert float(one.double().norm()) <= mechanism.clip_norm
        other = release(mechanism, -learned(scale), Silent())
        assert float((one - other).double().norm()) <= 2 * mechanism.clip_norm
    odd = learned(1.0)
    odd[7] = math.nan
    assert torch.isfinite(release(mechanism, odd, Silent())).all()


def every_coordinate_has_noise_of_the_stated_size(mechanism: SiteGaussian) -> None:
    update = learned(1e-3)
    noise = release(mechanism, update, Counted()) - release(mechanism, update, Silent())
    for name, place in PLACES:
        assert bool((noise[place] != 0).all()), f"{name} leaves in the clear"
    stated = mechanism.multiplier * mechanism.sensitivity
    # A chi-square: 5,001 values tell deviations apart that differ by 5 %.
    assert float(noise.double().norm()) / math.sqrt(SIZE) == pytest.approx(stated, rel=0.05)


def clipping_comes_before_noise(mechanism: SiteGaussian) -> None:
    """Noise that is clipped with the update is smaller than stated."""
    released = release(mechanism, learned(1e3), Counted())
    stated = mechanism.multiplier * mechanism.sensitivity * math.sqrt(SIZE)
    assert float(released.double().norm()) > 0.9 * stated


def a_key(received: bytes = b"a", version: int = 0) -> ReleaseKey:
    return ReleaseKey("run", "north", version, version, received.hex())


def nothing_is_sent_before_it_is_charged(gate: Gate) -> None:
    order: list[str] = []
    assert gate._outbox is not None
    seal, charge = gate._outbox.seal, gate._ledger.charge

    def sealing(*args: Any) -> None:
        seal(*args)
        order.append("sealed")

    def charging(*args: Any) -> None:
        charge(*args)
        order.append("charged")

    gate._outbox.seal, gate._ledger.charge = sealing, charging  # type: ignore[method-assign]
    assert gate.release(a_key(), SPENT, b"message") == b"message"
    order.append("sent")
    assert order == ["sealed", "charged", "sent"]


def who_asks_again_is_sent_the_same_bytes(gate: Gate) -> None:
    rng = np.random.default_rng()
    sent = [
        gate.again(a_key(), SPENT) or gate.release(a_key(), SPENT, rng.bytes(40)) for _ in range(3)
    ]
    assert sent[0] == sent[1] == sent[2]
    assert len(gate._ledger.charges()) == 1
    gate.release(a_key(b"another network"), SPENT, b"other")
    assert len(gate._ledger.charges()) == 2


def nothing_is_released_twice_for_one_charge(gate: Gate) -> None:
    """However often, and in whatever order, who asks again."""
    rng, keys = np.random.default_rng(), [a_key(version=version) for version in range(KEPT + 2)]
    seen = {
        bytes(gate.again(key, SPENT) or gate.release(key, SPENT, rng.bytes(40)))
        for _ in range(4)
        for key in keys
    }
    assert len(seen) <= len(gate._ledger.charges())
