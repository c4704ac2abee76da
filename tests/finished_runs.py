"""Run directories of train as they are when it has finished, made in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tiny_federations import create, write

from rayfed_hn.bags.store import read_recipe, recipe_digest
from rayfed_hn.config import Config
from rayfed_hn.federation.experiment import finish, prepare
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.federation.privacy_record import write_privacy
from rayfed_hn.federation.record import RunRecord, write_summary
from rayfed_hn.federation.results import READOUTS, score_records, site_rows
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.files import write_text
from rayfed_hn.loading import load
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.tasks import Survival

SHORT = (
    "rounds.num_versions=2",
    "training.steps=2",
    "training.learning_rate=0.01",
    "model.hidden_dim=5",
    "model.attention_dim=4",
    "hypernetwork.embedding_dim=3",
)


def finished_run(folder: Path, root: Path, *words: str, short: Sequence[str] = SHORT) -> Path:
    """Train on a bag store and leave what ``rayfed-hn train`` leaves, without a cluster."""
    plan = make_plan(load(None, [*short, f"data.bags={root}", f"run.dir={folder}", *words]), root)
    server = plan.server()
    host = SiteHost(plan, plan.participants, folder)
    executor = plan.executor(InProcessExecutor(host, plan.read))
    record = RunRecord(folder, plan)
    record.begin(server, plan.begin_line())
    prepare(plan, server, executor)
    for report in run_federation(server, executor):
        record.commit(server, report, executor)
    outcome = finish(plan, server, executor)
    record.scores(score_records(plan, outcome.scores))
    record.finish(server.version, outcome.scores)
    write_text(folder / "config.yaml", yaml.safe_dump(_changed(plan.config)))
    rows = {(r["site"], r["readout"]): r for r in site_rows(plan, outcome.scores)}
    readout = plan.config.evaluation.readout
    summary = {
        "verb": "train",
        "status": "complete",
        "exit_code": 0,
        "method": plan.config.method.name,
        "readout": readout,
        "sites": [
            {
                "site": name,
                **dict(
                    zip(
                        ("num_train", "num_validation", "num_test"),
                        plan.num_bags[name],
                        strict=True,
                    )
                ),
                "num_training_cases": plan.num_cases.get(name),
                "num_test_slides": rows[name, readout]["num_slides"],
                "num_test_cases": rows[name, readout]["num_cases"],
                **{f"test_{r}": rows.get((name, r), {}).get("value") for r in READOUTS},
            }
            for name in plan.hospitals
        ],
        "num_versions": server.version,
        "num_parameters": ParameterLayout.of(plan.model()).size,
        "feature_dim": plan.feature_dim,
        "task": plan.task.kind,
        "unit": plan.task.unit,
        "metric": plan.task.judge.name,
        "classes": list(plan.task.names),
        "cuts": list(plan.task.cuts) if isinstance(plan.task, Survival) else [],
        "recipe_sha256": recipe_digest(read_recipe(root)),
        "privacy": plan.promise(),
        "released_without_noise": plan.released_without_noise(),
        "standardise": plan.standardise,
        "lost_sites": [],
        "set_aside": [],
        "seconds": 1.0,
        "versions": {},
    }
    write_summary(folder, summary)
    write_privacy(folder, json.loads((folder / "summary.json").read_text()))
    return folder


def cases_of_two(root: Path) -> Path:
    """Three sites with eight cases of two slides each, which have labels and times."""
    create(root)
    rng = np.random.default_rng(5)
    for site in ("a", "b", "c"):
        for case in range(8):
            about = {"time": float(rng.exponential(9) + 0.1), "event": bool(rng.random() < 0.7)}
            for slide in ("x", "y"):
                name = f"{site}-{case}"
                write(root, site, f"{name}{slide}", str(case % 2), case=name, **about)
    return root


def _changed(config: Config) -> dict[str, dict[str, Any]]:
    """What is not as by default; train writes everything, which is slow to read many times."""
    default, changed = asdict(Config()), {}
    for section, knobs in asdict(config).items():
        own = {name: value for name, value in knobs.items() if value != default[section][name]}
        changed |= {section: own} if own else {}
    return changed
