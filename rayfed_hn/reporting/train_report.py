"""The report of a training run: how good the network of every site is, and how it got there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rayfed_hn.evaluation.markdown import interval, number, unit_column
from rayfed_hn.reporting import page
from rayfed_hn.reporting.figures import Line, line_chart
from rayfed_hn.reporting.incidents import incidents
from rayfed_hn.reporting.outcomes import MAX_PANELS, outcome
from rayfed_hn.reporting.privacy_section import older_facts, privacy
from rayfed_hn.reporting.rounds import rounds
from rayfed_hn.reporting.run_files import READOUTS, Run
from rayfed_hn.reporting.site_map import site_map
from rayfed_hn.reporting.task_words import loss, needed
from rayfed_hn.reporting.tested import Tested, read_tested, readout_of
from rayfed_hn.reporting.theme import SERIES
from rayfed_hn.reporting.train_costs import costs
from rayfed_hn.reporting.troubles import troubles


def parts(run: Run) -> page.Parts:
    """Return what a report shows of a training run."""
    by_site, name = read_tested(run, run.unit), run.judge.ranking_name
    pictures = (
        _site_curves(run, "validation_metric", f"Validation {name}", f"validation {name}"),
        outcome(run, by_site),
        _site_curves(run, "train_loss", "Training loss", loss(run.judge)),
    )
    return page.Parts(
        _verdict(run), troubles(run.summary), _main_table(run, by_site), pictures, tuple(_more(run))
    )


def _verdict(run: Run) -> str:
    """Say how good the networks are on the test bags, and where worst."""
    readout, summary, metric = readout_of(run), run.summary, run.judge.name
    values = {s["site"]: s[f"test_{readout}"] for s in summary["sites"]}
    defined = {site: value for site, value in values.items() if value is not None}
    made = f"after {summary['num_versions']} versions of {summary['method']}"
    if not defined:
        return f"No {metric} is defined {made}: no site was tested on {needed(run.judge)}."
    mean, worst = float(np.mean(list(defined.values()))), min(defined, key=lambda s: defined[s])
    best = max(defined, key=lambda s: defined[s])
    spread = f", from {number(defined[worst])} ({worst}) to {number(defined[best])} ({best})"
    return (
        f"Mean site test {metric} {number(mean)} {made}, at {len(defined)} of {len(values)} sites"
        f"{spread if defined[best] > defined[worst] else ''}."
    )


def _main_table(run: Run, by_site: Mapping[str, Tested]) -> str:
    """Return the sites with their metric and its interval; of many the worst, rest folded."""
    sites = list(run.summary["sites"])
    intervals = "Intervals count cases, not bags (Newcombe 2006)"
    if run.judge.kind != "binary":
        intervals = "No interval: we know of none that holds for few cases"
    caption = (
        f"Bags and test {run.judge.name} of every site. {intervals}; one division of the cases: "
        "compare repeats it."
    )
    whole = _site_table(run, caption, sites, by_site)
    if len(sites) <= MAX_PANELS:
        return whole
    key = f"test_{readout_of(run)}"
    worst = sorted((site for site in sites if site[key] is not None), key=lambda site: site[key])
    first = f"The {len(worst[:MAX_PANELS])} lowest of {len(sites)} sites."
    return _site_table(run, first, worst[:MAX_PANELS], by_site) + page.details("Every site", whole)


def _site_table(
    run: Run,
    caption: str,
    sites: Sequence[Mapping[str, Any]],
    by_site: Mapping[str, Tested],
) -> str:
    readout, metric, unit = readout_of(run), run.judge.name, _other_unit(run)
    others = [r for r in READOUTS if r != readout and all(f"test_{r}" in site for site in sites)]
    header = ["site", "train", "validation", "test", f"{metric} ({readout})", "95 % interval"]
    header += [unit_column(unit)] if unit else []
    rows = [
        (
            site["site"],
            *(site[f"num_{part}"] for part in ("train", "validation", "test")),
            number(site[f"test_{readout}"]),
            interval(by_site[site["site"]].low, by_site[site["site"]].high),
            *([number(site[f"by_{unit}"])] if unit else []),
            *(number(site[f"test_{other}"]) for other in others),
            "–" if site.get("best_version") is None else site["best_version"],
        )
        for site in sites
    ]
    header += [*(f"{metric} ({other})" for other in others), "best version"]
    return page.table(caption, header, rows, quiet_columns=len(others) + 1)


def _other_unit(run: Run) -> str | None:
    """Slide or case: what is not the task's; None where every case has one slide."""
    if all(s.get("num_test_slides") == s.get("num_test_cases") for s in run.summary["sites"]):
        return None
    return "slide" if run.unit == "case" else "case"


def _more(run: Run) -> list[str]:
    """Return the sections below the first screen."""
    pictures = [
        _site_curves(run, "validation_loss", "Validation loss", loss(run.judge)),
        _site_curves(run, "update_norm", "Size of updates", "norm of a site's update"),
    ]
    readout = readout_of(run)
    facts = {
        "method": run.summary["method"],
        f"readout '{readout}'": run.about(readout),
        "versions": run.summary["num_versions"],
    }
    stated = privacy(run)
    return [
        page.section("Training", page.figures(pictures)),
        rounds(run),
        _incidents(run),
        stated,
        page.section("Model", page.pairs(facts))
        if stated
        else page.section("Model and privacy", page.pairs(facts | older_facts(run))),
        site_map(run),
        costs(run),
    ]


def _incidents(run: Run) -> str:
    found = incidents(run.summary)
    title = "What the run went through"
    return page.section(title, page.bullets(found)) if found else ""


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
    ends = ", ".join(f"{line.label} {line.y[-1]:.3f}" for line in lines[:MAX_PANELS])
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
