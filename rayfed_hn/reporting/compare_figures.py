"""The pictures of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rayfed_hn.evaluation.comparison import HYPERNETWORK
from rayfed_hn.evaluation.markdown import interval, number
from rayfed_hn.reporting import page
from rayfed_hn.reporting.figures import Dot, Line, dot_plot, line_chart
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.theme import look

Record = Mapping[str, Any]
_MAX_SITES = 12  # rows of the picture; the table has all


def results(run: Run) -> list[str]:
    """Return means, differences and sites: the three pictures of the first screen."""
    readout = chosen_readout(run)
    return [_means(run, readout), _differences(run, readout), _sites(run, readout)]


def training(run: Run) -> list[str]:
    """Return curves over versions."""
    return [
        _curve(run, "validation_auc", "Validation AUC", "validation AUC"),
        _curve(run, "train_loss", "Training loss", "cross-entropy"),
        _curve(run, "update_norm", "Size of updates", "norm of a site's update"),
    ]


def chosen_readout(run: Run) -> str:
    """Return ``evaluation.readout`` if the table has it, or else the table's first."""
    present = [row["readout"] for row in run.summary["table"]]
    asked = run.knob("evaluation", "readout")
    return asked if asked in present or not present else present[0]


def under(records: Iterable[Record], readout: str) -> list[Record]:
    """Return the records of a readout."""
    return [record for record in records if record["readout"] == readout]


def claim(difference: Record) -> str:
    """Say against whom, by how much, and between what bounds."""
    if difference["low"] == difference["high"] == 0:  # no width, no evidence: few bags a fold
        return f"{difference['against']} (the same AUC at every site in every split)"
    found = number(difference["difference"], signed=True)
    bounds = interval(difference["low"], difference["high"], signed=True)
    return f"{difference['against']} ({found}, 95 % interval {bounds})"


def _looks(run: Run) -> dict[str, tuple[str, str]]:
    return {method: look(method, i) for i, method in enumerate(run.summary["methods"])}


def _means(run: Run, readout: str) -> str:
    looks, dots, words = _looks(run), [], []
    rows = sorted(run.summary["table"], key=lambda row: row["readout"] != readout)
    several = len({row["readout"] for row in rows}) > 1
    for row in rows:
        if row["mean_site_auc"] is None:
            continue
        colour, marker = looks.get(row["method"], look(row["method"], 0))
        dot = Dot(row["method"], row["mean_site_auc"], row.get("low"), row.get("high"))
        series = row["readout"] if several else ""
        filled = row["readout"] == readout
        dots.append(Dot(dot.row, dot.value, dot.low, dot.high, colour, marker, series, filled))
        words.append(f"{row['method']} ({row['readout']}) {number(row['mean_site_auc'])}")
    if not dots:
        return ""
    svg = dot_plot(
        "means", dots, xlabel="mean site AUC", reference=0.5, alt=f"Dots: {'; '.join(words)}."
    )
    caption = "Mean over sites of the test AUC, with 95 % intervals over splits."
    return page.figure("Methods", svg, caption)


def _differences(run: Run, readout: str) -> str:
    looks, dots = _looks(run), []
    found = [d for d in under(run.summary["differences"], readout) if d["difference"] is not None]
    own = [d for d in found if d["method"] == HYPERNETWORK]
    for d in own or found:
        colour, marker = looks.get(d["against"], look(d["against"], 0))
        row = f"{d['method']} − {d['against']}" if not own else f"− {d['against']}"
        dots.append(Dot(row, d["difference"], d["low"], d["high"], colour, marker))
    if not dots:
        return ""
    words = "; ".join(f"{d['method']} against {claim(d)}" for d in own or found)
    subject = "hypernetwork − other" if own else "difference"
    svg = dot_plot(
        "differences", dots, xlabel=f"{subject}, mean site AUC", reference=0.0, alt=f"{words}."
    )
    caption = "Paired over sites and splits, with 95 % intervals. Right of zero: better."
    return page.figure("The hypernetwork against" if own else "Differences", svg, caption)


def _sites(run: Run, readout: str) -> str:
    records = [r for r in under(run.summary["per_site"], readout) if r["mean_auc"] is not None]
    means: dict[str, list[float]] = {}
    for record in records:
        means.setdefault(record["site"], []).append(record["mean_auc"])
    order = sorted(means, key=lambda site: -float(np.mean(means[site])))
    shown = order if len(order) <= _MAX_SITES else order[-_MAX_SITES:]
    looks, dots = _looks(run), []
    for site in shown:
        for record in records:
            if record["site"] == site:
                colour, marker = looks.get(record["method"], look(record["method"], 0))
                dot = Dot(site, record["mean_auc"], colour=colour, marker=marker)
                dots.append(Dot(dot.row, dot.value, None, None, colour, marker, record["method"]))
    if not dots:
        return ""
    words = "; ".join(f"{d.row} {d.series} {number(d.value)}" for d in dots)
    svg = dot_plot("sites", dots, xlabel="test AUC", reference=0.5, alt=f"Dots: {words}.")
    note = "" if len(shown) == len(order) else f" The {len(shown)} lowest of {len(order)} sites."
    return page.figure("Every site", svg, f"Mean over splits, readout '{readout}'.{note}")


def _curve(run: Run, metric: str, title: str, ylabel: str) -> str:
    lines = []
    for method, (colour, _) in _looks(run).items():
        found = _mean_over_splits([r for r in run.metrics if r.get("method") == method], metric)
        if found is not None:
            x, y, se = found
            lines.append(Line(method, x, y, y - se, y + se, colour))
    if not lines:
        return ""
    ends = "; ".join(f"{line.label} {number(float(line.y[-1]))}" for line in lines)
    values = np.concatenate([line.y for line in lines])
    log = metric == "update_norm" and bool((values > 0).all()) and np.ptp(np.log10(values)) > 1
    svg = line_chart(metric, lines, ylabel=ylabel, log=log, alt=f"Lines; at the end {ends}.")
    return page.figure(title, svg, "")


def _mean_over_splits(
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
