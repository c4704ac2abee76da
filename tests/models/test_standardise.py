"""The scale of features: closed forms, and networks that do without it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayfed_hn.config import ModelConfig
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import initial_parameters, make_model
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.standardise import Standardisation, agree, measure
from rayfed_hn.models.tasks import Binary

DIM = 7

BINARY = Binary(("normal", "tumour"))


def draw_bags(seed: int, num: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    offset = rng.normal(0, 20, DIM)
    return [
        (offset + rng.normal(size=(n, DIM))).astype(np.float32)
        for n in rng.integers(1, 40, size=num)
    ]


def test_every_bag_has_the_same_weight() -> None:
    bags = draw_bags(0)
    mean_D, variance_D = measure(bags)
    weights = np.concatenate([np.full(len(bag), 1 / (len(bag) * len(bags))) for bag in bags])
    rows = np.concatenate(bags).astype(np.float64)
    np.testing.assert_allclose(mean_D, weights @ rows, rtol=1e-6)
    np.testing.assert_allclose(variance_D, weights @ (rows - mean_D) ** 2, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_sites_that_agree_are_one_site_with_all_bags_if_equally_large(num: int, seed: int) -> None:
    sites = [draw_bags(seed + i) for i in range(num)]
    scale = agree([measure(bags) for bags in sites])
    mean_D, variance_D = measure([bag for bags in sites for bag in bags])
    np.testing.assert_allclose(scale.centre_D, mean_D, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scale.deviation_D, np.sqrt(variance_D), rtol=1e-3)


def test_one_site_may_be_large_without_deciding() -> None:
    small, large = [np.zeros((1, DIM), np.float32)], [np.full((1, DIM), 2, np.float32)] * 99
    scale = agree([measure(small), measure(large)])
    np.testing.assert_allclose(scale.centre_D, 1)
    np.testing.assert_allclose(scale.deviation_D, 1)


def test_a_constant_feature_is_only_centred() -> None:
    bag = np.random.default_rng(0).normal(size=(20, DIM)).astype(np.float32)
    bag[:, 2] = 1234.5
    scale = agree([measure([bag])])
    assert scale.deviation_D[2] == 1
    scaled = scale.apply(torch.from_numpy(bag))
    assert scaled[:, 2].abs().max() < 1e-3
    assert scaled.isfinite().all()


def test_a_folded_network_needs_no_scale() -> None:
    bags = draw_bags(3)
    scale = agree([measure(bags)])
    model = make_model(DIM, 2, ModelConfig())
    layout = ParameterLayout.of(model)
    theta = initial_parameters(layout, 1) + 0.05
    before = theta.clone()
    on_scale = [LabelledBag(bag, 0, standardisation=scale) for bag in bags]
    as_they_are = [LabelledBag(bag, 0) for bag in bags]
    expected = score_bags(model, theta, on_scale, BINARY).evidence_BE[:, 0]
    folded = score_bags(model, scale.fold(theta, layout), as_they_are, BINARY).evidence_BE[:, 0]
    np.testing.assert_allclose(folded, expected, atol=1e-4)
    assert (
        np.abs(score_bags(model, theta, as_they_are, BINARY).evidence_BE[:, 0] - expected).max()
        > 0.1
    )
    assert torch.equal(theta, before)


def test_a_scale_goes_through_a_checkpoint() -> None:
    scale = agree([measure(draw_bags(4))])
    again = Standardisation.of({"other": torch.zeros(1), **scale.state()})
    assert again is not None
    np.testing.assert_array_equal(again.centre_D, scale.centre_D)
    np.testing.assert_array_equal(again.deviation_D, scale.deviation_D)
    assert Standardisation.of({"other": torch.zeros(1)}) is None


@pytest.mark.parametrize("rows", [None, np.array([0, 2])])
def test_bags_are_used_on_their_scale(rows: np.ndarray | None) -> None:
    (bag,) = draw_bags(5, num=1)
    scale = agree([measure(draw_bags(6))])
    plain = LabelledBag(bag, 0).tensor(rows=rows)
    scaled = LabelledBag(bag, 0, standardisation=scale).tensor(rows=rows)
    torch.testing.assert_close(scaled, scale.apply(plain))
