"""The report of a comparison with several amounts of noise: what protection costs."""

from __future__ import annotations

from collections.abc import Sequence

from rayfed_hn.evaluation.markdown import amount, amount_name, interval, number
from rayfed_hn.evaluation.subject import Record, seen_from, subject
from rayfed_hn.reporting import compare_more as more
from rayfed_hn.reporting import page
from rayfed_hn.reporting.choices import chosen_readout, readouts, under
from rayfed_hn.reporting.compare_report import results_header, results_of
from rayfed_hn.reporting.compare_tests import by_case
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.task_words import one_sided
from rayfed_hn.reporting.trade_off_figures import curves, every_site, membership, trade_off
from rayfed_hn.reporting.tried_privacy import privacy
from rayfed_hn.reporting.troubles import troubles
from rayfed_hn.reporting.verdict import kind_of, told_apart
from rayfed_hn.reporting.words import listed

_REFERENCE = "local"
_IN_SIGHT = 8  # rows of the first table


def is_one(run: Run) -> bool:
    """Whether a comparison has methods with several amounts of noise, or with one that was set."""
    return any(row.get("noise") is not None for row in run.summary["table"])


def parts(run: Run) -> page.Parts:
    """Return what a report shows of it."""
    rows = under(run.summary["table"], chosen_readout(run))
    method = about(rows, chosen_readout(run))
    return page.Parts(
        _verdict(run, rows, method),
        troubles(run.summary),
        _main_table(run, rows, method),
        (trade_off(run, rows), every_site(run, method), membership(run)),
        tuple(_more(run, method)),
    )


def about(rows: Sequence[Record], readout: str) -> str:
    """Return the method that the report is about, of those that release anything."""
    return subject([row for row in rows if row["noise"] is not None] or rows, readout)


def _verdict(run: Run, rows: Sequence[Record], method: str) -> str:
    """Say how the metric falls with noise, and up to where it is worth to take part."""
    metric, name = run.judge.name, amount_name(run.summary)
    own = [row for row in rows if row["method"] == method and row["mean_site"] is not None]
    if not own:
        return f"No {metric} is defined: {one_sided(run.judge)}. Use fewer folds."
    # From little noise to much: a larger epsilon is less.
    own.sort(key=lambda row: row["noise"], reverse=name == "epsilon")
    told = f"With {name} {amount(own[0]['noise'])}, {method} reaches a mean site {metric} of "
    told += number(own[0]["mean_site"])
    if len(own) > 1:
        told += f"; with {amount(own[-1]['noise'])}, {number(own[-1]['mean_site'])}"
    alone = next((row for row in rows if row["method"] == _REFERENCE), None)
    if alone is None or alone["mean_site"] is None or method == _REFERENCE:
        return f"{told}."
    found = seen_from(method, under(run.summary["differences"], chosen_readout(run)))
    by_noise = {d["noise"]: d for d in found if d["against"] == _REFERENCE}
    kinds: dict[str, list[str]] = {}
    for noise in (row["noise"] for row in own):
        difference = by_noise.get(noise)
        if difference is not None and difference["difference"] is not None:
            kinds.setdefault(kind_of(difference), []).append(amount(noise))
    claims = "; ".join(f"{kind} them with {name} {listed(at)}" for kind, at in kinds.items())
    return (
        f"{told}. Sites that train alone and release nothing reach "
        f"{number(alone['mean_site'])}{f': it is {claims}' if claims else ''}."
    )


def _main_table(run: Run, rows: Sequence[Record], method: str) -> str:
    """Return methods and amounts; of many the method in question and those that release nothing."""
    caption = f"Test {run.judge.name} of every method with every amount of noise."
    if len(rows) <= _IN_SIGHT:
        return _arms(run, rows, method, caption)
    shown = [row for row in rows if row["method"] == method or row["noise"] is None]
    if len(shown) == len(rows):
        return _arms(run, rows, method, caption)
    every = page.details("Every method and amount of noise", _arms(run, rows, method, caption))
    caption = f"Test {run.judge.name} of {method}, and of methods that release nothing."
    return _arms(run, shown, method, caption) + every


