"""Combinations that some sites cannot move at will: their formulas, and what they equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean
from small_server import answer, new_server
from tiny_federations import SHORT, federation, plan_of

from rayfed_hn.config import RoundsConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.federation.rules.averaging import FedAvg
from rayfed_hn.federation.rules.base import Contribution, Rule
from rayfed_hn.federation.rules.blocks import WIDTH
from rayfed_hn.federation.rules.generator import Hypernetwork, SiteFeatures
from rayfed_hn.federation.rules.optimisers import Optimiser
from rayfed_hn.federation.rules.pfedhn import PFedHN
from rayfed_hn.federation.rules.robust import Trimming, combine
from rayfed_hn.federation.screening import bounded
from rayfed_hn.loading import load

K, P = 5, 23
MEDIAN, FIFTH, NONE = Trimming(None), Trimming(0.2), Trimming(0.0)
Make = Callable[[Trimming | None], Rule]


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def fedavg(trimming: Trimming | None) -> Rule:
    return FedAvg(torch.linspace(-1, 1, P), trimming)


def hypernetwork(
    trimming: Trimming | None, rho: float = 0.3, kind: str = "fixed", dim: int = 16
) -> Hypernetwork:
    features = SiteFeatures(kind, K, dim, 0.01, 0)  # type: ignore[arg-type]
    return Hypernetwork(torch.linspace(-1, 1, P), K, features, dim, rho, trimming=trimming)


def pfedhn(trimming: Trimming | None, chunks: int = 1) -> Rule:
    return PFedHN(P, K, None, Optimiser("momentum", 0.01), chunks, 0, trimming=trimming)


MAKES: dict[str, Make] = {
    "fedavg": fedavg,
    "hypernetwork": hypernetwork,
    "rho 0": lambda t: hypernetwork(t, 0.0),
    "learned": lambda t: hypernetwork(t, kind="learned"),
    "few rows": lambda t: hypernetwork(t, kind="mlp", dim=3),
    "pfedhn": pfedhn,
    "pfedhn in pieces": lambda t: pfedhn(t, 3),
}


def some(seed: int, sites: Sequence[int], *, late: bool = False) -> list[Contribution]:
    factors = draw(seed + 1, len(sites), 2) if late else np.zeros((len(sites), 2))
    sent = draw(seed, len(sites), P)
    return [
        Contribution(site, u, float(1 / (1 + f * f)), float(1 + w * w), turn)
        for turn, (site, u, (f, w)) in enumerate(zip(sites, sent, factors, strict=True))
    ]


def networks(rule: Rule) -> np.ndarray:
    shared = rule.shared()
    assert shared is not None
    return np.stack([*rule.networks(range(K)), shared])


@pytest.mark.parametrize("name", MAKES)
def test_without_extremes_nothing_is_different(name: str) -> None:
    plain, trimmed = MAKES[name](None), MAKES[name](NONE)
    for turn, (sites, complete) in enumerate(
        [(range(K), True), ([0, 2, 3], False), ([1, 1, 2, 4, 4], False), (range(K), True)]
    ):
        sent = some(turn, list(sites), late=not complete)
        for rule in (plain, trimmed):
            rule.apply(sent, complete=complete, among=K)
    np.testing.assert_allclose(networks(trimmed), networks(plain), atol=2e-6)


@pytest.mark.parametrize("trimming", [MEDIAN, FIFTH])
def test_a_hypernetwork_that_shares_all_is_fedavg(trimming: Trimming) -> None:
    rules = fedavg(trimming), hypernetwork(trimming, 0.0)
    for turn in range(3):
        for rule in rules:
            rule.apply(some(turn, range(K)), complete=True, among=K)
    shared = rules[0].parameters_for(0)
    np.testing.assert_array_equal(rules[1].parameters_for(0), shared)
    np.testing.assert_allclose(networks(rules[1])[-1], shared, atol=1e-7)


@given(
    st.integers(3, 12),
    st.floats(0.01, 0.49) | st.none(),
    st.integers(0, 99),
)
def test_the_middle_is_the_oracles(num: int, share: float | None, seed: int) -> None:
    sent = draw(seed, num, 7)
    found = combine(
        torch.full((num,), 1 / num).double(), range(num), torch.tensor(sent), Trimming(share)
    )
    if share is None:
        expected = np.median(sent, axis=0)
    elif int(share * num):
        expected = trim_mean(sent.astype(float), share, axis=0)
    else:  # one at least
        expected = np.sort(sent.astype(float), axis=0)[1:-1].mean(axis=0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_late_updates_and_fast_sites_have_one_vote_of_their_size() -> None:
    rule, before = fedavg(MEDIAN), np.linspace(-1, 1, P)
    sent = some(3, [0, 0, 0, 1, 2], late=True)  # three of one site, which are no majority
    rule.apply(sent, complete=False, among=K)
    terms = np.stack([min(c.discount * c.weight, 5) * c.update.astype(float) for c in sent])
    votes = np.stack([terms[:3].sum(axis=0), terms[3], terms[4]])
    expected = before - 3 * np.median(votes, axis=0) / 5
    np.testing.assert_allclose(rule.parameters_for(0), expected, atol=1e-6)


def test_a_vector_of_many_blocks_is_cut_parameter_by_parameter() -> None:
    size = 2 * WIDTH + 5
    sent = draw(1, 4, size)
    rule = FedAvg(torch.zeros(size), FIFTH)
    rule.apply([Contribution(i, u) for i, u in enumerate(sent)], complete=True, among=4)
    expected = -np.sort(sent.astype(float), axis=0)[1:-1].mean(axis=0)
    np.testing.assert_allclose(rule.parameters_for(0), expected, atol=1e-6)


def test_deviations_are_from_the_middle() -> None:
    rule = hypernetwork(MEDIAN)
    sent = draw(5, K, P)
    rule.apply([Contribution(i, u) for i, u in enumerate(sent)], complete=True, among=K)
    centre = np.median(sent, axis=0)
    expected = np.linspace(-1, 1, P) - centre - 0.3 * (sent - centre)
    for site in range(K):
        np.testing.assert_allclose(rule.parameters_for(site), expected[site], atol=1e-6)
    np.testing.assert_allclose(networks(rule)[-1], np.median(expected, axis=0), atol=1e-6)


@pytest.mark.parametrize("name", ["fedavg", "hypernetwork", "rho 0", "pfedhn", "pfedhn in pieces"])
@pytest.mark.parametrize("trimming", [FIFTH, MEDIAN])
def test_one_site_of_five_moves_the_others_no_further_than_an_honest_one(
    name: str, trimming: Trimming
) -> None:
    """What it sends beyond the values of others changes nothing for them, but for rounding:

    rows of float32 are orthonormal to about 1e-8. (A norm of 1e4 is refused before it comes here.)
    """
    found = []
    for size in (1e2, 1e4):
        rule = MAKES[name](trimming)
        sent = draw(6, K, P)
        sent[2] = size * np.sign(sent[2])
        rule.apply([Contribution(i, u) for i, u in enumerate(sent)], complete=True, among=K)
        found.append(networks(rule)[[0, 1, 3, 4, 5]])
    assert np.abs(found[0]).max() < 10
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)


@pytest.mark.parametrize("name", MAKES)
def test_a_scale_is_as_if_the_update_were_so_long(name: str) -> None:
    sent = some(8, list(range(K)))
    scales = [1.0, 0.5, 1.0, 0.1, 2.0]
    rules = MAKES[name](None), MAKES[name](None)
    scaled = [replace(c, scale=s) for c, s in zip(sent, scales, strict=True)]
    by_hand = [
        replace(c, update=np.float32(s) * c.update) for c, s in zip(sent, scales, strict=True)
    ]
    rules[0].apply(scaled, complete=True, among=K)
    rules[1].apply(by_hand, complete=True, among=K)
    np.testing.assert_allclose(networks(rules[0]), networks(rules[1]), atol=1e-6)


def test_nothing_is_longer_than_the_median() -> None:
    assert bounded([1.0, 4.0, 2.0, 8.0]) == [1.0, 0.5, 1.0, 0.25]
    assert bounded([3.0, 3.0, 3.0]) == [1.0, 1.0, 1.0]
    assert bounded([0.0, 0.0, 5.0]) == [1.0, 1.0, 1.0]  # zeros are not counted


def version_of(robust: str, values: Sequence[float], order: Sequence[int]) -> np.ndarray:
    config = RoundsConfig(num_versions=1, robust=robust, norm_factor=None)  # type: ignore[arg-type]
    server = new_server(config, FedAvg(torch.zeros(2), Trimming.of(config)))
    requests = server.dispatch()
    for number in order:
        server.receive(answer(requests[number], values[number]))
    return server.parameters_for("a")


def test_a_server_bounds_norms() -> None:
    # The lower median of 1, 2, 3 and 100 is 2.
    assert version_of("norm_bound", [1, 2, 3, -100], range(4)) == pytest.approx(
        -(1 + 2 + 2 - 2) / 4
    )
    equal = [version_of(how, [2, -2, 2, 2], range(4)).tolist() for how in ("none", "norm_bound")]
    assert equal[0] == equal[1]


@pytest.mark.parametrize("robust", ["norm_bound", "trimmed_mean", "median"])
@given(order=st.permutations(range(4)))
def test_the_order_of_answers_changes_no_bit(robust: str, order: list[int]) -> None:
    values = [0.3, -1.7, 2.9, 1e3]
    expected = version_of(robust, values, range(4))
    assert version_of(robust, values, order).tobytes() == expected.tobytes()


def test_the_order_of_names_changes_no_bit() -> None:
    sent = draw(9, K, P)
    for trimming in (MEDIAN, FIFTH):
        found = []
        for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
            rule = fedavg(trimming)
            named = [Contribution(i, sent[k]) for i, k in enumerate(order)]
            rule.apply(named, complete=True, among=K)
            found.append(rule.parameters_for(0).tobytes())
        assert found[0] == found[1]


def test_fewer_than_three_sites_are_told_so_before_anything_starts(tmp_path: Path) -> None:
    root = federation(tmp_path, {"a": ("0", "1") * 5, "b": ("0", "1") * 5})
    words = ("task.classes=0,1", "rounds.robust=median")
    with pytest.raises(ConfigError, match=r"rounds\.robust: median needs 3 sites, and 2 take part"):
        plan_of(root, *words)
    for method in ("pooled", "local"):  # where nothing is combined
        plan = plan_of(root, *words, f"method.name={method}")
        assert (
            run_in_process(plan).digest
            == run_in_process(plan_of(root, words[0], f"method.name={method}")).digest
        )


@pytest.mark.parametrize("robust", ["norm_bound", "trimmed_mean"])
@pytest.mark.parametrize("method", ["hypernetwork", "pfedhn", "fedper"])
def test_whole_runs_repeat(bag_root: Path, method: str, robust: str) -> None:
    words = [*SHORT, f"method.name={method}", f"rounds.robust={robust}"]
    made = [run_in_process(make_plan(load(None, words), bag_root)) for _ in range(2)]
    assert made[0].digest == made[1].digest
    assert not made[0].lost
    plain = run_in_process(make_plan(load(None, words[:-1]), bag_root))
    assert plain.digest != made[0].digest
