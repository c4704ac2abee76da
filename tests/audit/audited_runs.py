"""Small federations that are attacked, and their run directories."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from rayfed_hn.audit.run import AuditedRun, audited, make_again
from rayfed_hn.bags import store
from rayfed_hn.bags.bag import Bag
from rayfed_hn.config import Config
from rayfed_hn.federation.exchanges import FOLDER, Exchange, ExchangeFiles
from rayfed_hn.federation.experiment import Outcome
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.record import RunRecord
from rayfed_hn.federation.replay import replay, replay_of
from rayfed_hn.files import write_text
from rayfed_hn.loading import load

DIM, BAGS = 24, 24  # features of a tile, bags of a site
SITES = ("north", "south")
# Few bags, and many steps with a high rate: what is left is remembered.
LEAKY = (
    "rounds.num_versions=3",
    "training.steps=40",
    "training.learning_rate=0.02",
    "model.hidden_dim=16",
    "model.attention_dim=8",
    "evaluation.readout=last",
    "audit.shadows=6",
    "audit.shadowed=2",
    "audit.canaries=32",
    "audit.coins=100",
)
SITE_LDP = ("privacy.mechanism=site_ldp", "privacy.target_epsilon=1")
DPSGD = (
    "privacy.mechanism=slide_dpsgd",
    "privacy.noise_multiplier=4",
    "training.class_balanced=false",
)


def make_store(root: Path) -> Path:
    """Two sites with other means; labels are noise, so that only bags themselves can be learned."""
    store.create(root, {"encoder": "test", "feature_dim": DIM})
    for number, site in enumerate(SITES):
        rng = np.random.default_rng(number)
        for i in range(BAGS):
            num_tiles = int(rng.integers(3, 7))
            features_ND = rng.normal(size=(num_tiles, DIM)) + (2 * number - 1) * np.eye(DIM)[0]
            bag = Bag(
                slide_id=f"{site}-{i}",
                case_id=f"{site}-case-{i}",
                site=site,
                label="tumour" if i % 2 else "normal",
                features_ND=features_ND.astype(np.float32),
                coords_N2=np.zeros((num_tiles, 2), np.int64),
                tissue_N=np.ones(num_tiles, np.float32),
                tile_size0=256.0,
                mpp=0.5,
            )
            store.write(root, bag)
    return root


@cache
def plan_of(root: Path, *words: str) -> Plan:
    return make_plan(load(None, [*LEAKY, f"data.bags={root}", *words]), root)


@cache
def attacked(root: Path, *words: str) -> AuditedRun:
    """A run and its messages, made once a session."""
    plan = plan_of(root, *words)
    heard, server = make_again(plan)
    return audited(plan, heard, "test", server.standardisation)


def run_directory(folder: Path, plan: Plan, *, keep: bool) -> Path:
    """What train leaves, as far as an audit needs it."""
    folder.mkdir()
    heard: list[Exchange] = []
    server = replay(replay_of(plan), heard.append)
    RunRecord(folder, plan).begin(server, plan.begin_line())
    write_text(folder / "config.yaml", yaml.safe_dump(_changed(plan.config)))
    digest = Outcome(server, (), (), (), 0.0, None).digest
    write_text(folder / "summary.json", json.dumps({"verb": "train", "digest": digest}))
    if keep:
        for exchange in heard:
            ExchangeFiles(folder / FOLDER).write(exchange)
    return folder


def _changed(config: Config) -> dict[str, dict[str, object]]:
    default, changed = asdict(Config()), {}
    for section, knobs in asdict(config).items():
        own = {name: value for name, value in knobs.items() if value != default[section][name]}
        changed |= {section: own} if own else {}
    return changed