def _arms(run: Run, rows: Sequence[Record], method: str, caption: str) -> str:
    """Return rows under the run's readout; of other readouts the means, dimmed."""
    readout, others = chosen_readout(run), readouts(run)[1:]
    means = {_arm(row): row["mean_site"] for row in run.summary["table"]}
    return page.table(
        f"{caption} Readout '{readout}': {run.about(readout)}.",
        [
            *("method", amount_name(run.summary) or "noise", *results_header(run)),
            *(f"mean ({other})" for other in others),
        ],
        [
            [
                *(row["method"], amount(row["noise"]), *results_of(run, row)),
                *(number(means.get((*_arm(row)[:2], other))) for other in others),
            ]
            for row in rows
        ],
        chosen=[i for i, row in enumerate(rows) if row["method"] == method],
        quiet_columns=len(others),
    )


def _arm(row: Record) -> tuple[str, float | None, str]:
    return row["method"], row["noise"], row["readout"]


def _more(run: Run, method: str) -> list[str]:
    order = readouts(run)
    own = seen_from(method, under(run.summary["differences"], order[0]))
    caption = (
        f"Mean site {run.judge.name} of {method} minus that of each other method with the same "
        f"amount of noise, paired over sites and splits, readout '{order[0]}'. Bold: the interval "
        "leaves out zero."
    )
    folded = [
        page.details(
            f"Every pair of methods, readout '{readout}'",
            _pairs(run, under(run.summary["differences"], readout), "Paired differences."),
        )
        for readout in order
    ]
    return [
        page.section("More noise against the least", _costs(run, method)),
        page.section(
            "Differences between methods", _pairs(run, own, caption), by_case(run, method)
        ),
        more.metrics(run),
        page.section("Training", page.figures(curves(run, method))),
        privacy(run),
        more.costs(run),
        page.section(
            "Tables",
            *folded,
            page.details("Every site and method", _sites(run, order)),
            more.files(run),
        ),
    ]


def _costs(run: Run, method: str) -> str:
    """Return every amount of noise against the least, within the methods themselves."""
    found = [
        d
        for d in under(run.summary.get("by_amount", []), chosen_readout(run))
        if d["difference"] is not None
    ]
    if not found:
        return page.paragraph("There is one amount of noise, and none to compare it with.", "quiet")
    name = amount_name(run.summary) or "noise"
    found.sort(key=lambda d: d["method"] != method)
    return page.table(
        f"Mean site {run.judge.name} of a method with more noise minus that of the same method "
        f"with {name} {amount(found[0]['against_noise'])}, paired over sites and splits. Bold: the "
        "interval leaves out zero.",
        ["method", name, "difference", "95 % interval", "splits"],
        [
            [
                *(d["method"], amount(d["noise"]), number(d["difference"], signed=True)),
                *(interval(d["low"], d["high"], signed=True), d["num_splits"]),
            ]
            for d in found
        ],
        chosen=[i for i, difference in enumerate(found) if told_apart(difference)],
    )


def _pairs(run: Run, differences: Sequence[Record], caption: str) -> str:
    defined = [d for d in differences if d["difference"] is not None]
    if not defined:
        return page.paragraph("No two methods can be compared.", "quiet")
    name = amount_name(run.summary) or "noise"
    return page.table(
        caption,
        ["method", "against", name, "difference", "95 % interval", "splits"],
        [
            [
                *(d["method"], d["against"], amount(d["noise"])),
                number(d["difference"], signed=True),
                interval(d["low"], d["high"], signed=True),
                d["num_splits"],
            ]
            for d in defined
        ],
        chosen=[i for i, difference in enumerate(defined) if told_apart(difference)],
        text_columns=2,
    )


def _sites(run: Run, order: list[str]) -> str:
    records = sorted(run.summary["per_site"], key=lambda r: (order.index(r["readout"]), r["site"]))
    metric, name = run.judge.name, amount_name(run.summary) or "noise"
    return page.table(
        f"Test {metric} by site; out of fold: one {metric} over the test scores of all folds.",
        ["site", "method", "readout", name, f"mean {metric}", "s.e.", "out of fold", "undefined"],
        [
            [
                *(r["site"], r["method"], r["readout"], amount(r["noise"])),
                *(number(r[key]) for key in ("mean_value", "se", "out_of_fold")),
                r["num_undefined"],
            ]
            for r in records
        ],
        text_columns=3,
    )
