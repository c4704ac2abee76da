"""The report of a training run: how good the network of every site is, and how it got there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayfed_hn.evaluation.markdown import interval, number
from rayfed_hn.evaluation.metrics import auc_interval, roc_curve
from rayfed_hn.reporting import page
from rayfed_hn.reporting.figures import Line, Roc, line_chart, roc_panels
from rayfed_hn.reporting.rounds import rounds
from rayfed_hn.reporting.run_files import READOUTS, Run, read_scores
from rayfed_hn.reporting.site_map import site_map
from rayfed_hn.reporting.theme import SERIES
from rayfed_hn.reporting.troubles import troubles

_MAX_PANELS = 12  # sites in a picture or in the first table; of more, the lowest
_LEVEL = 0.95


@dataclass(frozen=True)
class _Tested:
    """What the test bags of a site say of its network under one readout."""

    auc: float | None
    low: float | None
    high: float | None
    roc: Roc | None


def parts(run: Run) -> page.Parts:
    """Return what a report shows of a training run."""
    tested = _tested(run)
    pictures = (
        _site_curves(run, "validation_metric", "Validation AUC", "validation AUC"),
        _rocs(run, tested),
        _site_curves(run, "train_loss", "Training loss", "cross-entropy"),
    )
    return page.Parts(
        _verdict(run), troubles(run.summary), _main_table(run, tested), pictures, tuple(_more(run))
    )


def _verdict(run: Run) -> str:
    """Say how good the networks are on the test bags, and where worst."""
    readout, summary = _readout(run), run.summary
    aucs = {s["site"]: s[f"test_{readout}"] for s in summary["sites"]}
    defined = {site: value for site, value in aucs.items() if value is not None}
    made = f"after {summary['num_versions']} versions of {summary['method']}"
    if not defined:
        return f"No AUC is defined {made}: no site was tested on bags of both classes."
    mean, worst = float(np.mean(list(defined.values()))), min(defined, key=lambda s: defined[s])
    best = max(defined, key=lambda s: defined[s])
    spread = f", from {number(defined[worst])} ({worst}) to {number(defined[best])} ({best})"
    return (
        f"Mean site test AUC {number(mean)} {made}, at {len(defined)} of {len(aucs)} sites"
        f"{spread if defined[best] > defined[worst] else ''}."
    )


def _main_table(run: Run, tested: Mapping[str, _Tested]) -> str:
    """Return the sites with their AUC and its interval; of many sites the worst, rest folded."""
    sites = list(run.summary["sites"])
    caption = (
        "Bags and test AUC of every site. Intervals count cases, not bags (Newcombe 2006); one "
        "division of the cases: compare repeats it."
    )
    whole = _site_table(run, caption, sites, tested)
    if len(sites) <= _MAX_PANELS:
        return whole
    key = f"test_{_readout(run)}"
    worst = sorted((site for site in sites if site[key] is not None), key=lambda site: site[key])
    first = f"The {len(worst[:_MAX_PANELS])} lowest of {len(sites)} sites."
    return _site_table(run, first, worst[:_MAX_PANELS], tested) + page.details("Every site", whole)


def _site_table(
    run: Run,
    caption: str,
    sites: Sequence[Mapping[str, Any]],
    tested: Mapping[str, _Tested],
) -> str:
    readout = _readout(run)
    others = [r for r in READOUTS if r != readout and all(f"test_{r}" in site for site in sites)]
    header = ["site", "train", "validation", "test", f"AUC ({readout})", "95 % interval"]
    rows = [
        (
            site["site"],
            *(site[f"num_{part}"] for part in ("train", "validation", "test")),
            number(site[f"test_{readout}"]),
            interval(tested[site["site"]].low, tested[site["site"]].high),
            *(number(site[f"test_{other}"]) for other in others),
            "–" if site.get("best_version") is None else site["best_version"],
        )
        for site in sites
    ]
    header += [*(f"AUC ({other})" for other in others), "best version"]
    return page.table(caption, header, rows, quiet_columns=len(others) + 1)


def _more(run: Run) -> list[str]:
    """Return the sections below the first screen."""
    pictures = [
        _site_curves(run, "validation_loss", "Validation loss", "cross-entropy"),
        _site_curves(run, "update_norm", "Size of updates", "norm of a site's update"),
    ]
    readout = _readout(run)
    facts = {
        "method": run.summary["method"],
        f"readout '{readout}'": READOUTS[readout],
        "versions": run.summary["num_versions"],
        "parameters of a network": f"{run.summary['num_parameters']:,}",
        "noise on released networks": _noise(run.summary.get("privacy")),
        "leaves a site without noise": _without_noise(run.summary.get("released_without_noise")),
    }
    return [
        page.section("Training", page.figures(pictures)),
        rounds(run),
        site_map(run),
        page.section("Model and privacy", page.pairs(facts)),
    ]


def _without_noise(released: Sequence[str] | None) -> str:
    if released is None:
        return "not recorded"
    return "; ".join(released) or "nothing"


def _noise(privacy: Mapping[str, Any] | None) -> str:
    """Say what was done to networks before they left a site, and what that promises."""
    if not privacy:
        return "not recorded"
    guarantee = privacy.get("formal_guarantee", "none")
    promise = "no formal guarantee" if guarantee == "none" else f"formal guarantee: {guarantee}"
    if privacy["mechanism"] == "none":
        return f"no noise was applied; {promise}"
    if privacy["mechanism"] != "paper":
        return f"mechanism '{privacy['mechanism']}'; {promise}"
    words = [
        f"{privacy['noise_scale']:g} standard deviations of every weight tensor, none on biases"
    ]
    if privacy.get("noise_source") == "seeded":
        words.append("drawn from run.seed (for simulations only)")
    return "; ".join([*words, promise])


def _readout(run: Run) -> str:
    """Return the run's readout."""
    asked = run.summary.get("readout") or run.knob("evaluation", "readout")
    return asked if asked in READOUTS else "last"


