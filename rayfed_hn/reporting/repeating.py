"""How to make a run another time: the command, what it was made of, and with which versions."""

from __future__ import annotations

import shlex
from typing import Any

from rayfed_hn.reporting import onboard_report, page
from rayfed_hn.reporting.run_files import Run


def how_to_repeat(run: Run, title: str, text: str) -> str:
    """Return the section.

    Args:
        run: Of any verb, also one that failed.
        title: Of the section.
        text: What the command makes.
    """
    again = f"run.dir={shlex.quote(run.folder.resolve().name + '-again')}"
    command = f"rayfed-hn {run.verb} config.yaml {again}"
    if run.verb == "onboard" and not run.failed:
        command = f"{onboard_report.command(run)} {again}"
    return page.section(
        title,
        page.paragraph(text),
        page.code(command),
        page.pairs(_made_of(run)),
        page.details("config.yaml", page.code(run.config_text)),
    )


def _made_of(run: Run) -> dict[str, Any]:
    """Return what else the numbers hang on; older runs know less."""
    summary = run.summary
    bags, recipe = run.knob("data", "bags"), summary.get("recipe_sha256")
    made: dict[str, Any] = {}
    if bags and run.verb != "scale":
        made["bag store"] = f"{bags}, recipe SHA-256 {recipe}" if recipe else bags
    seed = f"run.seed={run.knob('run', 'seed')}"
    if summary.get("seeds") and summary.get("folds"):
        seed += f", and {summary['seeds']} divisions into {summary['folds']} folds drawn from it"
    made["seed"] = seed
    versions = summary.get("versions") or {}
    if versions:
        made["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return made
