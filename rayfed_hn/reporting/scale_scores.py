"""How good the networks of an experiment with more and more sites are: columns, and words."""

from __future__ import annotations

from rayfed_hn.reporting.scale_rows import Columns, Record, by_method, ordered
from rayfed_hn.reporting.words import listed

_NOTHING = "–"


def tested(summary: Record) -> bool:
    """Whether any step was tested; those of older versions were not."""
    return any(row.get("tested") for row in summary["rows"])


def metric(summary: Record) -> str:
    """What networks were judged by."""
    return next(row["tested"]["metric"] for row in summary["rows"] if row.get("tested"))


def scores(summary: Record) -> Columns:
    """The metric over sites of every step that was tested."""
    rows = [row for row in ordered(summary) if row.get("tested")]
    return Columns(
        f"Test {metric(summary)} over sites, of their last networks",
        ("method", "sites", "mean", "lowest tenth", "worst", "tested", "scored", "trained", "bags"),
        tuple(
            (
                row["method"],
                f"{row['sites']:,}",
                *(score(row["tested"][name]) for name in ("mean", "lowest_tenth", "worst")),
                *(f"{row['tested'][name]:,}" for name in ("sites", "scored", "trained")),
                f"{row['tested']['bags']:,g}",
            )
            for row in rows
        ),
    )


def score(value: float | None) -> str:
    """Return a metric with three decimals."""
    return _NOTHING if value is None else f"{value:.3f}"


def claim(summary: Record) -> str:
    """Say how good the networks of the most sites are, beside those of the fewest."""
    told = []
    for method, every in by_method(summary).items():
        rows = [row for row in every if (row.get("tested") or {}).get("mean") is not None]
        if rows:
            words = f"{_values(rows[-1])} ({method} at {rows[-1]['sites']:,}"
            first = rows[0]
            against = f"; {_values(first)} at {first['sites']:,})" if len(rows) > 1 else ")"
            told.append(words + against)
    if not told:
        return ""
    return f"Test {metric(summary)}, mean over sites and worst site: {listed(told)}."


def about(summary: Record) -> str:
    """Say how the metrics are to be read."""
    rows = [row["tested"] for row in summary["rows"] if row.get("tested")]
    lost = sum(row["unanswered"] for row in rows)
    unscored = sum(row["sites"] - row["scored"] for row in rows) - lost
    undefined = (
        f" {unscored} site(s) in all could not be scored, since their test bags are of one class "
        "or there are none."
        if unscored
        else ""
    )
    undefined += f" {lost} site(s) in all were lost, and gave no scores." if lost else ""
    return (
        "Tested: a sample of sites drawn by run.seed (scale.test_sites), the same for every "
        "method, on bags (the median of a site) of cases that no site trains on. Scored: those "
        "where the metric is defined. Trained: those of which an update was taken; the others are "
        "given what was learned elsewhere. Worst is the lowest site, which is lower by chance the "
        "more are scored; the mean of the lowest tenth can be compared between numbers of sites. "
        f"Sites share one pool of cases, so they are no independent repeats.{undefined}"
    )


def _values(row: Record) -> str:
    return f"{score(row['tested']['mean'])} and {score(row['tested']['worst'])}"
