"""The part of a training report about who contributed, how late, and by which clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rayfed_hn.reporting import page
from rayfed_hn.reporting.figures import bar_chart
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.words import duration, percent

_MAX_BARS = 12  # later updates share the last bar
_MAX_ROWS = 12  # sites in sight; of more, the table is folded


def rounds(run: Run) -> str:
    """Return the section; nothing of a run in which all sites took part alike and in time."""
    by_site = _by_site(run)
    late = any(record["staleness"] for record in run.metrics)
    uneven = len({len(records) for records in by_site.values()}) > 1
    if not (late or uneven or _simulated(run)):
        return ""
    table = _site_table(run, by_site)
    return page.section(
        "Rounds",
        page.figures([_histogram(run)] if run.metrics else []),
        table if len(by_site) <= _MAX_ROWS else page.details("Updates of every site", table),
        page.pairs(_facts(run)),
    )


def _simulated(run: Run) -> bool:
    return run.summary.get("clock") == "simulated"


def _by_site(run: Run) -> dict[str, list[Mapping[str, Any]]]:
    """Return the updates of every site that could be asked, also where there is none."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in run.metrics:
        found.setdefault(record["site"], []).append(record)
    hospitals = {site["site"] for site in run.summary["sites"]}
    silent = hospitals - set(found) if set(found) <= hospitals else set()  # not if pooled
    return dict(sorted({**{site: [] for site in silent}, **found}.items()))


def _histogram(run: Run) -> str:
    staleness = np.array([record["staleness"] for record in run.metrics])
    counts = np.bincount(np.minimum(staleness, _MAX_BARS - 1)).tolist()
    names = [str(number) for number in range(len(counts))]
    if staleness.max() >= _MAX_BARS:
        names[-1] += "+"
    bars = dict(zip(names, counts, strict=True))
    words = ", ".join(f"{count} of staleness {name}" for name, count in bars.items())
    xlabel = "staleness, in versions"
    svg = bar_chart("staleness", bars, xlabel=xlabel, ylabel="updates", alt=f"Bars: {words}.")
    caption = "Versions that were made while a site was at work on its update; 0 is in time."
    return page.figure("How late updates were", svg, caption)


def _site_table(run: Run, by_site: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    total = sum(len(records) for records in by_site.values())
    header = ["site", "updates", "share of updates", "mean staleness"]
    rows = [
        [
            site,
            len(records),
            percent(len(records) / total if total else None),
            f"{np.mean([r['staleness'] for r in records]):.1f}" if records else "–",
        ]
        for site, records in by_site.items()
    ]
    at_work = [_share_at_work(run, records) for records in by_site.values()]
    if any(share is not None for share in at_work):
        header.append("training, share of the time")
        rows = [[*row, percent(share)] for row, share in zip(rows, at_work, strict=True)]
    return page.table("Updates that went into versions.", header, rows)


def _share_at_work(run: Run, records: Sequence[Mapping[str, Any]]) -> float | None:
    """Return what share of the run a site has trained; None where the files do not say.

    Seconds of an update are real ones: under a simulated clock they say nothing. More than the
    whole run means that it was continued, which started its clock anew.
    """
    whole = run.summary.get("clock_seconds")
    if _simulated(run) or not whole:
        return None
    share = float(np.sum([record["seconds"] for record in records])) / whole
    return share if share <= 1 else None


def _facts(run: Run) -> dict[str, str]:
    summary = run.summary
    whole = summary.get("clock_seconds")
    clock = str(summary.get("clock") or "real")
    facts = {"clock": clock if whole is None else f"{clock}, {duration(float(whole))}"}
    if summary.get("busy_share") is not None:
        facts["sites at work"] = f"{percent(summary['busy_share'])} of the time, on average"
    if summary.get("num_refused") is not None:
        facts["updates refused for their age"] = str(summary["num_refused"])
    if summary.get("absences") is not None:
        facts["times that a site was away"] = str(summary["absences"])
    return facts
