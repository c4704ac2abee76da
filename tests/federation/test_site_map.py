"""What the server holds of the sites, against brute force."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from whole_runs import plan

from rayfed_hn.federation import site_map
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.rules.averaging import FedAvg, Local
from rayfed_hn.federation.rules.base import Contribution, Rule
from rayfed_hn.federation.rules.estimated import EstimatedHypernetwork
from rayfed_hn.federation.rules.generator import Hypernetwork, SiteFeatures
from rayfed_hn.federation.rules.optimisers import Optimiser
from rayfed_hn.federation.rules.pfedhn import PFedHN
from rayfed_hn.federation.site_map import classical_scaling, make_site_map, spaced, write_site_map

NAMES = tuple("abcde")
P, K = 23, len(NAMES)


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


START = torch.from_numpy(draw(9, P))


def generator(kind: str, num_sites: int = K) -> Hypernetwork:
    features = SiteFeatures(kind, num_sites, 16, 0.01, 0)  # type: ignore[arg-type]
    return Hypernetwork(START, num_sites, features, 16, 0.3)


def pfedhn(chunks: int = 1) -> PFedHN:
    return PFedHN(P, K, None, Optimiser("momentum", 0.01, 0.9, 0.001), chunks, seed=0)


def personal_rules() -> dict[str, Rule]:
    return {
        "local": Local(START, K),
        **{kind: generator(kind) for kind in ("fixed", "learned", "mlp")},
        **{f"pfedhn {chunks}": pfedhn(chunks) for chunks in (1, 4)},
        "kernel": EstimatedHypernetwork(START, K, [0, 10, P], kernel=True),
        "rho": EstimatedHypernetwork(START, K, [0, P], kernel=False),
    }


def moved(rule: Rule, num_sites: int = K) -> Rule:
    own = draw(3, num_sites, P)
    for turn in range(4):
        sent = own + 0.3 * draw(30 + turn, num_sites, P)
        round_ = [Contribution(i, update, turn=turn) for i, update in enumerate(sent)]
        rule.apply(round_, complete=True, among=num_sites)
    return rule


def pairwise(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def read(folder: Path) -> dict:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    text = (folder / "site_map.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=refuse)


# -- scaling -----------------------------------------------------------------------------------


@given(st.integers(2, 9), st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_distances_of_a_plane_are_kept_whole(count: int, seed: int, size: float) -> None:
    known = pairwise(size * np.random.default_rng(seed).normal(size=(count, 2)))
    plane = classical_scaling(known)
    np.testing.assert_allclose(pairwise(plane.points_M2), known, atol=1e-6 * size)
    np.testing.assert_allclose(plane.points_M2.mean(axis=0), 0, atol=1e-9 * size)
    assert plane.share == pytest.approx(1)


def test_equally_distant_sites_keep_two_of_their_dimensions() -> None:
    plane = classical_scaling(np.ones((9, 9)) - np.eye(9))
    assert plane.share == pytest.approx(2 / 8)


def test_signs_do_not_depend_on_which_way_an_axis_was_found() -> None:
    points = np.random.default_rng(0).normal(size=(7, 2)) * [3, 1]
    one = classical_scaling(pairwise(points)).points_M2
    other = classical_scaling(pairwise(-points)).points_M2
    np.testing.assert_allclose(one, other, atol=1e-9)
    outermost = np.abs(one).argmax(axis=0)
    assert (one[outermost, [0, 1]] > 0).all()
    pair = classical_scaling(np.array([[0.0, 2.0], [2.0, 0.0]]))
    np.testing.assert_allclose(pair.points_M2, [[1, 0], [-1, 0]], atol=1e-12)


# -- networks and embeddings -------------------------------------------------------------------


@pytest.mark.parametrize("block", [site_map.BLOCK_BYTES, 1, 2 * 4 * P])
@pytest.mark.parametrize("name", personal_rules())
def test_every_rule_s_map_is_brute_force_over_its_networks(
    name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_map, "BLOCK_BYTES", block)
    monkeypatch.setattr(site_map, "_COLUMNS", 7)
    rule = moved(personal_rules()[name])
    found = make_site_map(rule, NAMES)
    networks = np.stack([rule.parameters_for(i) for i in range(K)]).astype(np.float64)
    mean = networks.mean(axis=0)
    norm = np.linalg.norm(mean)
    assert found.mean_norm == pytest.approx(norm)
    np.testing.assert_allclose(found.personal_K, np.linalg.norm(networks - mean, axis=1) / norm)
    assert found.distances_MM is not None
    np.testing.assert_allclose(found.distances_MM, pairwise(networks) / norm, rtol=1e-6, atol=1e-8)
    assert found.plane is not None
    assert 0 < found.plane.share <= 1


def test_no_more_than_two_blocks_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_map, "BLOCK_BYTES", 2 * 4 * P)
    networks = site_map._Networks(moved(Local(torch.zeros(P), K)), range(K))
    networks.products(networks.total() / K)
    assert networks._block.cache_info().currsize == 2


@pytest.mark.parametrize("kind", ["fixed", "learned", "mlp"])
def test_embeddings_are_the_features_and_fixed_ones_are_orthonormal(kind: str) -> None:
    rule = generator(kind)
    found = make_site_map(moved(rule), NAMES).embeddings
    assert found is not None
    np.testing.assert_array_equal(found.rows_KE, rule.features(list(range(K))).numpy())
    written = site_map._embedded(found)
    assert (found.learned, written["equally_far"]) == (kind != "fixed", kind == "fixed")
    assert found.by_chance == (kind == "mlp")  # the others began orthonormal
    np.testing.assert_allclose(written["distances"], pairwise(found.rows_KE), rtol=1e-5, atol=1e-7)
    if kind == "fixed":
        apart = np.array(written["distances"])[~np.eye(K, dtype=bool)]
        np.testing.assert_allclose(apart, np.sqrt(2), rtol=1e-5)


def test_embeddings_of_pfedhn_are_its_rows() -> None:
    rule = moved(pfedhn())
    found = rule.site_embeddings()
    assert found is not None
    assert found.learned
    np.testing.assert_array_equal(found.rows_KE, rule.state()["site_embeddings"].double().numpy())


def test_embeddings_of_the_kernel_have_it_as_their_inner_products() -> None:
    rule = EstimatedHypernetwork(START, K, [0, 10, P], kernel=True)
    assert rule.site_embeddings() is None  # before any pair of rounds
    moved(rule)
    found = rule.site_embeddings()
    assert found is not None
    kernel = rule.state()["common"].sum(dim=0).numpy()
    values, vectors = np.linalg.eigh(kernel)
    positive = (vectors * values.clip(0)) @ vectors.T
    np.testing.assert_allclose(found.rows_KE @ found.rows_KE.T, positive, atol=1e-9)
    assert moved(EstimatedHypernetwork(START, K, [0, P], kernel=False)).site_embeddings() is None


@pytest.mark.parametrize("names", [NAMES, ("pooled",)])
def test_one_network_for_all_has_no_map(names: tuple[str, ...]) -> None:
    found = make_site_map(moved(FedAvg(START), len(names)), names)
    assert found.distances_MM is found.plane is found.embeddings is None
    assert found.personal_K.max() < 1e-12


def test_networks_that_are_not_finite_have_no_map_and_no_nan_in_the_file() -> None:
    rule = moved(Local(START, K))
    rule.state()["thetas"][2, 3] = np.nan
    found = make_site_map(rule, NAMES)
    assert found.distances_MM is found.plane is None
    text = json.dumps(site_map._as_json(found), allow_nan=False)
    assert json.loads(text)["personal"] == [None] * K


# -- many sites --------------------------------------------------------------------------------


@given(st.integers(1, 1000), st.integers(2, 300))
def test_a_sample_is_evenly_spaced_and_holds_both_ends(count: int, limit: int) -> None:
    found = spaced(count, limit)
    assert len(found) == len(set(found)) == min(count, limit)
    assert (found[0], found[-1]) == (0, count - 1)
    assert np.ptp(np.diff(found)) <= 1 if len(found) > 1 else True


def test_beyond_the_limit_a_sample_is_mapped_and_all_are_measured() -> None:
    count = site_map.MAX_MAPPED + 11
    rule = moved(generator("fixed", count), count)
    found = make_site_map(rule, [f"site {i}" for i in range(count)])
    networks = np.stack([rule.parameters_for(i) for i in range(count)]).astype(np.float64)
    mean = networks.mean(axis=0)
    np.testing.assert_allclose(
        found.personal_K * found.mean_norm, np.linalg.norm(networks - mean, axis=1)
    )
    assert len(found.mapped) == site_map.MAX_MAPPED
    chosen = networks[list(found.mapped)]
    assert found.distances_MM is not None
    np.testing.assert_allclose(
        found.distances_MM * found.mean_norm, pairwise(chosen), rtol=1e-6, atol=1e-7
    )
    assert found.embeddings is not None
    assert found.embeddings.by_chance  # 16 dimensions do not do
    assert not site_map._embedded(found.embeddings)["equally_far"]


# -- whole runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["hypernetwork", "local", "fedavg", "pooled"])
def test_a_run_writes_its_map(bag_root: Path, tmp_path: Path, method: str) -> None:
    server = run_in_process(plan(bag_root, f"method.name={method}")).server
    write_site_map(tmp_path, server)
    written = read(tmp_path)
    assert tuple(written["sites"]) == server.sites
    personal = method in ("hypernetwork", "local")
    assert (written["map"] is None) == (written["distances"] is None) == (not personal)
    if personal:
        networks = np.stack([server.parameters_for(site) for site in server.sites])
        expected = pairwise(networks.astype(np.float64)) / written["mean_norm"]
        np.testing.assert_allclose(written["distances"], expected, rtol=1e-4, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["site_map.json"]
