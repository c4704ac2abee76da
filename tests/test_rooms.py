"""Processes are counted into nodes: no node, and no GPU of it, holds more than it has."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.rooms import Ask, Node, fit, largest


def nodes(*cpus_and_gpus: tuple[float, int]) -> list[Node]:
    return [Node(f"n{i}", cpus, gpus) for i, (cpus, gpus) in enumerate(cpus_and_gpus)]


def test_a_core_on_each_of_three_nodes_is_no_room_for_two_on_one() -> None:
    three = nodes((1, 0), (1, 0), (1, 0))
    assert fit([Ask(2)], three) == [None]
    assert None not in fit([Ask(1)] * 3, three)
    # In sum there is room for four of three quarters; node by node there is none.
    assert fit([Ask(0.75)] * 4, three).count(None) == 1


def test_the_largest_fraction_is_that_of_the_fullest_node() -> None:
    three = nodes((1, 0), (1, 0), (1, 0))
    assert largest(three, 0.75, 4, lambda each: [Ask(each)] * 4) == 0.5
    assert largest(three, 1.0, 3, lambda each: [Ask(each)] * 3) == 1.0
    assert largest(nodes((0, 0)), 1.0, 1, lambda each: [Ask(each)]) is None


def test_pinned_processes_take_their_node_before_others_do() -> None:
    where = [Node("a", 1), Node("b", 1, resources={"site:b": 1})]
    centre, pinned = Ask(1), Ask(1, resources={"site:b": 0.001})
    assert fit([centre, pinned], where) == [0, 1]
    labelled = [Node("a", 1, labels={"hospital": "a"}), Node("b", 1)]
    assert fit([centre, Ask(1, labels={"hospital": "a"})], labelled) == [1, 0]


def test_a_gpu_elsewhere_is_of_no_use_to_who_is_pinned() -> None:
    where = [Node("a", 4, labels={"hospital": "a"}), Node("b", 4, 1, labels={"hospital": "b"})]
    asks = [Ask(1, 0.5, labels={"hospital": name}) for name in "ab"]
    assert fit(asks, where) == [None, 1]


def test_a_fraction_is_of_one_gpu() -> None:
    assert fit([Ask(1, 0.6)] * 3, nodes((8, 2))).count(None) == 1
    assert None not in fit([Ask(1, 0.6)] * 3, nodes((8, 2), (8, 1)))
    assert None not in fit([Ask(1, 0.9), Ask(1, 0.1)], nodes((8, 1)))


sizes = st.integers(1, 8).map(lambda n: n / 4)
fractions = st.integers(0, 4).map(lambda n: n / 4)


@given(
    st.lists(st.tuples(sizes, st.integers(0, 2)), min_size=1, max_size=3),
    st.tuples(sizes, fractions),
    st.tuples(sizes, fractions),
    st.integers(1, 5),
)
def test_nothing_that_fits_is_refused(
    have: list[tuple[float, int]],
    centre: tuple[float, float],
    host: tuple[float, float],
    count: int,
) -> None:
    """One of one kind and some of another, as a run has them, against trying everything."""
    there, asks = nodes(*have), [Ask(*centre), *[Ask(*host)] * count]
    found = fit(asks, there)
    if None not in found:
        assert _holds(asks, [n for n in found if n is not None], there)
    else:
        every = itertools.product(range(len(there)), repeat=len(asks))
        assert not any(_holds(asks, one, there) for one in every)


def _holds(asks: Sequence[Ask], found: Sequence[int], there: Sequence[Node]) -> bool:
    return all(
        _on_one([ask for ask, place in zip(asks, found, strict=True) if place == i], node)
        for i, node in enumerate(there)
    )


def _on_one(asks: Sequence[Ask], node: Node) -> bool:
    if sum(ask.cpus for ask in asks) > node.cpus:
        return False
    fractions = [ask.gpus for ask in asks if ask.gpus]
    every = itertools.product(range(node.gpus), repeat=len(fractions))
    return any(
        all(sum(f for f, g in zip(fractions, one, strict=True) if g == gpu) <= 1 for gpu in one)
        for one in every
    )


@pytest.mark.parametrize("count", [0, 1])
def test_nobody_asks_for_nothing(count: int) -> None:
    assert fit([Ask(1)] * count, []) == [None] * count
