"""The report of a comparison: which method is better, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

from rayfed_hn.evaluation.comparison import HYPERNETWORK
from rayfed_hn.evaluation.markdown import interval, number
from rayfed_hn.reporting import page
from rayfed_hn.reporting.compare_figures import (
    Record,
    chosen_readout,
    claim,
    results,
    training,
    under,
)
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.troubles import troubles

_COLUMNS = (
    "method",
    "readout",
    "mean site AUC",
    "s.e.",
    "95 % interval",
    "worst site",
    "pooled out of fold",
    "undefined",
)


def parts(run: Run) -> page.Parts:
    """Return what a report shows of a comparison."""
    return page.Parts(
        verdict(run),
        troubles(run.summary),
        _main_table(run),
        tuple(results(run)),
        tuple(_more(run)),
    )


def verdict(run: Run) -> str:
    """Say in words what the paired differences under the run's readout allow to say."""
    readout = chosen_readout(run)
    rows = [row for row in under(run.summary["table"], readout) if row["mean_site_auc"] is not None]
    if not rows:
        return "No AUC is defined: every test fold holds one class only. Use fewer folds."
    best = max(rows, key=lambda row: row["mean_site_auc"])
    subject = next((row for row in rows if row["method"] == HYPERNETWORK), best)
    differences = [
        _turned(d, subject["method"])
        for d in under(run.summary["differences"], readout)
        if subject["method"] in (d["method"], d["against"]) and d["difference"] is not None
    ]
    groups = {kind: [claim(d) for d in differences if _kind(d) == kind] for kind in _KINDS}
    claims = [f"{kind} {_listed(found)}" for kind, found in groups.items() if found]
    sentence = (
        f"{_name(subject['method'])} reaches a mean site AUC of {number(subject['mean_site_auc'])} "
        f"over {subject.get('num_sites')} sites and {subject.get('num_splits')} splits"
    )
    return sentence + (": " + "; ".join(claims) if claims else "") + "."


def _main_table(run: Run) -> str:
    """Return methods and readouts with intervals; those of the run's readout are set in bold."""
    rows = run.summary["table"]
    readout = chosen_readout(run)
    splits = max((row.get("num_splits", 0) for row in rows), default=0)
    sites = max((row.get("num_sites", 0) for row in rows), default=0)
    return page.table(
        f"Test AUC over {sites} sites and {splits} splits of the cases. Bold: readout '{readout}'.",
        _COLUMNS,
        [
            [
                row["method"],
                row["readout"],
                number(row["mean_site_auc"]),
                number(row["se"]),
                interval(row.get("low"), row.get("high")),
                _worst(row),
                number(row["pooled_auc"]),
                row["num_undefined"],
            ]
            for row in rows
        ],
        chosen=[i for i, row in enumerate(rows) if row["readout"] == readout],
        text_columns=2,
    )


def _worst(row: Record) -> str:
    site = "" if row["worst_site"] is None else f" ({row['worst_site']})"
    return number(row["worst_site_auc"]) + site


def _more(run: Run) -> list[str]:
    explanation = (
        "Mean over sites and splits at every version, with one standard error over splits. "
        "Validation AUC is of the network that a site received."
    )
    tables = [
        page.details("Every difference", _difference_table(run)),
        page.details("Every site", _site_table(run)),
    ]
    return [
        page.section("Training", page.paragraph(explanation, "quiet"), page.figures(training(run))),
        page.section("Tables", *tables),
    ]


_KINDS = ("better than", "worse than", "not told apart from")


def _kind(difference: Record) -> str:
    if difference["low"] is not None and difference["low"] > 0:
        return _KINDS[0]
    if difference["high"] is not None and difference["high"] < 0:
        return _KINDS[1]
    return _KINDS[2]


def _turned(difference: Record, method: str) -> Record:
    """Return a difference as seen from ``method``."""
    if difference["method"] == method:
        return difference
    low, high = difference["low"], difference["high"]
    return {
        **difference,
        "method": method,
        "against": difference["method"],
        "difference": -difference["difference"],
        "low": None if high is None else -high,
        "high": None if low is None else -low,
    }


def _name(method: str) -> str:
    return "The hypernetwork" if method == HYPERNETWORK else f"Best of all, {method}"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _difference_table(run: Run) -> str:
    return page.table(
        "Paired differences of the mean site AUC.",
        ["method", "against", "readout", "difference", "95 % interval", "splits"],
        [
            [
                d["method"],
                d["against"],
                d["readout"],
                number(d["difference"], signed=True),
                interval(d["low"], d["high"], signed=True),
                d["num_splits"],
            ]
            for d in run.summary["differences"]
        ],
        text_columns=3,
    )


def _site_table(run: Run) -> str:
    return page.table(
        "Test AUC by site; out of fold: one AUC over the test scores of all folds.",
        ["site", "method", "readout", "mean AUC", "s.e.", "out of fold", "bags", "undefined"],
        [
            [
                r["site"],
                r["method"],
                r["readout"],
                number(r["mean_auc"]),
                number(r["se"]),
                number(r["out_of_fold_auc"]),
                r["num_test"],
                r["num_undefined"],
            ]
            for r in sorted(run.summary["per_site"], key=lambda r: (r["readout"], r["site"]))
        ],
        text_columns=3,
    )
