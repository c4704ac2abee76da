"""The server's optimisers against PyTorch's; rows that rest, and clipping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayfed_hn.federation.rules.optimisers import Optimiser, RowState


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam"])
def test_a_table_that_moves_as_a_whole_is_pytorchs(kind: str) -> None:
    start = torch.from_numpy(draw(11, 4, 6))
    rate, decay = 0.05, 0.01
    theirs = start.clone().requires_grad_(True)
    optimiser = {
        "sgd": lambda: torch.optim.SGD([theirs], rate, weight_decay=decay),
        "momentum": lambda: torch.optim.SGD([theirs], rate, momentum=0.9, weight_decay=decay),
        "adam": lambda: torch.optim.Adam([theirs], rate, weight_decay=decay),
    }[kind]()
    ours = RowState(start.clone(), Optimiser(kind, rate, 0.9, decay))  # type: ignore[arg-type]
    for number in range(10):
        gradient = torch.from_numpy(draw(30 + number, 4, 6))
        theirs.grad = gradient.clone()
        optimiser.step()
        ours.step([0, 1, 2, 3], gradient)
    torch.testing.assert_close(ours.table, theirs.detach(), rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=1, max_size=8))
def test_rows_are_independent(steps: list[set[int]]) -> None:
    """A row in a table moves as it would alone, and not at all while it is absent."""
    start = torch.from_numpy(draw(12, 4, 3))
    adam = Optimiser("adam", 0.1, 0.9, 0.01)
    table = RowState(start.clone(), adam)
    alone = [RowState(start[i : i + 1].clone(), adam) for i in range(4)]
    for number, rows in enumerate(steps):
        chosen = sorted(rows)
        gradient = torch.from_numpy(draw(50 + number, len(chosen), 3))
        table.step(chosen, gradient)
        for place, row in enumerate(chosen):
            alone[row].step([0], gradient[place : place + 1])
    for row in range(4):
        torch.testing.assert_close(table.table[row], alone[row].table[0], rtol=1e-6, atol=1e-7)
        if not any(row in rows for rows in steps):
            assert torch.equal(table.table[row], start[row])
