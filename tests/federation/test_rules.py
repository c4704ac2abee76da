"""Every rule against its equations, written a second time here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rayfed_hn.federation.rules import make_rule
from rayfed_hn.federation.rules.averaging import FedAvg, Local
from rayfed_hn.federation.rules.base import Contribution, Rule
from rayfed_hn.federation.rules.estimated import EstimatedHypernetwork
from rayfed_hn.federation.rules.generator import Hypernetwork, SiteFeatures
from rayfed_hn.federation.rules.optimisers import Optimiser
from rayfed_hn.federation.rules.pfedhn import PFedHN
from rayfed_hn.loading import load
from rayfed_hn.models.parameters import ParameterLayout

P, K = 23, 5
PLAIN = Optimiser("sgd", 1.0)


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def complete_round(sent_KP: np.ndarray, turn: int) -> list[Contribution]:
    return [Contribution(i, update, turn=turn) for i, update in enumerate(sent_KP)]


def pfedhn(optimiser: Optimiser = PLAIN, chunks: int = 1, dim: int | None = None) -> PFedHN:
    return PFedHN(P, K, dim, optimiser, chunks, seed=0)


def rules() -> list[Rule]:
    start = torch.from_numpy(draw(9, P))

    def base(kind: str, dim: int = 16) -> Hypernetwork:
        return Hypernetwork(start, K, SiteFeatures(kind, K, dim, 0.01, 0), dim, 0.3)  # type: ignore[arg-type]

    return [
        FedAvg(start),
        Local(start, K),
        base("fixed"),
        base("learned"),
        base("mlp", 3),
        pfedhn(Optimiser("momentum", 0.01, 0.9, 0.001)),
        pfedhn(Optimiser("adam", 0.001), chunks=4),
        EstimatedHypernetwork(start, K, [0, 10, P], kernel=True),
        EstimatedHypernetwork(start, K, [0, P], kernel=False),
    ]


@pytest.mark.parametrize("number", range(len(rules())))
def test_a_rule_goes_on_from_its_state(number: int) -> None:
    one, other = rules()[number], rules()[number]
    sent = draw(1, 6, K, P)
    for version in range(3):
        one.apply(complete_round(sent[version], version), complete=True, among=K)
    other.load_state({name: tensor.clone() for name, tensor in one.state().items()})
    for version in range(3, 6):
        for rule in (one, other):
            rule.apply(complete_round(sent[version], version), complete=True, among=K)
    for site in range(K):
        np.testing.assert_array_equal(one.parameters_for(site), other.parameters_for(site))
        assert np.isfinite(one.parameters_for(site)).all()


@pytest.mark.parametrize("number", range(len(rules())))
def test_what_is_shared_is_the_mean_of_the_networks(number: int) -> None:
    rule = rules()[number]
    rule.apply([Contribution(i, u) for i, u in enumerate(draw(2, K, P))], complete=True, among=K)
    shared = rule.shared()
    if shared is None:
        assert isinstance(rule, Local)
        return
    mean = np.mean([rule.parameters_for(i) for i in range(K)], axis=0)
    if not isinstance(rule, EstimatedHypernetwork):  # its offsets may have a mean of their own
        np.testing.assert_allclose(shared, mean, atol=1e-5)


# -- pFedHN ------------------------------------------------------------------------------------


class Plain:
    """pFedHN from its equations: autograd, dense SGD with momentum and decay; lazy rows."""

    def __init__(self, rule: PFedHN, rate: float, momentum: float, decay: float) -> None:
        state = rule.state()
        self.rows = state["site_embeddings"].clone()
        dim = self.rows.shape[1]
        shapes = {"head": (100, P), "bias": (P,)}
        for i, inputs in enumerate((dim, 100, 100, 100)):
            shapes |= {f"{i}.weight": (100, inputs), f"{i}.bias": (100,)}
        self.phi = {n: state[f"phi.{n}"].reshape(s).clone() for n, s in shapes.items()}
        self.velocity = {n: torch.zeros_like(t) for n, t in self.phi.items()}
        self.row_velocity = torch.zeros_like(self.rows)
        self.rate, self.momentum, self.decay = rate, momentum, decay

    def network(self, phi: dict[str, Tensor], row: Tensor) -> Tensor:
        x = phi["0.weight"] @ row + phi["0.bias"]
        for i in (1, 2, 3):
            x = phi[f"{i}.weight"] @ torch.relu(x) + phi[f"{i}.bias"]
        return x @ phi["head"] + phi["bias"]

    def gradients(self, site: int, update: np.ndarray) -> list[Tensor]:
        phi = {n: t.clone().requires_grad_(True) for n, t in self.phi.items()}
        row = self.rows[site].clone().requires_grad_(True)
        theta = self.network(phi, row)
        return list(
            torch.autograd.grad(theta, [*phi.values(), row], grad_outputs=torch.tensor(update))
        )

    def step(self, site: int, update: np.ndarray) -> None:
        gradients = self.gradients(site, update)
        norm = torch.sqrt(sum((g.square().sum() for g in gradients), torch.tensor(0.0)))
        gradients = [g * min(1.0, 50.0 / float(norm)) for g in gradients]
        for name, gradient in zip(self.phi, gradients, strict=False):
            v = self.momentum * self.velocity[name] + gradient + self.decay * self.phi[name]
            self.velocity[name] = v
            self.phi[name] = self.phi[name] - self.rate * v
        v = self.momentum * self.row_velocity[site] + gradients[-1] + self.decay * self.rows[site]
        self.row_velocity[site] = v
        self.rows[site] = self.rows[site] - self.rate * v


def test_pfedhn_one_site_at_a_time_is_the_plain_loop() -> None:
    rule = pfedhn(Optimiser("momentum", 0.01, 0.9, 0.001))
    plain = Plain(rule, 0.01, 0.9, 0.001)
    order = np.random.default_rng(3).integers(K, size=25)
    for number, site in enumerate(order.tolist()):
        update = draw(100 + number, P) * (30 if number % 5 == 0 else 1)  # some are clipped
        rule.apply([Contribution(site, update)], complete=False, among=K)
        plain.step(site, update)
    for site in range(K):
        expected = plain.network(plain.phi, plain.rows[site]).numpy()
        np.testing.assert_allclose(rule.parameters_for(site), expected, rtol=1e-4, atol=1e-4)


def test_pull_back_is_autograd_through_the_whole_hypernetwork() -> None:
    rule = pfedhn()
    plain = Plain(rule, 1.0, 0.0, 0.0)
    update = draw(4, P) / 10
    before = {name: tensor.clone() for name, tensor in rule.state().items()}
    rule.apply([Contribution(2, update)], complete=False, among=K)
    after = rule.state()
    expected = dict(zip([*plain.phi, "row"], plain.gradients(2, update), strict=True))
    for name, gradient in expected.items():
        if name == "row":
            moved = before["site_embeddings"][2] - after["site_embeddings"][2]
        else:
            moved = (before[f"phi.{name}"] - after[f"phi.{name}"]).reshape(gradient.shape)
        torch.testing.assert_close(moved, gradient, rtol=1e-4, atol=1e-6)
    for site in (0, 1, 3, 4):
        torch.testing.assert_close(
            after["site_embeddings"][site], before["site_embeddings"][site], rtol=0, atol=0
        )


@pytest.mark.parametrize("chunks", [1, 4])
def test_a_batch_is_the_weighted_mean_of_single_pull_backs(chunks: int) -> None:
    sent, discounts = draw(5, K, P) / 20, [1.0, 0.5, 0.7, 1.0, 0.3]
    contributions = [Contribution(i, sent[i], discounts[i]) for i in range(K)]
    start = pfedhn(chunks=chunks).state()
    batch = pfedhn(chunks=chunks)
    batch.apply(contributions, complete=False, among=K)
    moved = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    for one in contributions:
        single = pfedhn(chunks=chunks)
        single.apply([one], complete=False, among=K)
        for name, tensor in single.state().items():
            moved[name] += start[name] - tensor
    for name, tensor in batch.state().items():
        if name.endswith("steps"):
            continue
        share = 1 if name == "site_embeddings" else K  # a site's row is its own
        torch.testing.assert_close(start[name] - tensor, moved[name] / share, rtol=1e-3, atol=1e-6)


def test_chunks_make_a_network_from_fewer_numbers() -> None:
    def count(rule: PFedHN) -> int:
        return sum(t.numel() for name, t in rule.state().items() if name.startswith("phi.head"))

    assert count(pfedhn(chunks=4)) < count(pfedhn()) / 3
    assert pfedhn(chunks=4).parameters_for(0).shape == (P,)


# -- base plus generator -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["learned", "mlp"])
def test_learned_features_follow_autograd(kind: str) -> None:
    features = SiteFeatures(kind, K, 3, 0.01, 0)  # type: ignore[arg-type]
    start, gradient = features([1, 3]), torch.from_numpy(draw(6, 2, 3))
    for _ in range(50):
        features.learn([1, 3], gradient)
    fallen = ((features([1, 3]) - start) * gradient).sum()
    assert fallen < -0.1
    assert torch.allclose(features(list(range(K))).norm(dim=1), torch.ones(K).double(), atol=1e-6)


def test_an_incomplete_round_is_the_uncentred_step() -> None:
    rule = Hypernetwork(torch.zeros(P), K, SiteFeatures("fixed", K, 16, 0.01, 0), 16, 0.3)
    sent = draw(7, 2, P)
    rule.apply(
        [Contribution(1, sent[0], 0.5, 2.0), Contribution(4, sent[1])], complete=False, among=K
    )
    base = -0.7 / K * (0.5 * 2.0 * sent[0] + sent[1])
    expected = {1: base - 0.3 * sent[0], 4: base - 0.3 * sent[1], 0: base}
    for site, network in expected.items():
        np.testing.assert_allclose(rule.parameters_for(site), network, atol=1e-6)


def test_the_gate_is_closed_while_training_only_as_far_as_asked() -> None:
    features = SiteFeatures("fixed", K, 16, 0.01, 0)
    rule = Hypernetwork(torch.zeros(P), K, features, 16, 0.3)
    rule.gate = 0.25
    rule.apply([Contribution(i, u) for i, u in enumerate(draw(8, K, P))], complete=True, among=K)
    shared = rule.shared()
    assert shared is not None
    for site in range(K):
        offset = rule.parameters_for(site) - shared
        np.testing.assert_allclose(rule.evaluated([site])[0], shared + 0.25 * offset, atol=1e-6)


@pytest.mark.parametrize("estimate", ["none", "rho", "kernel"])
@pytest.mark.parametrize("method", ["hypernetwork", "hypernetwork_ft"])
def test_every_form_of_the_hypernetwork_has_its_gate(method: str, estimate: str) -> None:
    words = [f"method.name={method}", f"hypernetwork.estimate={estimate}", "hypernetwork.gate=0.5"]
    rule = make_rule(load(None, words), torch.zeros(P), ParameterLayout((("a", (P,)),)), K)
    for turn in range(3):
        sent = draw(8, K, P) + draw(9 + turn, K, P) / 9
        rule.apply(complete_round(sent, turn), complete=True, among=K)
    shared = rule.shared()
    assert shared is not None
    for site in range(K):
        own = rule.parameters_for(site)
        assert not np.allclose(own, shared, atol=1e-2)
        np.testing.assert_allclose(rule.evaluated([site])[0], (own + shared) / 2, atol=1e-5)


def test_where_nothing_is_shared_or_the_gate_is_open_nothing_is_gated() -> None:
    for rule in rules():
        rule.apply(complete_round(draw(2, K, P), 0), complete=True, among=K)
        if isinstance(rule, Local):
            rule.gate = 0.5
        np.testing.assert_array_equal(rule.evaluated([1])[0], rule.parameters_for(1))


# -- estimated ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [False, True])
def test_the_estimate_is_its_formula(kernel: bool) -> None:
    edges = [0, 9, P]
    rule = EstimatedHypernetwork(torch.zeros(P), K, edges, kernel)
    own = draw(10, K, P)  # what a site has in common from round to round
    total: list[np.ndarray | None] = [None, None]
    common: list[np.ndarray | None] = [None, None]
    offsets, theta, before = np.zeros((K, P)), np.zeros(P), np.zeros((K, P))
    for turn in range(6):
        u = (own + 0.5 * draw(20 + turn, K, P)).astype(np.float64)
        rule.apply(complete_round(u.astype(np.float32), turn), complete=True, among=K)
        u = u.astype(np.float32).astype(np.float64)
        d = u - u.mean(0)
        for k, layer in enumerate((slice(0, 9), slice(9, P))):
            squares = (d[:, layer] ** 2).sum(1)
            old = total[k]
            total[k] = squares if old is None else 0.8 * old + 0.2 * squares
            if turn % 2:
                cross = d[:, layer] @ before[:, layer].T
                cross, past = (cross + cross.T) / 2, common[k]
                common[k] = cross if past is None else 0.8 * past + 0.2 * cross
            c, t = common[k], total[k]
            if c is None or t is None:
                continue
            if kernel:
                values, vectors = np.linalg.eigh(c)
                positive = (vectors * values.clip(0)) @ vectors.T
                noise = np.maximum(t - np.diag(c), 1e-3 * t.mean() + 1e-12)
                mix = positive @ np.linalg.inv(positive + np.diag(noise))
            else:
                mix = np.clip(np.trace(c) / t.sum(), 0, 1) * np.eye(K)
            offsets[:, layer] -= mix @ d[:, layer]
        theta -= u.mean(0)
        before = d.astype(np.float32).astype(np.float64)
    for site in range(K):
        np.testing.assert_allclose(rule.parameters_for(site), theta + offsets[site], atol=1e-4)
    assert np.abs(offsets).max() > 0.1


def test_only_two_turns_of_one_pair_are_compared() -> None:
    # Halves of different pairs overlap: what they have in common is partly the same bags.
    rule = EstimatedHypernetwork(torch.zeros(P), 2, [0, P], kernel=False)
    sent = draw(10, 2, P)
    for turns in ((0, 0), (2, 1), (3, 3)):
        rule.apply(
            [Contribution(i, sent[i], turn=turns[i]) for i in range(2)], complete=True, among=K
        )
        known = ~rule.state()["common"][0].diagonal().isnan()
        assert known.tolist() == {0: [False, False], 2: [False, True], 3: [True, True]}[turns[0]]
    assert rule.state()["common"][0].isnan().sum() == 2  # the two never finished a pair together
