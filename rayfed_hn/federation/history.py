"""How often a run was cut, and what was found when it went on: for its summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rayfed_hn.federation.commits import Commits, Damage
from rayfed_hn.federation.event_trace import RESUMED
from rayfed_hn.federation.json_lines import JsonLines


def history(folder: Path, keep_commits: int) -> dict[str, Any]:
    """What ``summary.json`` says of it.

    Args:
        folder: The run directory.
        keep_commits: ``run.keep_commits``.
    """
    lines = JsonLines(folder / "events.jsonl").read()
    marks = [line for line in lines if line["event"] == RESUMED["event"]]
    commit, _ = Commits(folder, keep_commits).newest()
    return {
        "resumed_from": [mark["made"] for mark in marks],
        "damaged_commits": [
            {**damage, "what": str(Damage(**damage)), "went_on_from": mark["made"]}
            for mark in marks
            for damage in mark["damaged"]
        ],
        "code_changed": any(mark["other_code"] for mark in marks),
        "ledgers_back": [] if commit is None else commit.about["ledgers_back"],
    }
