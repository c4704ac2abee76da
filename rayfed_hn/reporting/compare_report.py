"""The report of a comparison: which method is better, by how much, and how sure that is."""

from __future__ import annotations

from rayfed_hn.evaluation.markdown import (
    in_other_unit,
    interval,
    number,
    other_unit,
    unit_column,
)
from rayfed_hn.evaluation.markdown_cells import worst_site
from rayfed_hn.evaluation.subject import Record, seen_from, subject
from rayfed_hn.reporting import compare_more as more
from rayfed_hn.reporting import page
from rayfed_hn.reporting.choices import (
    chosen_readout,
    comparisons,
    ranked,
    readouts,
    under,
)
from rayfed_hn.reporting.compare_figures import MAX_SITES, results, training
from rayfed_hn.reporting.compare_tests import by_case
from rayfed_hn.reporting.run_files import READOUTS, Run
from rayfed_hn.reporting.tried_privacy import privacy
from rayfed_hn.reporting.troubles import troubles
from rayfed_hn.reporting.verdict import told_apart, verdict


def parts(run: Run) -> page.Parts:
    """Return what a report shows of a comparison."""
    return page.Parts(
        verdict(run),
        troubles(run.summary),
        _main_table(run),
        tuple(results(run)),
        tuple(_more(run)),
    )


def _main_table(run: Run) -> str:
    """Return methods under the run's readout, best first; of other readouts the means, dimmed."""
    rows, readout = ranked(run), chosen_readout(run)
    splits = max((row.get("num_splits", 0) for row in rows), default=0)
    sites = max((row.get("num_sites", 0) for row in rows), default=0)
    means = {(r["method"], r["readout"]): r["mean_site"] for r in run.summary["table"]}
    others = readouts(run)[1:]
    about = next((difference["method"] for difference in comparisons(run)), None)
    return page.table(
        f"Test {run.judge.name} over {sites} sites and {splits} splits of the cases, highest mean "
        f"first. Readout '{readout}': {run.about(readout)}.",
        ["method", *results_header(run), *(f"mean ({other})" for other in others)],
        [
            [
                row["method"],
                *results_of(run, row),
                *(number(means.get((row["method"], other))) for other in others),
            ]
            for row in rows
        ],
        chosen=[i for i, row in enumerate(rows) if row["method"] == about],
        quiet_columns=len(others),
    )


def results_header(run: Run) -> list[str]:
    """Return the names of what every row of the table says of a method."""
    other = other_unit(run.summary)
    return [
        f"mean site {run.judge.name}",
        "s.e.",
        "95 % interval",
        *([unit_column(other)] if other else []),
        "worst site",
        "pooled out of fold",
        "undefined",
    ]


def results_of(run: Run, row: Record) -> list[object]:
    """Return the cells of a row of the table."""
    other = other_unit(run.summary)
    return [
        number(row["mean_site"]),
        number(row["se"]),
        interval(row.get("low"), row.get("high")),
        *([in_other_unit(row, other)] if other else []),
        worst_site(row),
        number(row["pooled"]),
        row["num_undefined"],
    ]


def _more(run: Run) -> list[str]:
    explanation = (
        "Mean over sites and splits at every version, with one standard error over splits. "
        f"Validation {run.judge.ranking_name} is of the network that a site received."
    )
    order = readouts(run)
    folded = [
        page.details("Every readout", _readout_table(run, order)),
        *(
            page.details(f"Every pair of methods, readout '{readout}'", _pair_table(run, readout))
            for readout in order
        ),
        page.details("Every site, method and readout", _site_table(run, order)),
    ]
    return [
        page.section("Differences", _subject_table(run, order), by_case(run, _about(run))),
        page.section("Every site", _sites(run)),
        more.metrics(run),
        page.section("Training", page.paragraph(explanation, "quiet"), page.figures(training(run))),
        privacy(run),
        more.costs(run),
        page.section("Tables", *folded, more.files(run)),
    ]


