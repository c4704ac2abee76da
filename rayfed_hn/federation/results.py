"""Test scores of a finished federation as records that tables are made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rayfed_hn.evaluation.metrics import auc
from rayfed_hn.federation.messages import Scores
from rayfed_hn.federation.plan import Plan

READOUTS = ("last", "best", "mixture")


def readouts(plan: Plan) -> tuple[str, ...]:
    """Those that a run keeps networks for: without being asked to, sites keep no averages."""
    return READOUTS if plan.config.evaluation.readout == "mixture" else READOUTS[:2]


def site_rows(plan: Plan, scores: Iterable[Scores]) -> list[dict[str, Any]]:
    """AUC of every hospital under each readout; None where undefined, and for lost sites."""
    rows = {
        (hospital, readout): {"site": hospital, "readout": readout, "value": None, "num_test": 0}
        for hospital in plan.hospitals
        for readout in readouts(plan)
    }
    for answer in scores:
        for number, hospital in enumerate(plan.origins(answer.site)):
            own = answer.origin_B == number
            for readout in readouts(plan):
                values = getattr(answer, f"{readout}_B")
                rows[hospital, readout]["value"] = auc(answer.label_B[own], values[own])
                rows[hospital, readout]["num_test"] = int(own.sum())
    return list(rows.values())


def score_records(plan: Plan, scores: Iterable[Scores]) -> list[dict[str, Any]]:
    """One record per test bag and readout: site, opaque slide and case, label, score."""
    records = []
    for answer in scores:
        origins = plan.origins(answer.site)
        for i in range(len(answer.label_B)):
            for readout in readouts(plan):
                values = getattr(answer, f"{readout}_B")
                records.append(
                    {
                        "readout": readout,
                        "site": origins[int(answer.origin_B[i])],
                        "slide": int(answer.slide_B[i]),
                        "case": int(answer.case_B[i]),
                        "label": int(answer.label_B[i]),
                        "score": float(values[i]),
                    }
                )
    return records
