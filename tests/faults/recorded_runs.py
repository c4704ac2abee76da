"""Small federations in this process that write a run directory, as the central actor does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rayfed_hn.federation.commits import Commits
from rayfed_hn.federation.experiment import Outcome, finish, prepare
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.record import RunRecord, write_summary
from rayfed_hn.federation.results import score_records
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.loading import load

NUM_VERSIONS = 5
SHORT = (
    *(f"rounds.num_versions={NUM_VERSIONS}", "training.steps=2", "training.learning_rate=0.01"),
    *("model.hidden_dim=5", "model.attention_dim=4", "hypernetwork.embedding_dim=3"),
)
SIMULATED = ("simulation.enabled=true", "simulation.slowest=3")
MEASURED = ("seconds",)  # what a clock on the wall says of a site's work


def plan_of(root: Path, *words: str) -> Plan:
    return make_plan(load(None, [*SHORT, *words]), root)


def go_on(plan: Plan, folder: Path, stop_at: int | None = None) -> Outcome | None:
    """Train from wherever the folder is; with fresh objects, as after a crash.

    Args:
        plan: What.
        folder: The run directory.
        stop_at: The version to stop after, as if cut there; None: to the end.
    """
    record, server = RunRecord(folder, plan), plan.server()
    sites = SiteHost(plan, plan.participants, folder, resume=True)
    executor = plan.executor(InProcessExecutor(sites, plan.read))
    if not record.resume(server, executor):
        record.begin(server, plan.begin_line())
    prepare(plan, server, executor)
    for report in run_federation(server, executor):
        server.check_invariants()
        record.commit(server, report, executor)
        if report.version == stop_at:
            return None
    outcome = finish(plan, server, executor)
    record.scores(score_records(plan, outcome.scores))
    record.finish(server.version, outcome.scores)
    summary = {"digest": outcome.digest, "seconds": outcome.seconds, "busy": outcome.busy_share}
    write_summary(folder, summary | {"absences": len(outcome.absences)})
    return outcome


def newest(folder: Path) -> dict[str, Any]:
    """What the newest commit says."""
    commit, _ = Commits(folder, 2).newest()
    assert commit is not None
    return commit.about


def all_lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    """Records of a file of lines, without what is measured and without marks of going on."""
    kept = [line for line in all_lines(folder, name) if line.get("event") != "resumed"]
    return [{k: v for k, v in line.items() if k not in MEASURED} for line in kept]


def left_behind(folder: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on where it was cut."""
    commit = newest(folder)
    return {
        "summary": json.loads((folder / "summary.json").read_text()),
        "digest": commit["digest"],
        "chain": commit["chain"],
        "updates": commit["updates"],
        "clock": commit["clock"],
        "best": (commit["best_version"], commit["best_metric"]),
        "metrics": lines(folder, "metrics.jsonl"),
        "events": lines(folder, "events.jsonl"),
        "scores": {
            path.parent.name: path.read_bytes()
            for path in sorted(folder.glob("sites/*/scores.parquet"))
        },
    }
