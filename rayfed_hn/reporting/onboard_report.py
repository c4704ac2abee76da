"""The report of a site that joined later: which network it should use, what labels are worth."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from rayfed_hn.evaluation.markdown import number
from rayfed_hn.reporting import page
from rayfed_hn.reporting.figures import Line, line_chart
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.theme import SERIES
from rayfed_hn.reporting.troubles import troubles
from rayfed_hn.reporting.words import percent

_RECOMMENDED = "recommended"
# Six lines can be told apart; the table has the others.
_DRAWN = (
    *(_RECOMMENDED, "isolated", "FedAvg + fine-tuning", "embedding + fine-tuning"),
    *("embedding only", "base + fine-tuning", "zero-shot"),
)
_MAX_LINES = 6
_CAUTION = (
    "Every point is a mean over draws of labelled bags, each tested on another fold of the site's "
    "cases; draws share cases, so small differences mean nothing. The recommendation is made from "
    "the labelled bags alone. Nothing of this site was sent to the federation."
)
_EACH = {"survival": "with and without event", "ordinal": "of every grade"}  # else: of every class


def parts(run: Run) -> page.Parts:
    """Return what a report shows of a site that joined."""
    more = page.section("How it was tried", page.paragraph(_CAUTION), page.pairs(_facts(run)))
    return page.Parts(_verdict(run), troubles(run.summary), _table(run), (_curve(run),), (more,))


def command(run: Run) -> str:
    """Return the command that joins the same site with the same settings, but for run.dir."""
    summary = run.summary
    places = {name: summary.get(name) for name in ("bags", "fedavg")}
    options = [word for name, path in places.items() if path for word in (f"--{name}", path)]
    knobs = run.config.get("onboard") or {}
    asked = [f"onboard.{name}={_plain(value)}" for name, value in knobs.items()]
    asked += [f"run.seed={run.knob('run', 'seed')}", f"data.fold={run.knob('data', 'fold')}"]
    words = ["rayfed-hn", "onboard", summary["origin"], "--site", summary["site"], *options, *asked]
    return shlex.join(map(str, words))


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _verdict(run: Run) -> str:
    summary, values = run.summary, run.summary["values"]
    own, alone = values.get(_RECOMMENDED), values.get("isolated")
    bags = f"{summary['num_labelled']} labelled bags of {summary['site']}"
    if own is None:
        return f"With {bags} the {summary['metric']} on its test bags is not defined."
    against = "" if alone is None else f", and training alone {number(alone)}"
    shares = ", ".join(f"{percent(share)} {arm}" for arm, share in summary["recommended"].items())
    return (
        f"With {bags} the recommended network ({shares}) has a test {summary['metric']} of "
        f"{number(own)}{against}."
    )


def _points(run: Run) -> dict[tuple[str, int], Mapping[str, Any]]:
    return {(point["arm"], int(point["labelled"])): point for point in run.summary["curve"]}


def _table(run: Run) -> str:
    points, values = _points(run), run.summary["values"]
    counts = sorted({labelled for _, labelled in points})
    rows = []
    for arm, last in values.items():
        found = [points.get((arm, count), {}).get("mean") for count in counts]
        rows.append([arm, *map(number, found), number(last)])
    header = ["network", *(f"{count} each" for count in counts), "all labelled"]
    caption = (
        f"Test {run.summary['metric']} by number of labelled bags {_each(run)}. The last column is "
        f"of one fold alone ({run.summary['num_test']} bags): not to be compared with the others."
    )
    chosen = [i for i, arm in enumerate(values) if arm == _RECOMMENDED]
    return page.table(caption, header, rows, chosen=chosen)


def _curve(run: Run) -> str:
    points = _points(run)
    present = [arm for arm in _DRAWN if any(known == arm for known, _ in points)][:_MAX_LINES]
    lines = []
    for i, arm in enumerate(present):
        counts = sorted(labelled for known, labelled in points if known == arm)
        means = np.array([_or_nan(points[arm, count]["mean"]) for count in counts])
        dash = "-" if arm == _RECOMMENDED else "--"
        lines.append(Line(arm, np.array(counts), means, colour=SERIES[i % len(SERIES)], dash=dash))
    if not any(np.isfinite(line.y).any() for line in lines):
        return ""
    metric = run.summary["metric"]
    ends = ", ".join(f"{line.label} {number(_none_if_nan(line.y[-1]))}" for line in lines)
    svg = line_chart(
        *("labelled", lines),
        ylabel=f"test {metric}",
        xlabel=f"labelled bags {_each(run)}",
        alt=f"{metric} over labelled bags; at the end {ends}.",
    )
    return page.figure("What labels are worth", svg, "Mean over draws of labelled bags.")


def _each(run: Run) -> str:
    return _EACH.get(run.judge.kind, "of every class")


def _facts(run: Run) -> dict[str, object]:
    summary = run.summary
    held_out = {arm: number(value) for arm, value in summary["held_out"].items()}
    return {
        "joined": f"{summary['method']} of {summary['num_sites']} sites",
        "compared with a FedAvg run": summary.get("fedavg") or "no; --fedavg gives one",
        "labelled and test bags": f"{summary['num_labelled']} and {summary['num_test']}",
        f"{run.judge.ranking_name}, cross-validated on the labelled bags": ", ".join(
            f"{a} {v}" for a, v in held_out.items()
        ),
    }


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _none_if_nan(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
