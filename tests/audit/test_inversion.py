"""Features that can be read off an update, and what keeps them from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from audited_runs import SITE_LDP, attacked, plan_of

from rayfed_hn.audit.inversion import invert, nearest, one_step, rows_of
from rayfed_hn.audit.run import AuditedRun, AuditedSite, on_scale
from rayfed_hn.federation.exchanges import Exchange
from rayfed_hn.models.registry import MODELS


def first_site(root: Path, *words: str) -> tuple[AuditedRun, AuditedSite]:
    """Before anything was trained."""
    plan = plan_of(root, *words)
    received = plan.initial().numpy()
    exchange = Exchange("north", 0, 0, received, np.zeros_like(received), 0)
    site = AuditedSite(on_scale(plan)["north"], (exchange,))
    return AuditedRun(plan, {"north": site}, "test"), site


@pytest.mark.parametrize("model", MODELS)
def test_a_bag_of_one_tile_is_recovered_from_one_step_of_any_model(
    leaky_root: Path, model: str
) -> None:
    run, site = first_site(leaky_root, f"model.name={model}")
    for bag in site.data.train[:4]:
        single = replace(bag, features_ND=bag.features_ND[:1])
        rows_HD = rows_of(run.plan, one_step(run.plan, site, single))
        assert nearest(rows_HD, single.tensor()) < 1e-3
        assert nearest(rows_HD, site.data.test[0].tensor()) > 0.1


def test_noise_on_every_coordinate_leaves_nothing_of_it(leaky_root: Path) -> None:
    run, site = first_site(leaky_root, *SITE_LDP)
    single = replace(site.data.train[0], features_ND=site.data.train[0].features_ND[:1])
    rows_HD = rows_of(run.plan, one_step(run.plan, site, single))
    assert nearest(rows_HD, single.tensor()) > 0.5


def test_what_is_reported_of_a_run(leaky_root: Path) -> None:
    found = invert(attacked(leaky_root))
    assert found.one_step_best <= found.one_step < 1e-3
    assert found.trained_on is not None
    assert found.never_seen is not None
    assert found.one_step < found.trained_on <= 1
    assert found.told_apart is not None


def test_rows_whose_bias_rests_say_nothing(leaky_root: Path) -> None:
    plan = plan_of(leaky_root)
    assert len(rows_of(plan, torch.zeros(plan.initial().shape))) == 0


def test_the_nearest_row_and_tile_by_relative_error() -> None:
    rows_HD = torch.tensor([[5.0, 0.0], [0.0, 9.0]])
    tiles_ND = torch.tensor([[4.0, 0.0], [0.0, 10.0], [0.0, 0.0]])
    assert nearest(rows_HD, tiles_ND) == pytest.approx(0.1)
    assert nearest(rows_HD[:0], tiles_ND) == 1
    assert nearest(rows_HD, torch.zeros(2, 2)) == 1
