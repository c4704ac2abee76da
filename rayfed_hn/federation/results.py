"""Test scores of a finished federation as records that tables are made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayfed_hn.evaluation.judging import Truth
from rayfed_hn.federation.messages import Scores
from rayfed_hn.federation.plan import Plan
from rayfed_hn.models.tasks import Task

READOUTS = ("last", "best", "mixture")


def readouts(plan: Plan) -> tuple[str, ...]:
    """Those that a run keeps networks for: without being asked to, sites keep no averages."""
    return READOUTS if plan.config.evaluation.readout == "mixture" else READOUTS[:2]


def site_rows(plan: Plan, scores: Iterable[Scores]) -> list[dict[str, Any]]:
    """The metric of every hospital under each readout; None where undefined, and for lost sites.

    ``value`` is of the task's unit, ``by_slide`` and ``by_case`` of slides and of cases.
    """
    rows = {
        (hospital, readout): {
            "site": hospital,
            "readout": readout,
            "value": None,
            "num_test": 0,
            "by_slide": None,
            "by_case": None,
            "num_slides": 0,
            "num_cases": 0,
        }
        for hospital in plan.hospitals
        for readout in readouts(plan)
    }
    judge = plan.task.judge
    for answer in scores:
        for (hospital, readout), units in _by_hospital(plan, answer):
            row = rows[hospital, readout]
            for unit, tested in units.items():
                row[f"by_{unit}"] = judge.value(tested.truth, tested.predictions_BS)
                row[f"num_{unit}s"] = len(tested.truth)
            row["value"] = row[f"by_{plan.task.unit}"]
            row["num_test"] = row[f"num_{plan.task.unit}s"]
    return list(rows.values())


def score_records(plan: Plan, scores: Iterable[Scores]) -> list[dict[str, Any]]:
    """One record per test bag and readout: site, opaque slide and case, truth and prediction.

    ``unit`` is slide or case; the slide of a case is its first. The rest depends on the task
    (``evaluation.judging.Judge.record_of``).
    """
    judge = plan.task.judge
    return [
        {
            "readout": readout,
            "site": hospital,
            "unit": unit,
            "slide": int(tested.slide_B[i]),
            "case": int(tested.case_B[i]),
            **judge.record_of(tested.truth, tested.predictions_BS, i),
        }
        for answer in scores
        for (hospital, readout), units in _by_hospital(plan, answer)
        for unit, tested in units.items()
        for i in range(len(tested.truth))
    ]


@dataclass(frozen=True)
class _Tested:
    """Bags of one hospital: what is true of them, and what was predicted, (B, S)."""

    slide_B: np.ndarray
    case_B: np.ndarray
    truth: Truth
    predictions_BS: np.ndarray


def _by_hospital(
    plan: Plan, answer: Scores
) -> Iterator[tuple[tuple[str, str], dict[str, _Tested]]]:
    """Slides and cases of every hospital under every readout."""
    for number, hospital in enumerate(plan.origins(answer.site)):
        for readout in readouts(plan):
            own = answer.origin_B == number
            evidence_BE = getattr(answer, f"{readout}_BE")
            slides = _tested(plan.task, answer, evidence_BE, own & ~answer.whole_case_B)
            if plan.task.unit == "case":
                cases = _tested(plan.task, answer, evidence_BE, own & answer.whole_case_B)
            else:
                cases = _cases(plan.task, answer, evidence_BE, own)
            yield (hospital, readout), {"slide": slides, "case": cases}


def _tested(task: Task, answer: Scores, evidence_BE: np.ndarray, chosen_B: np.ndarray) -> _Tested:
    predictions_BS = task.predict(evidence_BE[chosen_B])
    names = answer.slide_B[chosen_B], answer.case_B[chosen_B]
    return _Tested(*names, answer.truth[chosen_B], predictions_BS)


def _cases(task: Task, answer: Scores, evidence_BE: np.ndarray, own_B: np.ndarray) -> _Tested:
    """Cases by the mean evidence of their slides; those whose label is not decided are left out."""
    found: list[tuple[int, int, np.ndarray]] = []  # first slide, label, evidence
    for case in dict.fromkeys(answer.case_B[own_B].tolist()):
        slides = np.flatnonzero(own_B & (answer.case_B == case))
        label = task.case_label(set(answer.label_B[slides].tolist()))
        if label is not None:
            mean_E = evidence_BE[slides].astype(np.float64).mean(axis=0)
            found.append((int(slides[0]), label, mean_E))
    first_B = np.array([first for first, _, _ in found], np.int64)
    label_B = np.array([label for _, label, _ in found], np.int64)
    truth = Truth(label_B, answer.time_B[first_B], answer.event_B[first_B])
    evidence = np.array([mean_E for _, _, mean_E in found], np.float32)
    predictions_BS = task.predict(evidence.reshape(len(found), task.num_evidence))
    return _Tested(answer.slide_B[first_B], answer.case_B[first_B], truth, predictions_BS)
