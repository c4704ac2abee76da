"""What a training run went through and survived, in one line each, from its summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def incidents(summary: Mapping[str, Any]) -> list[str]:
    """List absences, actors that were started anew, damaged commits, ledgers that went back."""
    lines = [
        f"what works for {site} was gone, and was started anew {_times(times)}"
        for site, times in (summary.get("restarts") or {}).items()
    ]
    lines += [
        f"{away['site']} was away from version {away['version']} on, and versions were made "
        "without it"
        for away in summary.get("absent", [])
    ]
    if summary.get("centre_restarts"):
        times = _times(summary["centre_restarts"])
        lines.append(f"the central actor died {times}; the run went on from its last commit")
    lines += [
        f"{damage['what']}; the run went on from version {damage['went_on_from']}"
        for damage in summary.get("damaged_commits", [])
    ]
    lines += [
        f"the privacy ledger of {back['site']} went back: it had charged {back['before']} "
        f"releases, and {back['after']} when the site answered its request {back['turn']}"
        for back in summary.get("ledgers_back", [])
    ]
    return lines


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
