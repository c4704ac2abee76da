"""A server step in blocks of parameters is the step as a whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rayfed_hn.federation.rules import blocks
from rayfed_hn.federation.rules.averaging import FedAvg
from rayfed_hn.federation.rules.base import Contribution, Rule
from rayfed_hn.federation.rules.generator import Hypernetwork, SiteFeatures
from rayfed_hn.federation.rules.optimisers import Optimiser, RowState
from rayfed_hn.federation.rules.pfedhn import PFedHN

SIZE, SITES = 37, 4


def _hypernetwork(kind: str) -> Rule:
    features = SiteFeatures(kind, SITES, 3, 0.05, 0)  # pyright: ignore[reportArgumentType]
    return Hypernetwork(torch.linspace(-1, 1, SIZE), SITES, features, 3, 0.4)


def _pfedhn(kind: str, chunks: int) -> Rule:
    optimiser = Optimiser(kind, 0.1, 0.9, 0.01)  # pyright: ignore[reportArgumentType]
    return PFedHN(SIZE, SITES, 3, optimiser, chunks, 0)


RULES: dict[str, Callable[[], Rule]] = {
    "fedavg": lambda: FedAvg(torch.linspace(-1, 1, SIZE)),
    "hypernetwork": lambda: _hypernetwork("fixed"),
    "hypernetwork, learned": lambda: _hypernetwork("learned"),
    "hypernetwork, mlp": lambda: _hypernetwork("mlp"),
    "pfedhn": lambda: _pfedhn("momentum", 1),
    "pfedhn, adam": lambda: _pfedhn("adam", 1),
    "pfedhn, sgd, chunks": lambda: _pfedhn("sgd", 3),
}


def _after_steps(make: Callable[[], Rule], block: int, patch: pytest.MonkeyPatch) -> dict:
    patch.setattr(blocks, "WIDTH", block)
    rule, rng = make(), np.random.default_rng(1)
    for complete in (True, False, True):
        updates = rng.normal(size=(SITES, SIZE)).astype(np.float32) * 3
        contributions = [Contribution(i, u, 0.7, 1.3) for i, u in enumerate(updates)]
        rule.apply(contributions, complete=complete, among=SITES)
    return {name: tensor.clone() for name, tensor in rule.state().items()}


@pytest.mark.parametrize("name", RULES)
def test_blocks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _after_steps(RULES[name], 1000, monkeypatch)
    for block in (1, 5, SIZE):
        parts = _after_steps(RULES[name], block, monkeypatch)
        assert parts.keys() == whole.keys()
        for key, tensor in whole.items():
            # Adam divides small gradients by themselves, and their rounding with them.
            torch.testing.assert_close(parts[key], tensor, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam"])
def test_a_table_that_moves_in_parts_moves_as_a_whole(kind: str) -> None:
    optimiser = Optimiser(kind, 0.05, 0.9, 0.02)  # pyright: ignore[reportArgumentType]
    start = torch.randn(1, 10, generator=torch.Generator().manual_seed(0))
    whole, parts = RowState(start.clone(), optimiser), RowState(start.clone(), optimiser)
    for step in range(4):
        left, right = torch.randn(11, 3, generator=torch.Generator().manual_seed(step)).split(
            [1, 10]
        )
        whole.step([0], left @ right.T)
        parts.begin_whole()
        for place in (slice(0, 3), slice(3, 10)):
            parts.move_part(_part(place), left, right.T[:, place])
    for name, tensor in whole.state("t").items():
        torch.testing.assert_close(parts.state("t")[name], tensor)


def _part(place: slice) -> Callable[[Tensor], Tensor]:
    return lambda table: table[:, place]


@pytest.mark.parametrize("chunks", [1, 3])
def test_the_step_of_pfedhn_is_that_of_automatic_differentiation(chunks: int) -> None:
    rule = PFedHN(SIZE, SITES, 3, Optimiser("sgd", 0.1), chunks, 0)
    updates = np.random.default_rng(0).normal(size=(SITES, SIZE)).astype(np.float32)
    tensors = {name: t.clone().requires_grad_(True) for name, t in rule._tensors().items()}
    rows = rule._rows.table.clone().requires_grad_(True)
    features_SCH = rule._features(rows, tensors)
    made = (features_SCH @ tensors["head"] + tensors["bias"]).flatten(1)[:, :SIZE]
    (made * torch.from_numpy(updates)).sum().div(SITES).backward()
    before = {name: tensor.clone() for name, tensor in rule._tensors().items()}
    rule.apply([Contribution(i, u) for i, u in enumerate(updates)], complete=True, among=SITES)
    for name, tensor in rule._tensors().items():
        gradient = tensors[name].grad
        assert gradient is not None
        assert gradient.abs().max() > 0
        torch.testing.assert_close(tensor, before[name] - 0.1 * gradient, rtol=1e-4, atol=1e-6)


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 60), st.integers(0, 2**31))
def test_sums_are_those_of_float64(count: int, size: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, size)).astype(np.float32)
    vectors.flags.writeable = False  # as they lie in Ray's memory
    share_B = torch.from_numpy(rng.normal(size=count))
    expected = share_B.numpy() @ vectors.astype(np.float64)
    room = 1e-6 * (np.abs(share_B.numpy()) @ np.abs(vectors)) + 1e-30
    cpu = torch.device("cpu")
    found = blocks.total(share_B, list(vectors), cpu)
    assert found.dtype == torch.float64
    assert (np.abs(found.numpy() - expected) <= room).all()
    parts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "WIDTH", width)
        for place, block in blocks.blocks(list(vectors), cpu):
            np.testing.assert_array_equal(block, vectors[:, place])
            parts.append(blocks.weighted_sum(share_B, block))
    joined = torch.cat(parts)
    assert joined.dtype == torch.float64
    assert joined.shape == (size,)
    assert (np.abs(joined.numpy() - expected) <= room).all()


def test_a_thousand_updates_add_up_as_in_float64() -> None:
    """Sums of 64 terms in float32 stay below the rounding of a network; those of all would not."""
    count, rng = 1000, np.random.default_rng(0)
    vectors = (1 + 0.1 * rng.normal(size=(count, 500))).astype(np.float32)
    share_B = torch.full((count,), 1 / count, dtype=torch.float64)
    exact = vectors.astype(np.float64).mean(axis=0)
    for found in (
        blocks.total(share_B, list(vectors), torch.device("cpu")),
        blocks.weighted_sum(share_B, torch.from_numpy(vectors)),
    ):
        assert np.abs(found.numpy() - exact).max() < 2 * np.finfo(np.float32).eps


@given(st.integers(1, 100_000), st.integers(1, 3000))
def test_places_cover_a_vector_once(size: int, count: int) -> None:
    found = list(blocks.places(size, count, torch.device("cpu")))
    assert [place.start for place in found] == [0, *(place.stop for place in found[:-1])]
    assert found[-1].stop == size
    assert all(0 < (p.stop - p.start) <= blocks.WIDTH for p in found)
    assert all((p.stop - p.start) * count <= max(blocks.VALUES, count) for p in found)
