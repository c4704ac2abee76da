"""All attacks on one run, and what came of them as one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rayfed_hn.audit import membership as members
from rayfed_hn.audit import property as properties
from rayfed_hn.audit.inversion import invert
from rayfed_hn.audit.members import told
from rayfed_hn.audit.progress import Progress, counted
from rayfed_hn.audit.run import AuditedRun
from rayfed_hn.audit.verdict import PromiseCheck, bounds, promised_epsilon


def audit(run: AuditedRun, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Attack a run by ``audit.attacks``.

    Args:
        run: What is attacked; its configuration has the knobs.
        progress: Called with what is done, pieces done, and pieces in all.

    Returns:
        A JSON-ready record; an attack that was not asked for is missing. ``verdict`` is "broken" if
        a lower bound on epsilon is above what the run promises, "not broken" if none is, "none
        promised" without a formal guarantee, and "not tested" without canaries.
    """
    plan, knobs = run.plan, run.plan.config.audit
    found: dict[str, Any] = {
        "method": plan.config.method.name,
        "messages": run.source,
        "sites": {name: len(site.exchanges) for name, site in run.sites.items()},
        "level": knobs.level,
        "privacy": plan.promise(),
        "outside": plan.released_without_noise(),
        "promised": promised_epsilon(plan),
        "delta": plan.config.privacy.target_delta,
        "verdict": "not tested",
    }
    if "membership" in knobs.attacks:
        step = counted(progress, "membership", members.num_pieces(run))
        found["members"] = told(plan)
        found["membership"] = _rows(members.membership(run, step))
    if "inversion" in knobs.attacks:
        step = counted(progress, "inversion", run.num_exchanges)
        found["inversion"] = asdict(invert(run, step))
    if "property" in knobs.attacks:
        step = counted(progress, "property", properties.num_pieces(run))
        found["property"] = _rows(properties.attribute(run, step))
    if "canaries" in knobs.attacks:
        tests = bounds(plan, progress)
        found["canaries"] = {one.by: {**asdict(one), "broken": one.broken} for one in tests}
        found["verdict"] = _verdict(tests)
    return found


def _rows(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if one is None else asdict(one) for name, one in found.items()}


def _verdict(tests: list[PromiseCheck]) -> str:
    if any(one.broken for one in tests):
        return "broken"
    return "none promised" if all(one.promised is None for one in tests) else "not broken"
