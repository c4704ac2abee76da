"""What the report of a comparison says beside the task's metric: other metrics, costs, files."""

from __future__ import annotations

from collections.abc import Sequence

from rayfed_hn.evaluation.markdown import amount, amount_name, interval, number
from rayfed_hn.evaluation.markdown_cells import with_bounds, worst_site
from rayfed_hn.evaluation.markdown_more import COSTS, cost_cells
from rayfed_hn.evaluation.subject import Record
from rayfed_hn.reporting import page
from rayfed_hn.reporting.choices import chosen_readout, left_out, prominent, under
from rayfed_hn.reporting.compare_reliability import Curve, reliability_chart
from rayfed_hn.reporting.run_files import Run

_FILES = ("table.md", "table.csv", "table.tex")
_COSTS = (
    "Of one training, mean over cells. Sent: networks from the server to sites; received: their "
    "answers; in all: with the scoring at the end. Site-seconds: all updates that went into a "
    "version. Wall time is that of a cell on this machine, all sites one after the other. Pooled "
    "training moves all bags to one place first, and isolated sites need no network: neither is "
    "counted."
)


def metrics(run: Run) -> str:
    """Return the section of other metrics; "" of grades, of times and of older runs."""
    measures = run.summary.get("measures", [])
    rows = under(run.summary.get("more_table", []), chosen_readout(run))
    if not measures or not rows:
        return ""
    words = page.bullets(f"{measure['metric']}: {measure['about']}." for measure in measures)
    tables = [
        page.details(
            f"{measure['metric']} of every method",
            _table(run, measure, [row for row in rows if row["metric"] == measure["metric"]]),
            _sites(run, measure["metric"]),
        )
        for measure in measures
    ]
    drawn = _reliability(run)
    pictures = page.figures([drawn]) if drawn else ""
    return page.section(f"Beside {run.judge.name}", _means(run, rows), pictures, words, *tables)


def _arms(rows: Sequence[Record]) -> list[tuple[str, float | None]]:
    return list(dict.fromkeys((row["method"], row.get("noise")) for row in rows))


def _means(run: Run, rows: Sequence[Record]) -> str:
    """Return one row a method: the mean over sites of every metric, with its interval."""
    noise = amount_name(run.summary)
    by_arm = {(row["method"], row.get("noise"), row["metric"]): row for row in rows}
    names = [measure["metric"] for measure in run.summary["measures"]]
    return page.table(
        "Means over sites, with 95 % intervals over splits, readout "
        f"'{chosen_readout(run)}'. Of Brier score and calibration error, less is better.",
        ["method", *([noise] if noise else []), *names],
        [
            [
                *(arm[0], *([amount(arm[1])] if noise else [])),
                *(with_bounds(by_arm[(*arm, name)]) for name in names),
            ]
            for arm in _arms(rows)
        ],
    )


def _table(run: Run, measure: Record, rows: Sequence[Record]) -> str:
    noise = amount_name(run.summary)
    worst = "highest" if measure["lower_is_better"] else "lowest"
    return page.table(
        f"{measure['metric']}; worst site: {worst} mean.",
        [
            *("method", *([noise] if noise else []), "mean site", "s.e.", "95 % interval"),
            *("worst site", "pooled out of fold", "undefined"),
        ],
        [
            [
                *(row["method"], *([amount(row["noise"])] if noise else [])),
                *(number(row["mean_site"]), number(row["se"]), interval(row["low"], row["high"])),
                worst_site(row),
                *(number(row["pooled"]), row["num_undefined"]),
            ]
            for row in rows
        ],
    )


def _sites(run: Run, metric: str) -> str:
    records = under(run.summary.get("more_per_site", []), chosen_readout(run))
    records = [record for record in records if record["metric"] == metric]
    noise = amount_name(run.summary)
    return page.table(
        f"{metric} by site.",
        [
            *("site", "method", *([noise] if noise else [])),
            *("mean", "s.e.", "out of fold", "undefined"),
        ],
        [
            [
                *(r["site"], r["method"], *([amount(r["noise"])] if noise else [])),
                *(number(r[name]) for name in ("mean_value", "se", "out_of_fold")),
                r["num_undefined"],
            ]
            for r in sorted(records, key=lambda r: r["site"])
        ],
        text_columns=2,
    )


def _reliability(run: Run) -> str:
    """Return the reliability curves of the methods that a picture holds.

    Where noise was varied, there are too many arms for one picture, and it is left out.
    """
    found = {
        record["method"]: record["bins"]
        for record in under(run.summary.get("reliability", []), chosen_readout(run))
    }
    curves = [
        Curve(method, [b["predicted"] for b in bins], [b["observed"] for b in bins], look)
        for method, look in prominent(run).items()
        if (bins := found.get(method))
    ]
    if not curves or amount_name(run.summary):
        return ""
    two = run.judge.kind == "binary"
    svg = reliability_chart("reliability", curves, share="class 1" if two else "right")
    what = "probability of class 1" if two else "probability of the likeliest class"
    caption = (
        f"Test bags of all sites and seeds, out of fold, by their {what}, in bins of equal mass, "
        f"readout '{chosen_readout(run)}'. On the dashed line probabilities mean what they "
        f"say.{left_out(run)}"
    )
    return page.figure("Reliability", svg, caption)


def costs(run: Run) -> str:
    """Return the section of costs; "" of older runs."""
    found = run.summary.get("costs", [])
    if not found:
        return ""
    noise = amount_name(run.summary)
    return page.section(
        "Costs",
        page.table(
            _COSTS,
            ["method", *([noise] if noise else []), *COSTS],
            [
                [row["method"], *([amount(row["noise"])] if noise else []), *cost_cells(row)]
                for row in found
            ],
        ),
    )


def files(run: Run) -> str:
    """Say which files hold the tables; "" where there are none."""
    found = [name for name in _FILES if (run.folder / name).is_file()]
    return (
        page.paragraph(f"Beside this page, to be used elsewhere: {', '.join(found)}.", "quiet")
        if found
        else ""
    )
