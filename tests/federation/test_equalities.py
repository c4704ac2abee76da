"""The methods against each other: different routes, equal numbers."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from rayfed_hn.config import Config, TrainingConfig
from rayfed_hn.federation.experiment import Plan, make_plan, run_in_process
from rayfed_hn.federation.rules import FedAvg, Hypernetwork, Local
from rayfed_hn.loading import load
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.training import train_locally

SHORT = ["rounds.num_versions=3", "training.steps=4", "training.learning_rate=0.01"]


def plan(bag_root: Path, *words: str) -> Plan:
    return make_plan(load(None, [*SHORT, *words]), bag_root)


def final_networks(plan: Plan) -> dict[str, np.ndarray]:
    server = run_in_process(plan).server
    return {site: server.parameters_for(site) for site in server.sites}


def updates(num_sites: int, size: int, seed: int = 0) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {i: rng.normal(size=size).astype(np.float32) for i in range(num_sites)}


def test_rho_0_is_fedavg_with_equal_weights(bag_root: Path) -> None:
    hypernetwork = final_networks(plan(bag_root, "hypernetwork.rho=0"))
    fedavg = final_networks(plan(bag_root, "method.name=fedavg"))
    for site in fedavg:
        np.testing.assert_array_equal(hypernetwork[site], fedavg[site])


def test_rho_1_with_orthonormal_embeddings_is_isolated_training(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Plain SGD: Adam would amplify the different rounding of the sums.
    monkeypatch.setattr("rayfed_hn.federation.site.train_locally", sgd)
    hypernetwork = final_networks(plan(bag_root, "hypernetwork.rho=1"))
    isolated = final_networks(plan(bag_root, "method.name=local"))
    for site in isolated:
        np.testing.assert_allclose(hypernetwork[site], isolated[site], atol=1e-5)


def test_personal_networks_lie_between_fedavg_and_isolation(bag_root: Path) -> None:
    def spread(networks: dict[str, np.ndarray]) -> float:
        return float(np.ptp(np.stack(list(networks.values())), axis=0).mean())

    shared, personal, isolated = (
        spread(final_networks(plan(bag_root, *words)))
        for words in (["method.name=fedavg"], ["hypernetwork.rho=0.3"], ["method.name=local"])
    )
    assert shared < 1e-7 < 1e-3 * isolated < personal < isolated


def test_an_isolated_site_does_not_depend_on_the_others(bag_root: Path) -> None:
    rule = Local(torch.zeros(5), 3)
    sent = updates(3, 5)
    rule.apply({0: sent[0], 1: sent[1], 2: sent[2]})
    other = Local(torch.zeros(5), 3)
    other.apply({0: sent[0], 1: sent[2], 2: sent[1]})
    np.testing.assert_array_equal(rule.parameters_for(0), other.parameters_for(0))
    np.testing.assert_array_equal(rule.parameters_for(1), other.parameters_for(2))


def test_pooled_training_is_fedavg_with_one_site_that_holds_everything(bag_root: Path) -> None:
    pooled = plan(bag_root, "method.name=pooled")
    site = pooled.site("pooled")
    theta = pooled.initial()
    for version in range(3):
        trained, _ = train_locally(
            pooled.model(),
            theta,
            site.data.train,
            pooled.config.training,
            learning_rate=pooled.learning_rate,
            num_steps=4 * 3,
            seed=site.seed("local training", version),
        )
        theta = theta - (theta - trained)  # as it travels: Adam would amplify its rounding
    np.testing.assert_array_equal(final_networks(pooled)["pooled"], theta.numpy())
    assert {bag.origin for bag in site.data.train} == {0, 1, 2}


def test_order_of_arrival_changes_no_bit() -> None:
    sent = updates(6, 400)
    for make in (
        lambda: FedAvg(torch.ones(400)),
        lambda: Hypernetwork(torch.ones(400), 6, 16, 0.3, 0),
    ):
        forward, backward = make(), make()
        forward.apply(sent)
        backward.apply(dict(reversed(sent.items())))
        for site in range(6):
            np.testing.assert_array_equal(
                forward.parameters_for(site), backward.parameters_for(site)
            )


def test_one_step_of_the_hypernetwork_is_its_closed_form() -> None:
    sent = updates(4, 50)
    rule = Hypernetwork(torch.zeros(50), 4, 16, 0.3, seed=1)
    rule.apply(sent)
    stacked = np.stack([sent[i] for i in range(4)]).astype(np.float64)
    mean = stacked.mean(axis=0)
    for site in range(4):
        expected = -mean - 0.3 * (stacked[site] - mean)
        np.testing.assert_allclose(rule.parameters_for(site), expected, atol=1e-6)


def test_pull_back_is_autograd_through_the_generator() -> None:
    rule = Hypernetwork(torch.randn(30), 5, 3, 0.3, seed=2)
    vectors = torch.randn(5, 30, dtype=torch.float64)
    head = torch.zeros(3, 30, dtype=torch.float64, requires_grad=True)
    generated = rule.net.theta_0.double() + rule.net.embeddings_KE @ head
    (expected,) = torch.autograd.grad((generated * vectors).sum(), head)
    torch.testing.assert_close(rule.net.pull_back(list(range(5)), vectors), expected)


def test_head_stays_bounded_with_far_more_sites_than_dimensions() -> None:
    # Sites that pull back to their own target: without the step limit the error grows every round.
    num_sites, size = 1000, 8
    rule = Hypernetwork(torch.zeros(size), num_sites, 16, 1.0, seed=3)
    targets = np.random.default_rng(4).normal(size=(num_sites, size)).astype(np.float32)
    distances = []
    for _ in range(30):
        networks = np.stack([rule.parameters_for(i) for i in range(num_sites)])
        distances.append(float(np.square(networks - targets).mean()))
        rule.apply({i: 0.5 * (networks[i] - targets[i]) for i in range(num_sites)})
    assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(distances))


def test_noise_scale_0_is_no_noise_and_noise_is_applied_before_release(bag_root: Path) -> None:
    quiet = plan(bag_root, "privacy.noise_scale=0").site("north")
    loud = plan(bag_root, "privacy.noise_scale=0.1").site("north")
    from rayfed_hn.federation.messages import TrainRequest, Update, read_answer

    theta = plan(bag_root).initial().numpy()
    request = TrainRequest("north", 0, theta)
    released = [read_answer(request, site.answer(request)) for site in (quiet, loud)]
    assert all(isinstance(update, Update) for update in released)
    difference = released[0].update - released[1].update  # type: ignore[union-attr]
    layout = ParameterLayout.of(plan(bag_root).model())
    for name, place in layout.places():
        assert (np.abs(difference[place]).max() == 0) == name.endswith("bias"), name


@pytest.mark.parametrize("method", ["local", "pooled"])
def test_baselines_that_share_nothing_are_not_noised(bag_root: Path, method: str) -> None:
    noisy = final_networks(plan(bag_root, f"method.name={method}", "privacy.noise_scale=0.5"))
    clean = final_networks(plan(bag_root, f"method.name={method}"))
    for site in clean:
        np.testing.assert_array_equal(noisy[site], clean[site])


def test_the_seed_decides_everything(bag_root: Path) -> None:
    first, again = (run_in_process(plan(bag_root)).digest for _ in range(2))
    other = run_in_process(plan(bag_root, "run.seed=1")).digest
    assert first == again != other


def test_a_federation_learns(bag_root: Path) -> None:
    from rayfed_hn.federation.results import auc_rows

    longer = plan(bag_root, "rounds.num_versions=15")
    rows = auc_rows(longer, run_in_process(longer).scores)
    assert np.mean([row["auc"] for row in rows if row["auc"] is not None]) > 0.9


def sgd(
    model: nn.Module,
    parameters: Tensor,
    bags: tuple,
    config: TrainingConfig,
    *,
    learning_rate: float,
    num_steps: int,
    seed: int,
    device: str = "cpu",
) -> tuple[Tensor, float]:
    layout, theta = ParameterLayout.of(model), parameters.clone().requires_grad_(True)
    for step in range(num_steps):
        bag = bags[(seed + step) % len(bags)]
        logits, _ = functional_call(model, layout.unflatten(theta), (bag.tensor(),))
        loss = nn.functional.cross_entropy(logits, torch.tensor(bag.label))
        (gradient,) = torch.autograd.grad(loss, theta)
        theta = (theta - 0.05 * gradient).detach().requires_grad_(True)
    return theta.detach(), 0.0


def test_config_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Config().run.seed = 3  # type: ignore[misc]
    assert replace(Config().run, seed=3).seed == 3
