"""Every suite of the Makefile is run by a workflow: at a push, or by the clock if it is long."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
AT_A_PUSH, BY_THE_CLOCK = {"check", "test"}, {"test-docs", "test-faults"}


def workflows() -> dict[str, dict[str, Any]]:
    """By file name."""
    found = {}
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        one = yaml.safe_load(path.read_text())
        one["on"] = one.pop(True)  # which YAML takes the key 'on' for
        found[path.name] = one
    return found


def goals(workflow: dict[str, Any]) -> set[str]:
    """What a workflow makes, with its matrix filled in."""
    found: set[str] = set()
    for job in workflow["jobs"].values():
        text = "\n".join(step.get("run", "") for step in job["steps"])
        for goal in re.findall(r"^make (.+)$", text, re.MULTILINE):
            name = re.fullmatch(r"\$\{\{ matrix\.(\w+) \}\}", goal)
            found |= set(job["strategy"]["matrix"][name[1]]) if name else {goal}
    return found


def test_every_suite_is_run_by_somebody() -> None:
    makefile = (ROOT / "Makefile").read_text()
    suites = set(re.findall(r"^(test[\w-]*|check):", makefile, re.MULTILINE))
    assert suites == AT_A_PUSH | BY_THE_CLOCK
    pushed = [one for one in workflows().values() if "push" in one["on"]]
    timed = [one for one in workflows().values() if "schedule" in one["on"]]
    assert set().union(*map(goals, pushed)) == AT_A_PUSH
    assert set().union(*map(goals, timed)) == BY_THE_CLOCK
    for one in timed:
        assert "workflow_dispatch" in one["on"]
        assert re.fullmatch(r"(\S+ ){4}\S+", one["on"]["schedule"][0]["cron"])


def test_they_may_only_read_and_come_to_an_end() -> None:
    for name, one in workflows().items():
        assert one["permissions"] == {"contents": "read"}, name
        for job in one["jobs"].values():
            assert 0 < job["timeout-minutes"] <= 180, name
            actions = [step["uses"] for step in job["steps"] if "uses" in step]
            assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in actions), name
