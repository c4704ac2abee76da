"""The methods against each other: different routes, equal numbers."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from whole_runs import final_networks, plan, sgd

from rayfed_hn.bags import store
from rayfed_hn.config import Config
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.messages import TrainRequest, Update, read_answer
from rayfed_hn.federation.rules import pfedhn
from rayfed_hn.federation.rules.averaging import Local
from rayfed_hn.federation.rules.base import Contribution
from rayfed_hn.federation.rules.generator import Hypernetwork, SiteFeatures
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.tasks import Binary
from rayfed_hn.models.training import train_locally

BINARY = Binary(("normal", "tumour"))


def generator(size: int, num_sites: int, dim: int, rho: float, seed: int = 0) -> Hypernetwork:
    features = SiteFeatures("fixed", num_sites, dim, 0.001, seed)
    return Hypernetwork(torch.zeros(size), num_sites, features, dim, rho)


def round_of(sent: dict[int, np.ndarray]) -> list[Contribution]:
    return [Contribution(site, sent[site]) for site in sorted(sent)]


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
    monkeypatch.setattr("rayfed_hn.models.cohort.train_locally", sgd)
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
    rule.apply(round_of(sent), complete=True, among=len(sent))
    other = Local(torch.zeros(5), 3)
    other.apply(round_of({0: sent[0], 1: sent[2], 2: sent[1]}), complete=True, among=3)
    np.testing.assert_array_equal(rule.parameters_for(0), other.parameters_for(0))
    np.testing.assert_array_equal(rule.parameters_for(1), other.parameters_for(2))


def test_pooled_training_is_fedavg_with_one_site_that_holds_everything(bag_root: Path) -> None:
    pooled = plan(bag_root, "method.name=pooled")
    site = pooled.site("pooled")
    theta = pooled.initial()
    for version in range(3):
        trained = train_locally(
            pooled.model(),
            theta,
            site.data.train,
            pooled.config.training,
            task=pooled.task,
            learning_rate=pooled.learning_rate,
            num_steps=4 * 3,
            seed=site._trainer._seed("local training", version),
        ).parameters
        theta = theta - (theta - trained)  # as it travels: Adam would amplify its rounding
    np.testing.assert_array_equal(final_networks(pooled)["pooled"], theta.numpy())
    assert {bag.origin for bag in site.data.train} == {0, 1, 2}


def test_one_step_of_the_hypernetwork_is_its_closed_form() -> None:
    sent = updates(4, 50)
    rule = generator(50, 4, 16, 0.3, seed=1)
    rule.apply(round_of(sent), complete=True, among=len(sent))
    stacked = np.stack([sent[i] for i in range(4)]).astype(np.float64)
    mean = stacked.mean(axis=0)
    for site in range(4):
        expected = -mean - 0.3 * (stacked[site] - mean)
        np.testing.assert_allclose(rule.parameters_for(site), expected, atol=1e-6)


def test_head_stays_bounded_with_far_more_sites_than_dimensions() -> None:
    # Sites that pull back to their own target: without the step limit the error grows every round.
    num_sites, size = 1000, 8
    rule = generator(size, num_sites, 16, 1.0, seed=3)
    targets = np.random.default_rng(4).normal(size=(num_sites, size)).astype(np.float32)
    distances = []
    for _ in range(30):
        networks = np.stack([rule.parameters_for(i) for i in range(num_sites)])
        distances.append(float(np.square(networks - targets).mean()))
        sent = {i: 0.5 * (networks[i] - targets[i]) for i in range(num_sites)}
        rule.apply(round_of(sent), complete=True, among=len(sent))
    assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(distances))


def test_noise_scale_0_is_no_noise_and_noise_is_applied_before_release(bag_root: Path) -> None:
    quiet = plan(bag_root, "privacy.noise_scale=0").site("north")
    loud = plan(bag_root, "privacy.noise_scale=0.1").site("north")
    theta = plan(bag_root).initial().numpy()
    request = TrainRequest("north", 0, theta, 0)
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
    from rayfed_hn.federation.results import site_rows

    longer = plan(bag_root, "rounds.num_versions=15")
    rows = site_rows(longer, run_in_process(longer).scores)
    assert np.mean([row["value"] for row in rows if row["value"] is not None]) > 0.9


# -- other ways to the same run ----------------------------------------------------------------


@pytest.mark.parametrize("method", ["fedavg", "hypernetwork"])
def test_a_buffer_for_all_who_are_asked_together_is_a_synchronous_round(
    bag_root: Path, method: str
) -> None:
    waiting = plan(bag_root, f"method.name={method}")
    buffered = plan(bag_root, f"method.name={method}", "rounds.buffer_size=3")
    host, server = SiteHost(buffered, buffered.participants), buffered.server()
    while not server.finished:
        for request in reversed(server.dispatch()):
            event = read_answer(request, host.answer(request))
            assert isinstance(event, Update)
            server.receive(event)
    expected = run_in_process(waiting).server.state()
    for name, tensor in server.state().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("method", ["fedavg", "hypernetwork", "pfedhn"])
def test_simulated_time_changes_nothing_where_rounds_wait(bag_root: Path, method: str) -> None:
    simulated = ["simulation.enabled=true", "simulation.slowest=5"]
    real = run_in_process(plan(bag_root, f"method.name={method}"))
    clock = run_in_process(plan(bag_root, f"method.name={method}", *simulated))
    assert clock.digest == real.digest
    assert clock.seconds > 0
    for one, other in zip(clock.scores, real.scores, strict=True):
        np.testing.assert_array_equal(one.mixture_BE, other.mixture_BE)


def test_fedprox_without_its_pull_is_fedavg(bag_root: Path) -> None:
    fedavg = run_in_process(plan(bag_root, "method.name=fedavg", "training.proximal_mu=3")).digest
    none, some = (
        run_in_process(plan(bag_root, "method.name=fedprox", f"training.proximal_mu={mu}")).digest
        for mu in (0, 0.1)
    )
    assert none == fedavg != some


def rewritten(bag_root: Path, root: Path, names: dict[str, str]) -> Path:
    """A store with some of the sites, under other names."""
    if not root.exists():
        store.create(root, {"encoder": "test", "feature_dim": 12})
    for old, new in names.items():
        bags = store.SiteBags(bag_root, old)
        for number in range(len(bags.entries)):
            store.write(root, replace(bags.load(number), site=new))
    return root


@pytest.mark.parametrize("method", ["fedavg", "local", "hypernetwork"])
def test_a_federation_of_one_site_is_pooled_training(
    bag_root: Path, tmp_path: Path, method: str
) -> None:
    # Under the name that pooled training has, which its draws follow from.
    root = rewritten(bag_root, tmp_path / "one", {"south": "pooled"})
    one, pooled = (run_in_process(plan(root, f"method.name={m}")) for m in (method, "pooled"))
    assert one.server.sites == pooled.server.sites == ("pooled",)
    theta = pooled.server.parameters_for("pooled")
    np.testing.assert_array_equal(one.server.parameters_for("pooled"), theta)
    np.testing.assert_array_equal(one.scores[0].last_BE, pooled.scores[0].last_BE)
    np.testing.assert_array_equal(one.scores[0].best_BE, pooled.scores[0].best_BE)
    assert not np.array_equal(theta, plan(root).initial().numpy())


@pytest.mark.parametrize(
    "others",
    [{}, {"west": "west"}, {"south": "west", "west": "south"}, {"south": "a", "west": "z"}],
)
def test_an_isolated_run_does_not_depend_on_who_else_is_there(
    bag_root: Path, tmp_path: Path, others: dict[str, str]
) -> None:
    # Its own folder stays as it is; the others are gone, exchanged or renamed.
    shutil.copytree(bag_root, tmp_path / "bags")
    for name in ("south", "west"):
        shutil.rmtree(tmp_path / "bags" / f"site={name}")
    root = rewritten(bag_root, tmp_path / "bags", others)
    with_others = run_in_process(plan(bag_root, "method.name=local"))
    with_fewer = run_in_process(plan(root, "method.name=local"))
    assert set(with_fewer.server.sites) == {"north", *others.values()}
    np.testing.assert_array_equal(
        with_fewer.server.parameters_for("north"), with_others.server.parameters_for("north")
    )
    one, other = (
        next(s for s in outcome.scores if s.site == "north")
        for outcome in (with_fewer, with_others)
    )
    for name in ("slide_B", "label_B", "last_BE", "best_BE"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_closed_gate_is_the_shared_base(bag_root: Path) -> None:
    closed, usual = (plan(bag_root, f"hypernetwork.gate={gate}") for gate in (0, 1))
    outcome = run_in_process(closed)
    assert outcome.digest == run_in_process(usual).digest  # it is open while training
    rule = outcome.server.rule
    assert isinstance(rule, Hypernetwork)
    for scores in outcome.scores:
        site = closed.site(scores.site)
        theta = outcome.server.parameters_for(scores.site)
        np.testing.assert_array_equal(theta, rule.shared())
        np.testing.assert_allclose(theta, rule.theta_0.numpy(), atol=1e-6)
        assert not np.allclose(theta, rule.parameters_for(0), atol=1e-3)
        found = score_bags(closed.model(), torch.from_numpy(theta), site.data.test, BINARY)
        expected_B = found.evidence_BE
        np.testing.assert_array_equal(scores.last_BE, expected_B)


class PaperHypernetwork(nn.Module):
    """pFedHN's algorithm 1 from PyTorch's modules; every embedding has an optimiser of its own."""

    def __init__(self, start: dict[str, Tensor]) -> None:
        super().__init__()
        rows, num_parameters = start["site_embeddings"], start["phi.bias"].numel()
        sizes = [rows.shape[1], 100, 100, 100, 100]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])
        self.head = nn.Linear(100, num_parameters)
        with torch.no_grad():
            for number, layer in enumerate(self.layers):
                for name, own in layer.named_parameters():
                    own.copy_(start[f"phi.{number}.{name}"].reshape(own.shape))
            self.head.weight.copy_(start["phi.head"].reshape(100, num_parameters).T)
            self.head.bias.copy_(start["phi.bias"].flatten())
        self.phi = list(self.parameters())
        self.rows = [row.clone().requires_grad_(True) for row in rows]
        sgd = partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=1e-3)
        self.optimisers = [sgd([row]) for row in self.rows]
        self.optimiser = sgd(self.phi)

    def forward(self, site: int) -> Tensor:
        x = self.layers[0](self.rows[site])
        for layer in self.layers[1:]:
            x = layer(torch.relu(x))
        return self.head(x)

    def step(self, site: int, theta: Tensor, update: Tensor, limit: float) -> float:
        """Pull one update back; returns the norm of the gradient before it was clipped."""
        for optimiser in (self.optimiser, self.optimisers[site]):
            optimiser.zero_grad()
        theta.backward(update)
        norm = nn.utils.clip_grad_norm_([*self.phi, self.rows[site]], limit)
        for optimiser in (self.optimiser, self.optimisers[site]):
            optimiser.step()
        return float(norm)


@pytest.mark.parametrize("limit", [50.0, 3.0])
def test_pfedhn_one_site_a_round_is_its_published_loop(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    monkeypatch.setattr(pfedhn, "CLIP", pfedhn.CLIP * limit / 50)
    words = ["method.name=pfedhn", "rounds.cohort_size=1", "rounds.sampling=in_order"]
    local = ["training.optimiser=momentum", "training.learning_rate=0.5", "rounds.num_versions=8"]
    paper = plan(bag_root, *words, *local)
    start = paper.server().rule.state()
    loop = PaperHypernetwork({name: tensor.clone() for name, tensor in start.items()})
    names, norms = sorted(paper.hospitals), []
    sites = [paper.site(name) for name in names]
    for step in range(8):
        number, turn = step % 3, step // 3
        theta = loop(number)
        trained = train_locally(
            paper.model(),
            theta.detach(),
            sites[number].data.train,
            paper.config.training,
            task=paper.task,
            learning_rate=0.5,
            num_steps=4,
            seed=sites[number]._trainer._seed("local training", turn),
        ).parameters
        norms.append(loop.step(number, theta, theta.detach() - trained, limit))
    assert limit == 50 or min(norms) < limit < max(norms)  # some steps are clipped, some are not
    server = run_in_process(paper).server
    for number, name in enumerate(names):
        expected = loop(number).detach().numpy()
        np.testing.assert_allclose(server.parameters_for(name), expected, rtol=1e-3, atol=1e-5)
    embeddings = server.rule.state()["site_embeddings"]
    torch.testing.assert_close(embeddings, torch.stack(loop.rows).detach(), rtol=1e-6, atol=1e-6)
    assert (embeddings - start["site_embeddings"]).abs().max() > 1e-4


def test_config_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Config().run.seed = 3  # type: ignore[misc]
    assert replace(Config().run, seed=3).seed == 3


@pytest.mark.parametrize("method", ["fedavg", "hypernetwork"])
def test_a_buffer_of_all_sites_that_are_equally_fast_is_the_synchronous_run(
    bag_root: Path, method: str
) -> None:
    clock = ["simulation.enabled=true", "simulation.duration=constant", "rounds.buffer_size=3"]
    waiting = run_in_process(plan(bag_root, f"method.name={method}"))
    buffered = run_in_process(plan(bag_root, f"method.name={method}", *clock))
    assert buffered.digest == waiting.digest


def test_isolated_sites_are_scored_in_isolation(bag_root: Path, tmp_path: Path) -> None:
    for name in ("recipe.json", "site=north", "site=south"):
        source = bag_root / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    three, two = (
        {s.site: s for s in run_in_process(plan(root, "method.name=local")).scores}
        for root in (bag_root, tmp_path)
    )
    for site in ("north", "south"):
        for readout in ("last_BE", "best_BE", "mixture_BE"):
            np.testing.assert_array_equal(
                getattr(three[site], readout), getattr(two[site], readout)
            )
