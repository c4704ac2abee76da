"""Test scores of a finished federation as records that tables are made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rayfed_hn.evaluation.metrics import auc
from rayfed_hn.federation.experiment import Plan
from rayfed_hn.federation.messages import Scores


def auc_rows(plan: Plan, scores: Iterable[Scores]) -> list[dict[str, Any]]:
    """AUC of every hospital under each readout; None where undefined, and for lost sites."""
    rows = {
        (hospital, readout): {"site": hospital, "readout": readout, "auc": None, "num_test": 0}
        for hospital in plan.hospitals
        for readout in ("last", "best")
    }
    for answer in scores:
        for number, hospital in enumerate(plan.origins(answer.site)):
            own = answer.origin_B == number
            for readout, values in (("last", answer.last_B), ("best", answer.best_B)):
                rows[hospital, readout]["auc"] = auc(answer.label_B[own], values[own])
                rows[hospital, readout]["num_test"] = int(own.sum())
    return list(rows.values())


def score_records(plan: Plan, scores: Iterable[Scores]) -> list[dict[str, Any]]:
    """One record per test bag and readout: site, opaque slide and case, label, score."""
    records = []
    for answer in scores:
        origins = plan.origins(answer.site)
        for i in range(len(answer.label_B)):
            for readout, values in (("last", answer.last_B), ("best", answer.best_B)):
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
