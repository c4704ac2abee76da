"""The server's optimisers against PyTorch's; rows that rest, and clipping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayfed_hn.errors import DataError
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


def moving(optimiser: Optimiser, whole: bool, steps: int = 30) -> RowState:
    """A table of one row that is moved by the same gradients as any other, in one of two ways."""
    state = RowState(torch.from_numpy(draw(1, 1, 40)), optimiser)
    for number in range(steps):
        left = 1 + torch.from_numpy(draw(100 + number, 1, 3))
        right = 1 + torch.from_numpy(draw(200 + number, 3, 40))
        if whole:
            state.step([0], left @ right)
        else:
            state.begin_whole()
            state.move_part(lambda table: table, left, right)
    return state


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_half_a_first_moment_moves_nearly_the_same(kind: str, whole: bool) -> None:
    full, half = (Optimiser(kind, 0.01, 0.9, 0.01, half) for half in (False, True))  # type: ignore[arg-type]
    one, other = moving(full, whole), moving(half, whole)
    kinds = [tensor.dtype for name, tensor in other.state("t").items() if "moment" in name]
    assert kinds == [torch.bfloat16, torch.float32][: len(kinds)]
    assert len(kinds) == {"momentum": 1, "adam": 2}[kind]
    moved = (one.table - torch.from_numpy(draw(1, 1, 40))).abs()
    apart = (one.table - other.table).abs()
    assert 0 < apart.max() < 0.01 * moved.max()
    if kind == "adam":  # whose second moment has seen the same gradients
        torch.testing.assert_close(one.state("t")["t.moment1"], other.state("t")["t.moment1"])


def test_half_a_moment_takes_half_the_memory_and_plain_sgd_none() -> None:
    def taken(kind: str, half: bool) -> list[int]:
        state = RowState(torch.zeros(1, 1000), Optimiser(kind, 0.1, half=half)).state("t")  # type: ignore[arg-type]
        return [t.numel() * t.element_size() for name, t in state.items() if "moment" in name]

    assert taken("momentum", True) == [2000]
    assert taken("adam", True) == [2000, 4000]
    assert taken("adam", False) == [4000, 4000]
    assert taken("sgd", True) == []


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam"])
def test_half_moments_go_through_a_checkpoint(kind: str, whole: bool) -> None:
    optimiser = Optimiser(kind, 0.05, 0.9, 0.01, half=True)  # type: ignore[arg-type]
    before = moving(optimiser, whole, steps=5)
    again = RowState(torch.zeros(1, 40), optimiser)
    again.load_state({name: t.clone() for name, t in before.state("t").items()}, "t")
    left, right = torch.from_numpy(draw(7, 1, 3)), torch.from_numpy(draw(8, 3, 40))
    for state in (before, again):
        state.begin_whole()
        state.move_part(lambda table: table, left, right)
        state.step([0], left @ right)
    for name, tensor in before.state("t").items():
        assert torch.equal(again.state("t")[name], tensor)
    if kind != "sgd":
        whole_moments = RowState(torch.zeros(1, 40), Optimiser(kind, 0.05))  # type: ignore[arg-type]
        with pytest.raises(DataError, match=r"'t\.moment0' should be torch\.float32"):
            whole_moments.load_state(before.state("t"), "t")
