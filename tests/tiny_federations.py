"""Small federations whose bags have what every kind of task needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rayfed_hn.bags import store
from rayfed_hn.bags.bag import Bag
from rayfed_hn.config import Config
from rayfed_hn.federation.experiment import Outcome, run_in_process
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.loading import load

DIM = 6
TASK_WORDS = {
    "binary": ("task.classes=0,1",),
    "multiclass": ("task.kind=multiclass",),
    "ordinal": ("task.kind=ordinal",),
    "survival": ("task.kind=survival", "task.num_bins=3"),
}
METHODS = ("hypernetwork", "pfedhn", "fedavg", "local")
SHORT = (
    "rounds.num_versions=2",
    "training.steps=2",
    "training.learning_rate=0.01",
    "model.hidden_dim=5",
    "model.attention_dim=4",
    "hypernetwork.embedding_dim=3",
)


def write(root: Path, site: str, slide: str, label: str, **about: Any) -> Bag:
    """Write one bag; ``about`` may say its ``case``, ``time``, ``event``, ``features_ND`` and
    ``coords_N2``.
    """
    rng = np.random.default_rng(list(f"{site}/{slide}".encode()))
    features_ND = about.get("features_ND")
    if features_ND is None:
        features_ND = rng.normal(size=(int(rng.integers(2, 6)), DIM))
    num_tiles = len(features_ND)
    bag = Bag(
        slide_id=slide,
        case_id=about.get("case", f"case-{slide}"),
        site=site,
        label=label,
        features_ND=features_ND.astype(np.float32),
        coords_N2=about.get("coords_N2", np.zeros((num_tiles, 2), np.int64)),
        tissue_N=np.ones(num_tiles, np.float32),
        tile_size0=256.0,
        mpp=0.5,
        time=about.get("time"),
        event=about.get("event"),
    )
    store.write(root, bag)
    return bag


def write_placed(root: Path, site: str, slide: str, label: str) -> Bag:
    """Write a bag of four tiles that lie two by two."""
    features_ND = np.random.default_rng(list(slide.encode())).normal(size=(4, DIM))
    coords_N2 = 256 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.int64)
    return write(root, site, slide, label, features_ND=features_ND, coords_N2=coords_N2)


def create(root: Path) -> Path:
    store.create(root, {"encoder": "test", "feature_dim": DIM})
    return root


def federation(root: Path, labels: Mapping[str, tuple[str, ...]], *, times: bool = False) -> Path:
    """Bags with these labels, each a case of its own, at every site; ``times`` also gives times."""
    create(root)
    rng = np.random.default_rng(11)
    for site, own in labels.items():
        for number, label in enumerate(own):
            follow_up = {"time": float(rng.exponential(9) + 0.1), "event": bool(rng.random() < 0.7)}
            write(root, site, f"{site}-{number}", label, **(follow_up if times else {}))
    return root


def for_all_tasks(root: Path) -> Path:
    """Three sites, three grades and times."""
    return federation(root, dict.fromkeys(("a", "b", "c"), tuple("01" * 6 + "222")), times=True)


def plan_of(root: Path, *words: str) -> Plan:
    return make_plan(load(None, [*SHORT, *words]), root)


@cache
def _config(task: str) -> Config:
    return load(None, [*SHORT, *TASK_WORDS[task]])


def plan_for(root: Path, model: Any, task: str, method: Any) -> Plan:
    """Of a store that is ``for_all_tasks``; words are read but once a task, which is slow."""
    config = _config(task)
    chosen = {
        "model": replace(config.model, name=model),
        "method": replace(config.method, name=method),
    }
    return make_plan(replace(config, **chosen), root)


@cache
def outcome_for(root: Path, model: str, task: str, method: str) -> Outcome:
    """Of a run in process, which is made once a session."""
    return run_in_process(plan_for(root, model, task, method))


def assert_equal_outcomes(one: Outcome, other: Outcome) -> None:
    """Equal digests, and every field of every site's scores to the bit."""
    assert one.digest == other.digest
    assert not one.lost
    assert not other.lost
    for own, theirs in zip(one.scores, other.scores, strict=True):
        for name, value in vars(own).items():
            np.testing.assert_array_equal(getattr(theirs, name), value, err_msg=name)
