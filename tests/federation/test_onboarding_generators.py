"""What makes the network of a site that was never there, against the rules it is taken from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from rayfed_hn.federation.rules.averaging import FedAvg, Local
from rayfed_hn.federation.rules.base import Contribution, Generator, Rule
from rayfed_hn.federation.rules.estimated import EstimatedHypernetwork
from rayfed_hn.federation.rules.generator import Hypernetwork, SiteFeatures
from rayfed_hn.federation.rules.optimisers import Optimiser
from rayfed_hn.federation.rules.pfedhn import PFedHN

P, K = 23, 5
START = torch.linspace(-1, 1, P)


def _base(kind: str, dim: int = 16) -> Hypernetwork:
    features = SiteFeatures(kind, K, dim, 0.01, 0)  # type: ignore[arg-type]
    return Hypernetwork(START, K, features, dim, 0.3)


def _pfedhn(chunks: int) -> PFedHN:
    return PFedHN(P, K, 3, Optimiser("adam", 0.001), chunks, seed=0)


MAKERS: dict[str, Callable[[], Rule]] = {
    "fixed": lambda: _base("fixed"),
    "fixed, overlapping": lambda: _base("fixed", 3),
    "learned": lambda: _base("learned"),
    "mlp": lambda: _base("mlp", 3),
    "pfedhn": lambda: _pfedhn(1),
    "pfedhn in 3 pieces": lambda: _pfedhn(3),
    "rho": lambda: EstimatedHypernetwork(START, K, [0, 10, P], kernel=False),
    "kernel": lambda: EstimatedHypernetwork(START, K, [0, 10, P], kernel=True),
}


def _train(rule: Rule, first: int = 0, rounds: int = 4) -> None:
    rng = np.random.default_rng(first)
    own_KP = rng.normal(size=(K, P))
    for turn in range(first, first + rounds):
        sent = (own_KP + 0.1 * rng.normal(size=(K, P))).astype(np.float32)
        every = [Contribution(i, update, turn=turn) for i, update in enumerate(sent)]
        rule.apply(every, complete=True, among=K)


def _rows(rule: Rule) -> Tensor:
    """What the generator makes the networks of the sites themselves from, (K, V)."""
    if isinstance(rule, EstimatedHypernetwork):
        return torch.eye(K)
    if isinstance(rule, Hypernetwork) and "mlp.0.weight" not in rule.state():
        found = rule.site_embeddings()
        assert found is not None
        return torch.from_numpy(found.rows_KE).float()
    return rule.state()["site_embeddings"].clone()


@pytest.fixture(params=MAKERS)
def rule(request: pytest.FixtureRequest) -> Rule:
    made = MAKERS[request.param]()
    _train(made)
    return made


def _of(rule: Rule) -> Generator:
    generator = rule.generator()
    assert generator is not None
    return generator


def test_the_row_of_a_site_makes_the_network_of_that_site(rule: Rule) -> None:
    generator, rows_KV = _of(rule), _rows(rule)
    for site in range(K):
        made_P = generator.make(rows_KV[site])
        assert made_P.dtype == torch.float32
        np.testing.assert_allclose(made_P.numpy(), rule.parameters_for(site), atol=2e-6)
    torch.testing.assert_close(generator.start_V, rows_KV.mean(dim=0))
    networks = np.stack([rule.parameters_for(site) for site in range(K)])
    assert networks.std(axis=0).max() > 0.01  # or all of this would say nothing


def test_the_derivative_in_the_embedding_is_that_of_finite_differences(rule: Rule) -> None:
    generator = _of(rule)
    at_V = _rows(rule)[1] + 0.1
    jacobian_PV = torch.autograd.functional.jacobian(generator.make, at_V)
    assert isinstance(jacobian_PV, Tensor)
    step = 1e-2
    for i in range(len(at_V)):
        ahead, behind = at_V.clone(), at_V.clone()
        ahead[i] += step
        behind[i] -= step
        slope_P = (generator.make(ahead) - generator.make(behind)) / (2 * step)
        torch.testing.assert_close(jacobian_PV[:, i], slope_P, atol=2e-3, rtol=0.02)
    assert jacobian_PV.abs().max() > 1e-3


def test_a_generator_is_frozen(rule: Rule) -> None:
    """What the federation does later does not change what was handed out."""
    generator = _of(rule)
    at_V, start_V = _rows(rule)[2] + 0.1, generator.start_V.clone()
    before_P = generator.make(at_V).clone()
    _train(rule, first=4)
    assert torch.equal(generator.make(at_V), before_P)
    assert torch.equal(generator.start_V, start_V)
    assert not torch.equal(_of(rule).make(at_V), before_P)


def test_where_a_rule_has_a_base_nothing_makes_it() -> None:
    """An embedding of 0 gives theta_0, and the mean of all sites the mean of their networks."""
    for name in ("fixed", "learned", "rho", "kernel"):
        rule = MAKERS[name]()
        _train(rule)
        generator = _of(rule)
        zero_P = generator.make(torch.zeros_like(generator.start_V))
        assert torch.equal(zero_P, rule.state()["theta_0"])
        mean_P = np.mean([rule.parameters_for(site) for site in range(K)], axis=0)
        np.testing.assert_allclose(generator.make(generator.start_V).numpy(), mean_P, atol=2e-6)


@pytest.mark.parametrize("rule", [FedAvg(START), Local(START, K)])
def test_averages_and_isolated_sites_make_no_networks(rule: Rule) -> None:
    assert rule.generator() is None
