"""The picture of the test bags that suits each kind of task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rayfed_hn.evaluation.markdown import number
from rayfed_hn.evaluation.metrics import roc_curve
from rayfed_hn.evaluation.survival import logrank
from rayfed_hn.reporting import page
from rayfed_hn.reporting.figures import Roc, roc_panels
from rayfed_hn.reporting.outcome_figures import Survivors, confusion_matrix, survival_curves
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.tested import Tested, read_tested, readout_of
from rayfed_hn.reporting.theme import SERIES
from rayfed_hn.reporting.words import percent

MAX_PANELS = 12  # sites in a picture or in the first table; of more, the lowest
_MAX_TOLD = 8  # classes whose errors are told in words


def outcome(run: Run, by_site: Mapping[str, Tested]) -> str:
    """Return ROC curves, a confusion matrix or survival curves; nothing without test bags.

    Args:
        run: A training run.
        by_site: Its test bags.
    """
    kind = run.judge.kind
    if kind == "binary":
        return _rocs(run, by_site)
    return _survival(run) if kind == "survival" else _confusion(run, by_site)


def _rocs(run: Run, by_site: Mapping[str, Tested]) -> str:
    curves = [
        Roc(site, *roc_curve(found.columns["label"], found.columns["score"]), number(found.value))
        for site, found in by_site.items()
        if found.low is not None
    ]
    if not curves:
        return ""
    shown = curves
    if len(curves) > MAX_PANELS:
        shown = sorted(curves, key=lambda curve: curve.note)[:MAX_PANELS]
    words = "; ".join(f"{curve.title} area {curve.note}" for curve in shown)
    svg = roc_panels("roc", shown, alt=f"One ROC curve per site: {words}.")
    note = "" if shown is curves else f" The {len(shown)} lowest of {len(curves)} sites."
    return page.figure(
        "ROC on test bags", svg, f"Readout '{readout_of(run)}', AUC in the corner.{note}"
    )


def _confusion(run: Run, by_site: Mapping[str, Tested]) -> str:
    """Draw what bags of all sites are and what they are called: of one site there are too few."""
    known = [found.columns for found in by_site.values() if len(found.columns.get("label", ()))]
    if not known:
        return ""
    judge, names = run.judge, [str(name) for name in run.summary["classes"]]
    label_B = np.concatenate([columns["label"] for columns in known])
    called_B = judge.decided(np.concatenate([columns["probabilities"] for columns in known]))
    counts_KK = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts_KK, (label_B, called_B), 1)
    what = "grade" if judge.kind == "ordinal" else "class"
    svg = confusion_matrix("confusion", names, counts_KK, what=what, alt=_told(names, counts_KK))
    right = int(np.trace(counts_KK))
    rule = "the mean grade, rounded" if judge.kind == "ordinal" else "the likeliest class"
    caption = (
        f"Test bags of {len(known)} sites, readout '{readout_of(run)}', called {rule}: "
        f"{right} of {len(label_B)} right. Shade: share of the true {what}."
    )
    return page.figure("Confusion of test bags", svg, caption)


def _told(names: list[str], counts_KK: np.ndarray) -> str:
    rows = [
        f"{name}: " + ", ".join(f"{counts_KK[k, c]} called {names[c]}" for c in np.flatnonzero(row))
        if len(names) <= _MAX_TOLD
        else f"{name}: {counts_KK[k, k]} of {row.sum()} right"
        for k, (name, row) in enumerate(zip(names, counts_KK, strict=True))
        if row.any()
    ]
    return f"Confusion matrix. {'; '.join(rows)}."


def _survival(run: Run) -> str:
    """Draw the cases of all sites, each called high or low beside the others of its own site.

    Risks of different sites come from different networks: one median of all would compare sites.
    """
    by_case = [found.columns for found in read_tested(run, "case").values()]
    parts = [_halves(columns) for columns in by_case if len(columns.get("score", ()))]
    halved = [part for part in parts if part is not None]
    if not halved:
        return ""
    time_B, event_B, high_B = (np.concatenate(column) for column in zip(*halved, strict=True))
    p = logrank(time_B, event_B, high_B)
    groups = [
        Survivors("low risk", time_B[~high_B], event_B[~high_B], SERIES[1], "-"),
        Survivors("high risk", time_B[high_B], event_B[high_B], SERIES[0], "--"),
    ]
    words = "; ".join(
        f"{group.label}: {len(group.time_B)} cases, {int(group.event_B.sum())} events, "
        f"{percent(group.at_the_end())} without event at the end of observation"
        for group in groups
    )
    test = f"log-rank {_p_value(p)}"
    svg = survival_curves("survival", groups, alt=f"Kaplan-Meier curves. {words}; {test}.")
    left = len(parts) - len(halved)
    note = f" Left out: {left} of {len(parts)} sites, without two cases of different risk."
    caption = (
        f"Kaplan-Meier curves of the test cases of {len(halved)} sites, split at the median risk "
        f"of their own site, readout '{readout_of(run)}'; {test}, sites taken together. Ticks: "
        f"end of observation without event. Below: cases at risk.{note if left else ''}"
    )
    return page.figure("Survival of test cases", svg, caption)


def _halves(columns: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return time, event, and whether the risk is above the median; None where none is."""
    risk_B = columns["score"].astype(float)
    high_B = risk_B > np.median(risk_B)
    if not high_B.any():
        return None
    return columns["time"].astype(float), columns["event"].astype(bool), high_B


def _p_value(p: float | None) -> str:
    if p is None:
        return "p undefined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
