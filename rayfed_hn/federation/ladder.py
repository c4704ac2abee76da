"""What an experiment with more and more sites found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from rayfed_hn.federation.meter import VersionCost
from rayfed_hn.federation.virtual_plan import VirtualPlan
from rayfed_hn.machine import Memory
from rayfed_hn.models.parameters import ParameterLayout

PHASES = ("generation", "sending", "training", "transport", "reading", "pull_back", "rest")


def step_record(
    plan: VirtualPlan,
    costs: Sequence[VersionCost],
    memory: Sequence[Mapping[str, Memory]],
    num_hosts: int,
    seconds: float,
    tested: Mapping[str, Any] | None,
    copy_bandwidth: float,
) -> dict[str, Any]:
    """One line of ``scale.jsonl``: a method at a number of sites, medians over its versions.

    The first version is left out: in it, sites open their bags.

    Args:
        plan: What was run.
        costs: Of every version.
        memory: After some versions, and the last.
        num_hosts: Processes that the sites were spread over.
        seconds: All that the step took, starting actors and testing included.
        tested: How good its networks are (``virtual_test``); None where they were not tested.
        copy_bandwidth: Bytes read and written a second, of this machine just before.
    """
    config = plan.config
    return {
        "method": config.method.name,
        "sites": len(plan.hospitals),
        "cohort_size": config.rounds.cohort_size,
        "num_parameters": ParameterLayout.of(plan.model()).size,
        "num_hosts": num_hosts,
        "num_versions": len(costs),
        **_times(costs),
        "copy_bytes_per_second": round(copy_bandwidth),
        "lost_sites": sum(cost.num_lost for cost in costs) + (tested["lost"] if tested else 0),
        "tested": tested,
        **_most(memory),
        "seconds": round(seconds, 2),
    }


def _times(costs: Sequence[VersionCost]) -> dict[str, Any]:
    counted = costs[1:]
    middle = {
        name: median(getattr(cost, name) for cost in counted)
        for name in ("seconds", "bytes_down", "bytes_up", "num_updates")
    }
    phases = [_phases(cost) for cost in counted]
    return {
        "seconds_per_version": middle["seconds"],
        "seconds_lowest": min(cost.seconds for cost in counted),
        "seconds_highest": max(cost.seconds for cost in counted),
        "first_version_seconds": costs[0].seconds,
        "updates_per_second": middle["num_updates"] / middle["seconds"],
        "phases": {phase: median(each[phase] for each in phases) for phase in PHASES},
        "bytes_down": middle["bytes_down"],
        "bytes_up": middle["bytes_up"],
    }


def _most(memory: Sequence[Mapping[str, Memory]]) -> dict[str, Any]:
    """Memory when it was most."""
    totals = [sum(kind.pss_mib for kind in each.values()) for each in memory]
    most = memory[totals.index(max(totals))] if memory else {}
    return {
        "memory": {kind: asdict(taken) for kind, taken in most.items()},
        "total_pss_mib": round(sum(taken.pss_mib for taken in most.values()), 1),
        "total_rss_mib": round(sum(taken.rss_mib for taken in most.values()), 1),
    }


def _phases(cost: VersionCost) -> dict[str, float]:
    """Where the time of a version went; what hosts do beside training counts as transport."""
    known = {name: getattr(cost, name) for name in PHASES if hasattr(cost, name)}
    known["training"] = min(cost.training, cost.waiting)
    known["transport"] = cost.waiting - known["training"]
    known["rest"] = max(0.0, cost.seconds - sum(known.values()))
    return known
