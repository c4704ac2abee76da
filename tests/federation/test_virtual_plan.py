"""Virtual sites: what they draw, what is refused, and that they repeat."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tiny_federations import create, federation, write
from virtual_sites import virtual

from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.data import Folds, SiteData, open_sites
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.virtual_plan import VirtualPlan, virtual_plan
from rayfed_hn.federation.virtual_pool import make_pool
from rayfed_hn.loading import load
from rayfed_hn.models.parameters import ParameterLayout


def told(data: SiteData) -> list[tuple[bytes, int, int, int]]:
    return [(b.features_ND.tobytes(), b.label, b.slide, b.case) for b in data.train]


def trained(plan: VirtualPlan) -> Server:
    server = plan.server()
    host = SiteHost(plan, plan.participants)
    reports = list(run_federation(server, InProcessExecutor(host)))
    assert [report.version for report in reports] == [1, 2]
    assert not server.lost
    return server


def networks(server: Server) -> np.ndarray:
    return np.stack(server.networks(server.sites))


@settings(
    max_examples=6,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.generate],  # a smaller example would tell no more, and takes minutes
)
@given(
    st.permutations(range(8)),
    st.sampled_from(["dirichlet", "size", "natural"]),
    st.integers(0, 2**31),
)
def test_a_site_has_the_same_bags_whoever_asks(
    tmp_path: Path, bag_root: Path, order: list[int], partition: str, seed: int
) -> None:
    words = [f"scale.partition={partition}", f"run.seed={seed}"]
    words += [f"data.bags={bag_root}"] if partition == "natural" else []
    one, other = (virtual(tmp_path, *words, num_sites=n) for n in (8, 200))
    whole = [told(one.site_data(name)) for name in one.hospitals]
    for number in order:
        assert told(other.site_data(one.hospitals[number])) == whole[number]
    for name, bags in zip(one.hospitals, whole, strict=True):
        assert len(bags) == one.num_bags[name][0] >= 1
        assert [case for *_, case in bags] == list(range(len(bags)))
    assert len({tuple(bags) for bags in whole}) > 1


def test_other_seeds_draw_other_bags(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    one = virtual(tmp_path, "scale.pool=200")
    same = virtual(tmp_path / "again", "scale.pool=200")
    name = one.hospitals[3]
    assert told(one.site_data(name)) == told(same.site_data(name))
    # Of one pool: the draws themselves are others.
    config = replace(one.config, run=replace(one.config.run, seed=1))
    drawn = virtual_plan(config, one.pool, "hypernetwork", 8).site_data(name)
    assert [b.features_ND.tobytes() for b in drawn.train] != [
        b.features_ND.tobytes() for b in one.site_data(name).train
    ]
    pool = make_pool(config, tmp_path / "other")
    pool.write()
    other = pool.open()
    assert not np.array_equal(other[0], one.pool.open()[0])


def test_positive_bags_of_the_pool_can_be_told_apart(tmp_path: Path) -> None:
    plan = virtual(tmp_path, "scale.pool=100", "scale.tiles=20", "scale.feature_dim=1024")
    pool = plan.pool.open()
    assert Counter(plan.pool.labels) == {0: 50, 1: 50}
    assert {bag.shape for bag in pool} == {(20, 1024)}
    assert {bag.dtype for bag in pool} == {np.dtype(np.float32)}
    most = [bag.mean(axis=1).max() for bag in pool]  # of a tile
    assert [m > 0.16 for m in most] == [label == 1 for label in plan.pool.labels]


def shares(plan: VirtualPlan) -> np.ndarray:
    """Share of positive bags at every site."""
    found = [[bag.label for bag in plan.site_data(name).train] for name in plan.hospitals]
    return np.array([np.mean(labels) for labels in found])


def test_a_small_alpha_is_skewed_and_a_large_one_alike(tmp_path: Path) -> None:
    words = ["scale.bags_per_site=40", "scale.pool=50"]
    skewed, uneven, alike = (
        shares(virtual(tmp_path, *words, f"scale.alpha={alpha}", num_sites=150))
        for alpha in (0.01, 1, 1000)
    )
    assert np.mean((skewed == 0) | (skewed == 1)) > 0.9
    # The share itself is uniform on 0 to 1 for alpha = 1, and 1/2 for a large one.
    assert uneven.std() == pytest.approx(np.sqrt(1 / 12 + 1 / 240), abs=0.04)
    assert alike.std() == pytest.approx(np.sqrt(0.25 / 40), abs=0.015)
    for found in (skewed, uneven, alike):
        assert found.mean() == pytest.approx(0.5, abs=0.12)


def test_sizes_have_the_mean_that_was_asked_and_somebody_has_few(tmp_path: Path) -> None:
    words = ["scale.partition=size", "scale.bags_per_site=20"]
    plan = virtual(tmp_path, *words, num_sites=2000)
    sizes = np.array([plan.num_bags[name][0] for name in plan.hospitals])
    assert sizes.mean() == pytest.approx(20, rel=0.1)
    assert sizes.min() >= 1
    assert np.log(sizes[sizes > 3]).std() > 0.7
    even = virtual(tmp_path, *words, "scale.spread=0.01", num_sites=50)
    assert {even.num_bags[name][0] for name in even.hospitals} <= {19, 20, 21}
    few = virtual(tmp_path, words[0], "scale.bags_per_site=1", num_sites=300)
    assert min(few.num_bags[name][0] for name in few.hospitals) == 1


def test_natural_sites_are_like_the_real_ones(tmp_path: Path) -> None:
    labels = {"a": "0101", "b": "000111222", "c": "0" * 7, "d": "01" * 9}
    root = federation(tmp_path, {site: tuple(own) for site, own in labels.items()})
    words = ["scale.partition=natural", f"data.bags={root}", "task.classes=0,1"]
    plan = virtual(tmp_path, *words, "data.leave_out=[d]", num_sites=7)
    assert plan.pool.hospitals == ("a", "b", "c")
    opened = open_sites(root, plan.pool.hospitals, plan.config.data)
    for number, name in enumerate(plan.hospitals):
        bags = opened["abc"[number % 3]]
        own = {bags.load(i).features_ND.tobytes(): e.label for i, e in enumerate(bags.entries)}
        assert (
            plan.num_bags[name][0] == [3, 5, 6][number % 3]
        )  # without test bags and a third class
        found = {features: str(label) for features, label, *_ in told(plan.site_data(name))}
        assert len(found) > 1 or number % 3 == 0  # three draws may be of one bag
        assert found.items() <= own.items()


def test_real_features_are_standardised_as_in_train(tmp_path: Path) -> None:
    """By what the real sites have measured on bags that are not under test."""
    root = create(tmp_path)
    rng = np.random.default_rng(2)
    for number, site in enumerate("ab"):
        for slide in range(10):
            features_ND = 40 + number + 7 * rng.normal(size=(50 + slide, 6))
            write(root, site, f"{site}-{slide}", str(slide % 2), features_ND=features_ND)
    words = ["scale.partition=natural", f"data.bags={root}"]
    plan = virtual(tmp_path, *words, num_sites=3)
    scale = plan.site_data("site-00001").train[0].standardisation
    assert scale is not None
    opened = open_sites(root, ("a", "b"), plan.config.data).values()
    folds = Folds.of(plan.config)
    means = [
        np.mean(
            [bags.load(i).features_ND.mean(axis=0) for i in (*parts.train, *parts.validation)], 0
        )
        for bags in opened
        if (parts := folds.split(bags.entries))
    ]
    np.testing.assert_allclose(scale.centre_D, np.mean(means, axis=0), rtol=1e-5)
    np.testing.assert_allclose(scale.deviation_D, 7, rtol=0.1)
    for other in (
        virtual(tmp_path, *words, "model.standardise=none", num_sites=3),
        virtual(tmp_path, *words, method="local", num_sites=3),
        virtual(tmp_path, num_sites=3),
    ):
        assert other.site_data("site-00001").train[0].standardisation is None
    # Who shares nothing shares no scale, and has its own.
    assert virtual(tmp_path, *words, method="local", num_sites=3).standardise == "site"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["scale.partition=natural"], r"scale\.partition: got natural, .* give data\.bags"),
        (
            ["scale.partition=natural", "task.kind=survival", "task.num_bins=3", "data.bags={}"],
            r"task\.kind: scale draws bags by class",
        ),
    ],
)
def test_pools_that_cannot_be_made_say_why(
    tmp_path: Path, tasks_root: Path, words: list[str], says: str
) -> None:
    config = load(None, [word.format(tasks_root) for word in words])
    with pytest.raises(ConfigError, match=says):
        make_pool(config, tmp_path)


PAPER = ("scale.feature_dim=1024", "model.hidden_dim=512", "model.attention_dim=256")


@pytest.mark.parametrize(
    ("words", "method", "says"),
    [
        (
            ["scale.readout=mixture"],
            "fedavg",
            [r"scale\.readout=mixture", "Do without"],
        ),
        (
            ["training.keep_optimiser=true"],
            "hypernetwork",
            [r"training\.keep_optimiser=true", "Do without"],
        ),
        ([], "local", [r"method\.name=local: keeps 10,000 networks", "train fewer sites"]),
    ],
)
def test_what_ten_thousand_sites_could_not_hold_is_refused(
    tmp_path: Path, words: list[str], method: str, says: list[str]
) -> None:
    many = [*PAPER, *words, "scale.num_versions=100"]
    with pytest.raises(ConfigError) as error:
        virtual(tmp_path, *many, method=method, num_sites=10_000)
    assert "10,000 sites" in str(error.value)
    for part in says:
        assert part.replace("\\", "") in str(error.value)
    plan = virtual(tmp_path, *PAPER, *words, method=method, num_sites=16)
    assert ParameterLayout.of(plan.model()).size == 788_739


def test_a_small_ladder_may_keep_what_a_long_one_may_not(tmp_path: Path) -> None:
    """Only who is asked remembers: of 10,000 sites, 100 a version for a few versions."""
    words = [*PAPER, "training.keep_optimiser=true"]
    virtual(tmp_path, *words, "scale.num_versions=6", num_sites=10_000)
    with pytest.raises(ConfigError, match="700 of 10,000 sites would remember 4 vectors each"):
        virtual(tmp_path, *words, "scale.num_versions=7", num_sites=10_000)
    virtual(tmp_path, *words, "scale.num_versions=7", "training.optimiser=sgd", num_sites=10_000)


def test_what_is_no_federation_of_virtual_sites_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scale\.methods: .*pooled"):  # a single site
        load(None, ["scale.methods=pooled"])
    with pytest.raises(ConfigError, match=r"hypernetwork\.estimate: got kernel"):
        virtual(tmp_path, "hypernetwork.estimate=kernel")
    with pytest.raises(ConfigError, match=r"privacy\.noise_source: os charges ledgers"):
        virtual(tmp_path, "privacy.noise_source=os")


@pytest.mark.parametrize("method", ["hypernetwork", "fedavg", "pfedhn", "local", "fedper"])
def test_a_virtual_federation_repeats(tmp_path: Path, method: str) -> None:
    words = ["scale.cohort_size=5", "hypernetwork.learning_rate=0.1"]
    one, again = (trained(virtual(tmp_path, *words, method=method)) for _ in range(2))
    for name, tensor in one.state().items():
        np.testing.assert_array_equal(again.state()[name], tensor, err_msg=name)
    np.testing.assert_array_equal(networks(one), networks(again))
    start = virtual(tmp_path, *words, method=method).server()
    assert np.ptp(networks(one) - networks(start)) > 0
    other = trained(virtual(tmp_path, *words, "run.seed=1", method=method))
    assert not np.array_equal(networks(one), networks(other))


@pytest.mark.parametrize("method", ["hypernetwork", "fedavg", "local", "fedprox"])
def test_no_steps_leave_every_network_as_it_was(tmp_path: Path, method: str) -> None:
    plan = virtual(tmp_path, "scale.steps=0", method=method)
    before = networks(plan.server())
    np.testing.assert_array_equal(networks(trained(plan)), before)


def test_a_site_only_draws_its_bags_when_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = VirtualPlan.site_data

    def noted(self: VirtualPlan, name: str) -> SiteData:
        asked.append(name)
        return original(self, name)

    monkeypatch.setattr(VirtualPlan, "site_data", noted)
    server = trained(virtual(tmp_path, "scale.cohort_size=3", num_sites=500))
    assert sorted(asked) == sorted(name for name, n in server.num_updates.items() if n)
    assert 3 <= len(asked) <= 6


def test_the_ladder_sets_what_its_help_says(tmp_path: Path) -> None:
    config = virtual(tmp_path, "model.standardise=site", num_sites=60).config
    assert (config.rounds.num_versions, config.rounds.cohort_size) == (2, 60)
    assert config.hypernetwork.embedding_dim == 16
    assert config.model.standardise == "site"
    assert virtual(tmp_path, num_sites=60).config.model.standardise == "none"
    assert (config.evaluation.readout, config.training.steps) == ("last", 2)
    assert virtual(tmp_path, num_sites=600).config.rounds.cohort_size == 100
    own = virtual(tmp_path, "hypernetwork.embedding_dim=7", "scale.readout=mixture").config
    assert (own.hypernetwork.embedding_dim, own.evaluation.readout) == (7, "mixture")
