"""A server step in blocks of parameters is the step as a whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from rayfed_hn.federation.rules import base, pfedhn
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
    patch.setattr(base, "BLOCK", block)
    patch.setattr(pfedhn, "BLOCK", block)
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
        gradient = torch.randn(1, 10, generator=torch.Generator().manual_seed(step))
        whole.step([0], gradient)
        parts.begin_whole()
        for place in (slice(0, 3), slice(3, 10)):
            parts.move_part(_part(place), gradient[:, place].clone())
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
    networks = rule._make(rows, tensors)
    (networks * torch.from_numpy(updates)).sum().div(SITES).backward()
    before = {name: tensor.clone() for name, tensor in rule._tensors().items()}
    rule.apply([Contribution(i, u) for i, u in enumerate(updates)], complete=True, among=SITES)
    for name, tensor in rule._tensors().items():
        gradient = tensors[name].grad
        assert gradient is not None
        assert gradient.abs().max() > 0
        torch.testing.assert_close(tensor, before[name] - 0.1 * gradient, rtol=1e-4, atol=1e-6)
