"""Run directories as scale leaves them, with numbers that are made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rayfed_hn.config import Config
from rayfed_hn.loading import to_yaml

SITES = (10, 100, 1000, 10_000)
METHODS = ("hypernetwork", "fedavg")
_NETWORK = 3_154_956  # bytes
# Shares of the time; medians do not add up to 1.
_SHARES = {
    "generation": 0.05,
    "sending": 0.06,
    "training": 0.7,
    "transport": 0.12,
    "reading": 0.02,
    "pull_back": 0.03,
    "rest": 0.005,
}
VERSIONS = {"python": "3.11.9", "rayfed_hn": "0.1.0", "ray": "2.60.0"}


def _memory(sites: int, place: int) -> dict[str, dict[str, float]]:
    mib = {
        "Ray itself": 380.0,
        "driver": 230.5,
        "server actor": 900.0 + 400 * (place == 0) + 0.01 * sites,
        "site actors": 1200.0 + 0.08 * sites,
    }
    return {
        kind: {"processes": 2, "pss_mib": round(taken, 1), "rss_mib": round(1.5 * taken, 1)}
        for kind, taken in mib.items()
    }


def _tested(place: int, sites: int) -> dict[str, Any]:
    count = min(sites, 100)
    return {
        "metric": "AUC",
        "readout": "last",
        "mean": 0.95 - 0.02 * place - sites / 1e6,
        "lowest_tenth": 0.9 - 0.02 * place - sites / 1e6,
        "worst": 0.8 - 0.02 * place - sites / 1e6,
        "sites": count,
        "scored": count,
        "trained": count // 2,
        "bags": 40,
        "lost": 0,
        "unanswered": 0,
        "seconds": 8.5,
        "by_site": [],
    }


def _row(method: str, place: int, sites: int) -> dict[str, Any]:
    cohort = min(sites, 100)
    seconds = 0.0412 * cohort * (1 + sites / 200_000) * 0.8**place
    memory = _memory(sites, place)
    return {
        "method": method,
        "sites": sites,
        "cohort_size": cohort,
        "num_parameters": _NETWORK // 4,
        "num_hosts": 2,
        "num_versions": 20,
        "seconds_per_version": seconds,
        "seconds_lowest": 0.9 * seconds,
        "seconds_highest": 1.4 * seconds,
        "first_version_seconds": 3 * seconds,
        "copy_bytes_per_second": 6_358_991_525 + 10_000_000 * place,
        "updates_per_second": cohort / seconds,
        "phases": {phase: share * seconds for phase, share in _SHARES.items()},
        "bytes_down": _NETWORK * (2 if method == "fedavg" else cohort),
        "bytes_up": (_NETWORK + 200) * cohort,
        "lost_sites": 0,
        "tested": _tested(place, sites),
        "memory": memory,
        "total_pss_mib": round(sum(kind["pss_mib"] for kind in memory.values()), 1),
        "total_rss_mib": round(sum(kind["rss_mib"] for kind in memory.values()), 1),
        "seconds": 21 * seconds,
    }


def scale_summary(sites: Sequence[int] = SITES, methods: Sequence[str] = METHODS) -> dict[str, Any]:
    """A ladder in which nothing was lost."""
    return {
        "verb": "scale",
        "status": "complete",
        "exit_code": 0,
        "partition": "dirichlet",
        "steps": 4,
        "where": "actors",
        "rows": [_row(m, place, n) for n in sites for place, m in enumerate(methods)],
        "seconds": 611.2,
        "versions": VERSIONS,
    }


def make_scale_run(folder: Path, summary: dict[str, Any]) -> Path:
    """A run directory with that summary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (folder / "config.yaml").write_text(to_yaml(Config()), encoding="utf-8")
    return folder
