"""Networks of many sites, made together: each is what it would be alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.federation.rules import blocks
from rayfed_hn.federation.rules.averaging import FedAvg, Local
from rayfed_hn.federation.rules.base import Contribution, Rule
from rayfed_hn.federation.rules.blocks import generate
from rayfed_hn.federation.rules.estimated import EstimatedHypernetwork
from rayfed_hn.federation.rules.generator import Hypernetwork, SiteFeatures
from rayfed_hn.federation.rules.optimisers import Optimiser
from rayfed_hn.federation.rules.pfedhn import PFedHN

SIZE, SITES = 211, 9  # in three pieces, each is wide enough for the same bits
START = torch.linspace(-1, 1, SIZE)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [64, 16_384, 16_390, 40_001])
@pytest.mark.parametrize("dim", [3, 16, 100])
def test_who_else_is_made_changes_no_bit_of_a_network(size: int, dim: int) -> None:
    base_P, head_EP, rows_KE = drawn(0, size), drawn(1, dim, size), drawn(2, 100, dim)
    together = generate(base_P, rows_KE, head_EP)
    assert len(together) == 100
    for some in ([0], [63], [64], [99], [5, 70], list(range(30, 39)), list(range(99, -1, -1))):
        for place, network in zip(some, generate(base_P, rows_KE[some], head_EP), strict=True):
            np.testing.assert_array_equal(network, together[place])
    expected_KP = base_P.double() + rows_KE.double() @ head_EP.double()
    np.testing.assert_allclose(np.stack(together), expected_KP, rtol=1e-5, atol=1e-4)


@given(
    st.integers(1, 140),
    st.integers(1, 60),
    st.integers(1, 9),
    st.integers(1, 64),
    st.integers(0, 2**31),
)
def test_base_plus_row_times_head(rows: int, size: int, dim: int, width: int, seed: int) -> None:
    base_P, head_EP, rows_KE = (
        drawn(seed + i, *shape) for i, shape in enumerate([(size,), (dim, size), (rows, dim)])
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "WIDTH", width)
        found = generate(base_P, rows_KE, head_EP)
    expected_KP = (base_P.double() + rows_KE.double() @ head_EP.double()).numpy()
    assert [network.dtype for network in found] == [np.float32] * rows
    np.testing.assert_allclose(np.stack(found), expected_KP, rtol=1e-5, atol=1e-5)


def _pfedhn(chunks: int) -> Rule:
    return PFedHN(SIZE, SITES, 3, Optimiser("momentum", 0.1, 0.9, 0.01), chunks, 0)


def _hypernetwork(kind: str) -> Rule:
    features = SiteFeatures(kind, SITES, 4, 0.05, 0)  # pyright: ignore[reportArgumentType]
    return Hypernetwork(START, SITES, features, 4, 0.4)


RULES: dict[str, Callable[[], Rule]] = {
    "fedavg": lambda: FedAvg(START),
    "local": lambda: Local(START, SITES),
    "hypernetwork": lambda: _hypernetwork("fixed"),
    "hypernetwork, learned": lambda: _hypernetwork("learned"),
    "hypernetwork, mlp": lambda: _hypernetwork("mlp"),
    "pfedhn": lambda: _pfedhn(1),
    "pfedhn, chunks": lambda: _pfedhn(3),
    "estimated": lambda: EstimatedHypernetwork(START, SITES, [0, 10, SIZE], kernel=True),
}


def moved(name: str) -> Rule:
    """A rule after two rounds."""
    rule = RULES[name]()
    for turn in range(2):
        learn(rule, turn)
    return rule


def learn(rule: Rule, turn: int) -> None:
    sent = np.random.default_rng(turn).normal(size=(SITES, SIZE)).astype(np.float32)
    contributions = [Contribution(i, update, turn=turn) for i, update in enumerate(sent)]
    rule.apply(contributions, complete=True, among=SITES)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("sites", [range(SITES), [4], [7, 2], [3, 3, 0]])
@pytest.mark.parametrize("gate", [1.0, 0.25])
def test_networks_of_some_are_those_of_each(name: str, sites: Sequence[int], gate: float) -> None:
    rule = moved(name)
    rule.gate = gate
    networks, evaluated = rule.networks(sites), rule.evaluated(sites)
    assert len(networks) == len(evaluated) == len(sites)
    shared = rule.shared()
    for site, network, scored in zip(sites, networks, evaluated, strict=True):
        assert network.dtype == np.float32
        assert network.shape == (rule.size,) == (SIZE,)
        np.testing.assert_array_equal(network, rule.parameters_for(site))
        expected = network if shared is None else shared + np.float32(gate) * (network - shared)
        np.testing.assert_allclose(scored, expected, rtol=1e-6, atol=1e-6)
        if gate == 1:
            np.testing.assert_array_equal(scored, network)
    if name != "fedavg":
        whole = rule.networks(range(SITES))
        assert all(not np.array_equal(whole[0], other) for other in whole[1:])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("gate", [1.0, 0.25])
def test_what_sites_received_stays_as_it_was(name: str, gate: float) -> None:
    rule = moved(name)
    rule.gate = gate
    received = [*rule.networks(range(SITES)), *rule.evaluated(range(SITES))]
    shared = rule.shared()
    received += [] if shared is None else [shared]
    before = [vector.copy() for vector in received]
    learn(rule, 2)
    for vector, kept, now in zip(received, before, rule.networks(range(SITES)), strict=False):
        np.testing.assert_array_equal(vector, kept)
        assert not np.array_equal(now, kept)
    for vector, kept in zip(received, before, strict=True):
        np.testing.assert_array_equal(vector, kept)


def test_what_all_share_is_made_once() -> None:
    one, *others = moved("fedavg").networks(range(SITES))
    assert all(other is one for other in others)
