"""Finished federations, in memory and as run directories, and a site that they leave out."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tiny_federations import SHORT, TASK_WORDS, create, write

from rayfed_hn.bags.store import SiteBags, read_recipe, recipe_digest
from rayfed_hn.config import Config, OnboardConfig
from rayfed_hn.federation.data import Folds
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.labels import knows
from rayfed_hn.federation.onboarding.arms import Arms
from rayfed_hn.federation.onboarding.origin import Origin
from rayfed_hn.federation.onboarding.trial import Labelled, divide
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.record import RunRecord
from rayfed_hn.federation.server import Server
from rayfed_hn.files import write_text
from rayfed_hn.loading import load
from rayfed_hn.models.tasks import Survival, Task

NEW = "c"  # of ``for_all_tasks``
QUICK = OnboardConfig(labelled=[0, 1], repeats=1, steps=3, embedding_steps=3)


@cache
def trained(root: Path, *words: str) -> tuple[Plan, Server]:
    """A federation without ``NEW``, trained in this process; made once a session."""
    own = [*SHORT, f"data.bags={root}", f"data.leave_out={NEW}", *words]
    plan = make_plan(load(None, own), root)
    return plan, run_in_process(plan).server


def origin_of(plan: Plan, server: Server) -> Origin:
    recipe = recipe_digest(read_recipe(plan.root))
    return Origin.of(plan.config, server, plan.task, plan.initial(), plan.feature_dim, recipe)


def origin(root: Path, *words: str) -> Origin:
    return origin_of(*trained(root, *words))


def task_origin(root: Path, task: str, *words: str) -> Origin:
    return origin(root, *TASK_WORDS[task], *words)


def arms_for(own: Origin, fedavg: Origin | None = None, **knobs: Any) -> Arms:
    return Arms(own, fedavg, replace(QUICK, **knobs), seed=0, site=NEW)


def bags_of(root: Path, task: Task, site: str = NEW) -> SiteBags:
    bags = SiteBags(root, site)
    bags.keep(lambda entry: knows(task, entry))
    return bags


def everything(root: Path, task: Task, fold: int = 0, site: str = NEW) -> Labelled:
    return divide(bags_of(root, task, site), task, Folds(5, fold, 0))


def run_directory(folder: Path, plan: Plan, server: Server) -> Path:
    """What train leaves, as far as a site that joins needs it."""
    folder.mkdir()
    RunRecord(folder, plan).begin(server, plan.begin_line())
    write_text(folder / "config.yaml", yaml.safe_dump(_changed(plan.config)))
    task = plan.task
    summary = {
        "verb": "train",
        "status": "complete",
        "classes": list(task.names),
        "cuts": list(task.cuts) if isinstance(task, Survival) else [],
        "feature_dim": plan.feature_dim,
        "sites": [{"site": s, "num_train": n} for s, n in plan.num_training_bags().items()],
        "num_versions": server.version,
        "recipe_sha256": recipe_digest(read_recipe(plan.root)),
    }
    write_text(folder / "summary.json", json.dumps(summary))
    return folder


def _changed(config: Config) -> dict[str, dict[str, Any]]:
    """What is not as by default; train writes everything, which is slow to read many times."""
    default, changed = asdict(Config()), {}
    for section, knobs in asdict(config).items():
        own = {name: value for name, value in knobs.items() if value != default[section][name]}
        changed |= {section: own} if own else {}
    return changed


def two_slides_a_case(root: Path) -> Path:
    """Three sites with eight cases of two slides each, which have grades and times."""
    create(root)
    rng = np.random.default_rng(3)
    for site in ("a", "b", NEW):
        for case in range(8):
            about = {"time": float(rng.exponential(9) + 0.1), "event": bool(rng.random() < 0.7)}
            for slide in ("x", "y"):
                name = f"{site}-{case}"
                write(root, site, f"{name}{slide}", str(case % 3 % 2), case=name, **about)
    return root