def _about(run: Run) -> str:
    rows = ranked(run)
    return subject(rows, chosen_readout(run)) if rows else ""


def _subject_table(run: Run, order: list[str]) -> str:
    """Return the comparisons that the verdict rests on; under other readouts dimmed."""
    found = comparisons(run)
    if not found:
        return page.paragraph("No two methods can be compared.", "quiet")
    method = found[0]["method"]
    under_others = {
        (d["against"], d["readout"]): d["difference"]
        for d in seen_from(method, run.summary["differences"])
    }
    return page.table(
        f"Mean site {run.judge.name} of {method} minus that of each other method, paired over "
        f"sites and splits, readout '{order[0]}', strongest rival first. Bold: the interval leaves "
        "out zero.",
        ["against", "difference", "95 % interval", "splits", *(f"({r})" for r in order[1:])],
        [
            [
                d["against"],
                number(d["difference"], signed=True),
                interval(d["low"], d["high"], signed=True),
                d["num_splits"],
                *(number(under_others.get((d["against"], r)), signed=True) for r in order[1:]),
            ]
            for d in found
        ],
        chosen=[i for i, difference in enumerate(found) if told_apart(difference)],
        quiet_columns=len(order) - 1,
    )


def _pair_table(run: Run, readout: str) -> str:
    return page.table(
        f"Paired differences of the mean site {run.judge.name}.",
        ["method", "against", "difference", "95 % interval", "splits"],
        [
            [
                d["method"],
                d["against"],
                number(d["difference"], signed=True),
                interval(d["low"], d["high"], signed=True),
                d["num_splits"],
            ]
            for d in under(run.summary["differences"], readout)
        ],
        text_columns=2,
    )


def _readout_table(run: Run, order: list[str]) -> str:
    rows = sorted(run.summary["table"], key=lambda row: order.index(row["readout"]))
    words = "; ".join(f"{r}: {run.about(r)}" for r in order if r in READOUTS)
    return page.table(
        f"Test {run.judge.name} under every readout. {words}.",
        ["method", "readout", *results_header(run)],
        [[row["method"], row["readout"], *results_of(run, row)] for row in rows],
        chosen=[i for i, row in enumerate(rows) if row["readout"] == order[0]],
        text_columns=2,
    )


def _sites(run: Run) -> str:
    """Return sites by methods; of many sites folded."""
    matrix = _site_matrix(run)
    many = len({record["site"] for record in run.summary["per_site"]}) > MAX_SITES
    return page.details("Every site and method", matrix) if many else matrix


def _site_matrix(run: Run) -> str:
    records = under(run.summary["per_site"], chosen_readout(run))
    methods = [row["method"] for row in ranked(run)]
    means = {(r["site"], r["method"]): r["mean_value"] for r in records}
    bags = {record["site"]: record["num_test"] for record in records}
    return page.table(
        f"Mean test {run.judge.name} over splits, readout '{chosen_readout(run)}', highest mean of "
        "all sites leftmost.",
        ["site", "bags", *methods],
        [
            [site, bags[site], *(number(means.get((site, method))) for method in methods)]
            for site in sorted(bags)
        ],
    )


def _site_table(run: Run, order: list[str]) -> str:
    records = sorted(run.summary["per_site"], key=lambda r: (order.index(r["readout"]), r["site"]))
    metric = run.judge.name
    return page.table(
        f"Test {metric} by site; out of fold: one {metric} over the test scores of all folds.",
        ["site", "method", "readout", f"mean {metric}", "s.e.", "out of fold", "bags", "undefined"],
        [
            [
                r["site"],
                r["method"],
                r["readout"],
                number(r["mean_value"]),
                number(r["se"]),
                number(r["out_of_fold"]),
                r["num_test"],
                r["num_undefined"],
            ]
            for r in records
        ],
        text_columns=3,
    )
