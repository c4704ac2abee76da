"""The pictures of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rayfed_hn.evaluation.markdown import number
from rayfed_hn.evaluation.subject import Record
from rayfed_hn.reporting import page
from rayfed_hn.reporting.choices import (
    chosen_readout,
    comparisons,
    left_out,
    look_of,
    prominent,
    ranked,
    under,
)
from rayfed_hn.reporting.figures import Dot, Line, dot_plot, line_chart
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.task_words import loss
from rayfed_hn.reporting.verdict import claim

MAX_SITES = 12  # rows of the picture and of a table in sight


def results(run: Run) -> list[str]:
    """Return means, differences and sites: the three pictures of the first screen."""
    return [_means(run), _differences(run), _sites(run)]


def training(run: Run) -> list[str]:
    """Return curves over versions."""
    name = run.judge.ranking_name
    return [
        _curve(run, "validation_metric", f"Validation {name}", f"validation {name}"),
        _curve(run, "train_loss", "Training loss", loss(run.judge)),
        _curve(run, "update_norm", "Size of updates", "norm of a site's update"),
    ]


def _means(run: Run) -> str:
    dots = [
        Dot(
            row["method"],
            row["mean_site"],
            row.get("low"),
            row.get("high"),
            look_of(run, row["method"]),
        )
        for row in ranked(run)
        if row["mean_site"] is not None
    ]
    if not dots:
        return ""
    words = "; ".join(f"{dot.row} {number(dot.value)}" for dot in dots)
    judge = run.judge
    xlabel = f"mean site {judge.name}"
    svg = dot_plot("means", dots, xlabel=xlabel, reference=judge.chance, alt=f"Dots: {words}.")
    caption = (
        f"Mean over sites of the test {judge.name}, readout '{chosen_readout(run)}', with "
        "95 % intervals over splits."
    )
    return page.figure("Methods", svg, caption)


def _differences(run: Run) -> str:
    found = comparisons(run)
    if not found:
        return ""
    dots = [
        Dot(f"− {d['against']}", d["difference"], d["low"], d["high"], look_of(run, d["against"]))
        for d in found
    ]
    method, metric = found[0]["method"], run.judge.name
    svg = dot_plot(
        "differences",
        dots,
        xlabel=f"{method} − other, mean site {metric}",
        reference=0.0,
        alt=f"{method} against {'; '.join(claim(d, metric) for d in found)}.",
    )
    caption = "Paired over sites and splits, with 95 % intervals. Right of zero: better."
    return page.figure(f"{method} against".capitalize(), svg, caption)


def _sites(run: Run) -> str:
    readout, looks = chosen_readout(run), prominent(run)
    records = [r for r in under(run.summary["per_site"], readout) if r["mean_value"] is not None]
    means: dict[str, list[float]] = {}
    for record in records:
        means.setdefault(record["site"], []).append(record["mean_value"])
    order = sorted(means, key=lambda site: -float(np.mean(means[site])))
    shown = order[-MAX_SITES:]
    dots = [
        Dot(site, record["mean_value"], look=looks[record["method"]], series=record["method"])
        for site in shown
        for record in records
        if record["site"] == site and record["method"] in looks
    ]
    if not dots:
        return ""
    words = "; ".join(f"{d.row} {d.series} {number(d.value)}" for d in dots)
    xlabel, chance = f"test {run.judge.name}", run.judge.chance
    svg = dot_plot("sites", dots, xlabel=xlabel, reference=chance, alt=f"Dots: {words}.")
    lowest = "" if len(shown) == len(order) else f" The {len(shown)} lowest of {len(order)} sites."
    caption = f"Mean over splits, readout '{readout}'.{lowest}{left_out(run)}"
    return page.figure("Every site", svg, caption)


def _curve(run: Run, metric: str, title: str, ylabel: str) -> str:
    lines = []
    for method, drawn in prominent(run).items():
        found = mean_over_splits([r for r in run.metrics if r.get("method") == method], metric)
        if found is not None:
            x, y, se = found
            lines.append(Line(method, x, y, y - se, y + se, drawn.colour, drawn.dash))
    if not lines:
        return ""
    ends = "; ".join(f"{line.label} {number(float(line.y[-1]))}" for line in lines)
    values = np.concatenate([line.y for line in lines])
    log = metric == "update_norm" and bool((values > 0).all()) and np.ptp(np.log10(values)) > 1
    svg = line_chart(metric, lines, ylabel=ylabel, log=log, alt=f"Lines; at the end {ends}.")
    return page.figure(title, svg, left_out(run).strip())


def mean_over_splits(
    records: Sequence[Record], metric: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return versions, mean over splits of the mean over sites, and its standard error."""
    cells: dict[int, dict[tuple[Any, Any], list[float]]] = {}
    for record in records:
        if np.isfinite(record[metric]):
            split = record.get("seed"), record.get("fold")
            cells.setdefault(record["version"], {}).setdefault(split, []).append(record[metric])
    if not cells:
        return None
    versions = sorted(cells)
    means = [np.array([np.mean(v) for v in cells[version].values()]) for version in versions]
    errors = [m.std(ddof=1) / np.sqrt(len(m)) if len(m) > 1 else 0.0 for m in means]
    return np.array(versions), np.array([m.mean() for m in means]), np.array(errors)