def _tested(run: Run) -> dict[str, _Tested]:
    lost = {loss.get("site") for loss in run.summary["lost_sites"]}
    found = {}
    for site in run.summary["sites"]:
        value = site[f"test_{_readout(run)}"]
        empty = value is None and (site["site"] in lost or not site["num_test"])
        found[site["site"]] = (
            _Tested(None, None, None, None) if empty else _test_site(run, site["site"], value)
        )
    return found


def _test_site(run: Run, site: str, value: float | None) -> _Tested:
    columns = read_scores(run.folder, site)
    chosen = columns["readout"] == _readout(run)
    label_B, case_B = columns["label"][chosen], columns["case"][chosen]
    if value is None or len(set(label_B.tolist())) < 2:
        return _Tested(None, None, None, None)
    sizes = [len(set(case_B[label_B == label].tolist())) for label in (1, 0)]
    low, high = auc_interval(value, *sizes, level=_LEVEL)
    curve = roc_curve(label_B, columns["score"][chosen])
    return _Tested(value, low, high, Roc(site, *curve, note=number(value)))


def _rocs(run: Run, tested: Mapping[str, _Tested]) -> str:
    curves = [found.roc for found in tested.values() if found.roc is not None]
    if not curves:
        return ""
    shown = curves
    if len(curves) > _MAX_PANELS:
        shown = sorted(curves, key=lambda curve: curve.note)[:_MAX_PANELS]
    words = "; ".join(f"{curve.title} area {curve.note}" for curve in shown)
    svg = roc_panels("roc", shown, alt=f"One ROC curve per site: {words}.")
    note = "" if shown is curves else f" The {len(shown)} lowest of {len(curves)} sites."
    return page.figure(
        "ROC on test bags", svg, f"Readout '{_readout(run)}', AUC in the corner.{note}"
    )


def _site_curves(run: Run, metric: str, title: str, ylabel: str) -> str:
    by_site: dict[str, list[Mapping[str, Any]]] = {}
    for record in run.metrics:
        by_site.setdefault(record["site"], []).append(record)
    lines = [
        _line(site, records, metric, SERIES[i % len(SERIES)])
        for i, (site, records) in enumerate(sorted(by_site.items()))
    ]
    values = np.concatenate([line.y for line in lines]) if lines else np.array([])
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    log = metric == "update_norm" and bool((values > 0).all()) and np.ptp(np.log10(values)) > 1
    ends = ", ".join(f"{line.label} {line.y[-1]:.3f}" for line in lines[:_MAX_PANELS])
    svg = line_chart(
        metric, lines, ylabel=ylabel, log=log, alt=f"{title} by site; at the end {ends}."
    )
    return page.figure(title, svg, _CAPTIONS[metric])


def _line(site: str, records: Sequence[Mapping[str, Any]], metric: str, colour: str) -> Line:
    ordered = sorted(records, key=lambda record: record["version"])
    x = np.array([record["version"] for record in ordered])
    y = np.array([record[metric] for record in ordered], float)
    return Line(site, x, np.where(np.isfinite(y), y, np.nan), colour=colour)


_CAPTIONS = {
    "validation_metric": "Of the network that a site received, on its validation bags.",
    "train_loss": "Mean over the local steps that follow a version.",
    "validation_loss": "Of the network that a site received.",
    "update_norm": "Of what a site sent, any noise included.",
}
