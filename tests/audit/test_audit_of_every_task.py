"""Every kind of task, method and site model can be audited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_federations import TASK_WORDS, plan_of

from rayfed_hn.audit.audit import audit
from rayfed_hn.audit.run import audited, make_again
from rayfed_hn.audit.words import markdown

QUICK = ("audit.shadows=4", "audit.shadowed=1", "audit.canaries=9", "audit.coins=10")


def audit_of(root: Path, *words: str) -> dict[str, Any]:
    plan = plan_of(root, *QUICK, *words)
    heard, server = make_again(plan)
    done: list[tuple[str, int, int]] = []
    found = audit(
        audited(plan, heard, "test", server.standardisation), lambda *news: done.append(news)
    )
    assert all(0 < number <= total for _, number, total in done)
    assert "nan" not in json.dumps(found).lower()
    assert markdown(found).count("\n## ") == 4
    return found


@pytest.mark.parametrize("task", TASK_WORDS)
@pytest.mark.parametrize("unit", ["slide", "case"])
def test_tasks(tasks_root: Path, task: str, unit: str) -> None:
    found = audit_of(tasks_root, *TASK_WORDS[task], f"task.unit={unit}")
    assert all(found["membership"].values())
    assert found["verdict"] == "none promised"
    assert found["canaries"]["bags"]["bound"]["num"] == 9


@pytest.mark.parametrize("method", ["pfedhn", "fedavg", "fedper", "local", "pooled"])
def test_methods(tasks_root: Path, method: str) -> None:
    found = audit_of(tasks_root, *TASK_WORDS["binary"], f"method.name={method}")
    assert found["method"] == method
    assert (found["property"]["updates"] is None) == (method == "pooled")


@pytest.mark.parametrize(
    "words",
    [
        ("rounds.buffer_size=2", "simulation.enabled=true"),
        ("rounds.cohort_size=1", "rounds.num_versions=7"),
        ("hypernetwork.estimate=rho",),
        ("training.keep_optimiser=true", "training.epochs=1"),
        ("model.name=clam_mb",),
    ],
)
def test_settings(tasks_root: Path, words: tuple[str, ...]) -> None:
    assert audit_of(tasks_root, *TASK_WORDS["binary"], *words)["sites"]


def test_what_could_not_have_been_found_is_said(tasks_root: Path) -> None:
    words = ("privacy.mechanism=slide_dpsgd", "privacy.noise_multiplier=1")
    words += ("training.class_balanced=false", "privacy.sampling_rate=0.9")
    found = audit_of(tasks_root, *TASK_WORDS["binary"], *words)
    assert found["verdict"] == "not broken"
    assert "nothing above it could have been found" in markdown(found)
    assert found["canaries"].keys() == {"bags"}
