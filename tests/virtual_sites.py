"""Tiny federations of virtual sites."""

from __future__ import annotations

from pathlib import Path

from rayfed_hn.federation.virtual_plan import VirtualPlan, virtual_plan
from rayfed_hn.federation.virtual_pool import make_pool
from rayfed_hn.loading import load

TINY = (
    "scale.feature_dim=12",
    "scale.tiles=5",
    "scale.pool=6",
    "scale.num_versions=2",
    "scale.steps=2",
    "scale.test_sites=0",
    "model.hidden_dim=4",
    "model.attention_dim=3",
    "training.learning_rate=0.01",
)


def virtual(
    folder: Path, *words: str, method: str = "hypernetwork", num_sites: int = 8
) -> VirtualPlan:
    config = load(None, [*TINY, *words])
    pool = make_pool(config, folder)
    pool.write()
    return virtual_plan(config, pool, method, num_sites)
