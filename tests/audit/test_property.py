"""Slides that nobody trained on, put to their sites."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from audited_runs import SITE_LDP, attacked

from rayfed_hn.audit.property import (
    NETWORKS,
    UPDATES,
    attribute,
    judge,
    mean_features,
    num_pieces,
)
from rayfed_hn.federation.data import SiteBag
from rayfed_hn.models.parameters import ParameterLayout


def test_sites_with_other_features_are_told_apart(leaky_root: Path) -> None:
    pieces: list[None] = []
    run = attacked(leaky_root)
    found = attribute(run, lambda: pieces.append(None))[UPDATES]
    assert len(pieces) == num_pieces(run)
    assert found is not None
    assert found.chance == 0.5
    assert found.pairs.auc_low > 0.5
    assert found.right_low > 0.5
    assert found.right_low < found.right <= found.right_high
    assert found.as_well == 0.5  # two sites have two orders


def test_behind_strong_noise_they_are_not(leaky_root: Path) -> None:
    found = attribute(attacked(leaky_root, *SITE_LDP))[UPDATES]
    assert found is not None
    assert found.pairs.auc < 0.7


def test_one_network_for_all_names_nobody(leaky_root: Path) -> None:
    found = attribute(attacked(leaky_root, "method.name=fedavg"))[NETWORKS]
    assert found is not None
    assert found.right == pytest.approx(0.5)
    assert found.pairs.auc == 0.5


def test_a_single_site_has_nobody_to_be_told_from(leaky_root: Path) -> None:
    assert attribute(attacked(leaky_root, "audit.sites=south")) == {UPDATES: None, NETWORKS: None}


def test_messages_are_dealt_out_to_other_sites_to_see_what_chance_does() -> None:
    rng, own_B = np.random.default_rng(0), np.repeat(np.arange(5), 8)
    bags = [SiteBag(np.zeros((1, 1)), 0, slide=i, case=i) for i in range(40)]
    noise_BK = rng.normal(size=(40, 5))
    told = judge(noise_BK + 3 * np.eye(5)[own_B], own_B, bags, level=0.95)
    assert told is not None
    assert told.as_well == 1 / 120
    untold = judge(noise_BK, own_B, bags, level=0.95)
    assert untold is not None
    assert untold.as_well > 0.05
    # Slides agree on one site each, but on a wrong one.
    wrong = judge(noise_BK + 3 * np.eye(5)[(own_B + 1) % 5], own_B, bags, level=0.95)
    assert wrong is not None
    assert wrong.as_well > 0.5


def test_features_that_explain_an_update_best(leaky_root: Path) -> None:
    plan = attacked(leaky_root).plan
    layout = ParameterLayout.of(plan.model())
    update_P = torch.zeros(layout.size)
    tensors = layout.unflatten(update_P)
    site_D = torch.linspace(-1, 1, plan.feature_dim)
    bias_H = torch.linspace(0.1, 2, len(tensors["projection.bias"]))
    tensors["projection.bias"].copy_(bias_H)
    tensors["projection.weight"].copy_(torch.outer(bias_H, site_D))
    torch.testing.assert_close(mean_features(plan, update_P), site_D)
    assert np.isfinite(mean_features(plan, torch.zeros(layout.size)).numpy()).all()
