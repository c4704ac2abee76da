"""The pictures of a comparison with several amounts of noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from rayfed_hn.evaluation.markdown import amount, amount_name, number
from rayfed_hn.evaluation.subject import Record
from rayfed_hn.reporting import page
from rayfed_hn.reporting.choices import chosen_readout, foremost, look_of, under
from rayfed_hn.reporting.compare_figures import MAX_SITES, mean_over_splits
from rayfed_hn.reporting.figures import WIDTH, Dot, Line, dot_plot, line_chart, name_ends
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.theme import MARKERS, MUTED, SERIES, Look, drawing, new_axes, to_svg

_GAP = 0.5  # decades between no noise and the least, if they do not say
_MARGIN = 0.5  # decades beside an amount that is the only one
_MAX_TICKS = 8
_END_LOOKS = Look(SERIES[0], MARKERS[0]), Look(SERIES[1], MARKERS[1])  # least and most noise


def trade_off(run: Run, rows: Sequence[Record]) -> str:
    """Return the metric against the amount of noise, a line a method."""
    name, metric = amount_name(run.summary), run.judge.name
    caption = (
        f"Mean over sites of the test {metric}, readout '{chosen_readout(run)}', with 95 % "
        f"intervals over splits. Broken lines: methods that release nothing. {_axis_words(name)}"
    )
    drawn = [
        {**row, "mean": row["mean_site"]}
        for row in rows
        if row["method"] in foremost(list(run.summary["methods"]))
    ]
    return _figure(run, drawn, "trade-off", ("What noise costs", caption), f"mean site {metric}")


def every_site(run: Run, method: str) -> str:
    """Return what a method reaches at every site with the least and with the most noise."""
    name, metric, readout = amount_name(run.summary), run.judge.name, chosen_readout(run)
    own = [
        record
        for record in under(run.summary["per_site"], readout)
        if record["method"] == method and record["mean_value"] is not None
    ]
    # From little noise to much: a larger epsilon is less.
    amounts = sorted({record["noise"] for record in own}, reverse=name == "epsilon")
    ends = list(dict.fromkeys([*amounts[:1], *amounts[-1:]]))
    found = {(r["site"], r["noise"]): r["mean_value"] for r in own if r["noise"] in ends}
    order = sorted(found.keys() & {(r["site"], ends[0]) for r in own}, key=lambda key: -found[key])
    shown = [site for site, _ in order][-MAX_SITES:]
    dots = [
        Dot(site, found[site, noise], look=_END_LOOKS[i], series=f"{name} {amount(noise)}")
        for site in shown
        for i, noise in enumerate(ends)
        if (site, noise) in found
    ]
    if not dots:
        return ""
    words = "; ".join(f"{dot.row} {number(dot.value)} with {dot.series}" for dot in dots)
    reference = run.judge.chance
    svg = dot_plot(
        "sites-by-noise", dots, xlabel=f"test {metric}", reference=reference, alt=f"{words}."
    )
    lowest = "" if len(shown) == len(order) else f" The {len(shown)} lowest of {len(order)} sites."
    caption = f"Of {method}: mean over splits, readout '{readout}'.{lowest}"
    return page.figure("Who pays for it", svg, caption)


def membership(run: Run) -> str:
    """Return how well an attack tells who was trained on; nothing if none was tried."""
    rows = run.summary.get("membership") or []
    caption = (
        "AUC of an attack that tells cases that were trained on from others, with 95 % intervals "
        f"over splits; 0.5 by guessing. {_axis_words(amount_name(run.summary))}"
    )
    title = "What noise hides"
    return _figure(run, rows, "membership", (title, caption), "membership AUC", chance=0.5)


def curves(run: Run, method: str) -> list[str]:
    """Return the validation metric over versions, a line an amount of noise."""
    name, metric = amount_name(run.summary), run.judge.ranking_name
    lines = []
    for i, noise in enumerate(run.summary["noise"]):
        own = [r for r in run.metrics if (r.get("method"), r.get("noise")) == (method, noise)]
        found = mean_over_splits(own, "validation_metric")
        if found is not None:
            x, y, se = found
            colour = SERIES[i % len(SERIES)]
            lines.append(Line(f"{name} {amount(noise)}", x, y, y - se, y + se, colour))
    if not lines:
        return []
    ends = "; ".join(f"{line.label} {number(float(line.y[-1]))}" for line in lines)
    svg = line_chart(
        "validation-by-noise",
        lines,
        ylabel=f"validation {metric}",
        alt=f"Lines over versions of {method}; at the end {ends}.",
    )
    caption = f"Of {method}: mean over sites and splits, with one standard error over splits."
    return [page.figure(f"Validation {metric} with every amount of noise", svg, caption)]


def _axis_words(name: str | None) -> str:
    if name == "epsilon":
        return "The smaller epsilon, the more noise; the axis is logarithmic."
    return "The axis is logarithmic, with no noise at its left edge."


def _figure(
    run: Run,
    rows: Sequence[Record],
    name: str,
    words: tuple[str, str],
    ylabel: str,
    *,
    chance: float | None = None,
) -> str:
    """Draw ``mean``, ``low`` and ``high`` of rows over their ``noise``; words: title, caption."""
    place = places(run.summary["noise"])
    lines = [
        line
        for method in dict.fromkeys(row["method"] for row in rows)
        if (line := _line(run, method, rows, place)) is not None
    ]
    if not lines:
        return ""
    told = "; ".join(_told(method, rows) for method in dict.fromkeys(r["method"] for r in rows))
    delta = run.knob("privacy", "target_delta")
    of = amount_name(run.summary)
    xlabel = f"epsilon of a site, at delta {delta:g}" if of == "epsilon" else str(of)
    with drawing():
        figure, axes = new_axes(WIDTH, 2.7)
        for line in lines:
            _draw(axes, line, dot=line.dash != "--")
        if chance is not None:
            axes.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=0.5)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(visible=False, axis="x")
        shown = _thinned(sorted(place))
        axes.set_xticks([place[a] for a in shown], [amount(a) for a in shown])
        name_ends(axes, lines)
        svg = to_svg(figure, name, f"{ylabel} by {of}: {told}.")
    return page.figure(words[0], svg, words[1])


def places(amounts: Sequence[float]) -> dict[float, float]:
    """Where amounts are on a logarithmic axis; 0 a step left of the least that is more."""
    found = {a: math.log10(a) for a in sorted(amounts) if a > 0}
    if 0 in amounts:
        marks = sorted(found.values())
        step = (marks[-1] - marks[0]) / (len(marks) - 1) if len(marks) > 1 else _GAP
        found[0.0] = (marks[0] if marks else 0.0) - step
    return found


def _line(run: Run, method: str, rows: Sequence[Record], place: dict[float, float]) -> Line | None:
    """Return the line of a method; one that has no noise is level and broken."""
    own = [row for row in rows if row["method"] == method and row["mean"] is not None]
    if not own:
        return None
    flat = own[0]["noise"] is None
    if flat:
        ends = min(place.values()), max(place.values())
        margin = _MARGIN if ends[0] == ends[1] else 0.0
        x, own = np.array([ends[0] - margin, ends[1] + margin]), [own[0]] * 2
    else:
        own.sort(key=lambda row: row["noise"])
        x = np.array([place[row["noise"]] for row in own])
    y, low, high = (
        np.array([np.nan if row[key] is None else row[key] for row in own], float)
        for key in ("mean", "low", "high")
    )
    return Line(method, x, y, low, high, look_of(run, method).colour, "--" if flat else "-")


def _draw(axes: Axes, line: Line, *, dot: bool) -> None:
    axes.plot(
        line.x,
        line.y,
        line.dash,
        color=line.colour,
        linewidth=1.7,
        marker="o" if dot else None,
        markersize=3.5,
    )
    assert line.low is not None
    assert line.high is not None
    axes.fill_between(
        line.x, line.low, line.high, color=line.colour, alpha=0.13 if dot else 0.07, linewidth=0
    )


def _told(method: str, rows: Sequence[Record]) -> str:
    own = [row for row in rows if row["method"] == method]
    found = [
        number(row["mean"])
        if row["noise"] is None
        else f"{number(row['mean'])} at {amount(row['noise'])}"
        for row in own
    ]
    return f"{method} {', '.join(found)}"


def _thinned(amounts: Sequence[float]) -> list[float]:
    """As many as can be written below an axis, the ends among them."""
    if len(amounts) <= _MAX_TICKS:
        return list(amounts)
    chosen = np.linspace(0, len(amounts) - 1, _MAX_TICKS).round().astype(int)
    return [amounts[i] for i in chosen]
