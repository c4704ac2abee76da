"""The report of a search: which setting is best, what it is worth, and what mattered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rayfed_hn.errors import DataError
from rayfed_hn.evaluation.markdown import interval, number
from rayfed_hn.reporting import page
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.task_words import predicted
from rayfed_hn.reporting.troubles import NO_REASON, troubles
from rayfed_hn.reporting.tune_figures import by_key, curves, front, heatmap, shares
from rayfed_hn.reporting.tune_words import (
    Summary,
    amounts,
    by_rank,
    choice_words,
    limits,
    mattered,
    paired,
    setting,
    settings,
    status_of,
    verdict,
)
from rayfed_hn.reporting.words import duration, percent

_IN_SIGHT = 8  # trials of the first table
_IMPORTANCE = (
    "Trials are put into groups by the value of one key (drawn numbers, by rank, into up to four "
    "groups of equal size). Its share is that of the variance of the metric that lies between the "
    "groups, adjusted for their number; on a full grid it is the main effect of functional ANOVA. "
    "What keys do only together is not in it. By chance: how often permuted metrics give as much; "
    "each key is judged by itself, and of twenty that do nothing one falls below 5 %."
)
_REPEAT = (
    "With the same bag store and the versions below, this makes the same trials and numbers on the "
    "same kind of machine. config.yaml lies beside this page and holds every setting:"
)
_NO_REPEAT = (
    "Which trials are {what} depends on which results come in first, so that this makes another "
    "search like it. Every trial by itself repeats. config.yaml lies beside this page and holds "
    "every setting:"
)


def parts(run: Run) -> page.Parts:
    """Return what a report shows of a search."""
    summary, lines = run.summary, _lines(run)
    first = (front(summary), heatmap(summary), shares(summary), curves(summary, lines))
    return page.Parts(
        verdict(summary),
        (*troubles(summary), *_failed(summary)),
        _table(summary),
        tuple(figure for figure in first if figure),
        tuple(_more(summary)),
        page.Setting(_about(run), _repeat(summary), f"{limits(summary)} Research use only."),
    )


def _lines(run: Run) -> list[Mapping[str, Any]]:
    """Return ``trials.jsonl``, which has the metric of every version."""
    path = run.folder / "trials.jsonl"
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}); copy the whole run directory, or go "
            "on with the run (run.resume=true)"
        ) from error


def _table(summary: Summary) -> str:
    """Return the trials, best first; of many those in front, and all of them folded."""
    ranked = by_rank(summary)
    caption = (
        f"Trials by validation {summary['metric']}, mean over divisions of the cases; test cases "
        "were not looked at."
    )
    if len(ranked) <= _IN_SIGHT:
        return _trials(summary, ranked, caption)
    first = f"{caption} The first {_IN_SIGHT} of {len(ranked)}."
    every = page.details("Every trial", _trials(summary, ranked, caption))
    return _trials(summary, ranked[:_IN_SIGHT], first) + every


def _trials(summary: Summary, ranked: Sequence[Mapping[str, Any]], caption: str) -> str:
    keys, more = list(summary["trials"][0]["settings"]), amounts(summary)
    on_front = [len(summary["objectives"]) > 1]
    return page.table(
        caption,
        [
            "trial",
            *keys,
            f"validation {summary['metric']}",
            *more,
            *(["front"] if all(on_front) else []),
            "seconds",
            "status",
        ],
        [
            [
                record["trial"],
                *(setting(record["settings"][key]) for key in keys),
                number(record["validation_metric"]),
                *(setting(record[name]) for name in more),
                *(["yes" if record["trial"] in summary["front"] else ""] if all(on_front) else []),
                "–" if record["seconds"] is None else f"{record['seconds']:.0f}",
                status_of(record),
            ]
            for record in ranked
        ],
        chosen=[i for i, record in enumerate(ranked) if record["trial"] == summary["best"]],
    )


def _more(summary: Summary) -> list[str]:
    found = [_test(summary)]
    found.append(page.section("Every key", page.figures(by_key(summary))))
    told = [page.paragraph(text) for text in mattered(summary)]
    if summary["importance"]:
        told += [_importance(summary), page.paragraph(_IMPORTANCE, "quiet")]
    if told:
        found.append(page.section("What mattered", *told))
    if words := choice_words(summary):
        found.append(page.section("Which to take", page.paragraph(words)))
    return found


def _test(summary: Summary) -> str:
    final = summary["final"]
    if not final:
        return ""
    rows = [r for r in final["table"] if r["readout"] == final["readout"]]
    table = page.table(
        f"Test {final['metric']} on {len(final['seeds'])} seeds × {final['folds']} folds that no "
        f"trial had, readout '{final['readout']}'.",
        ["setting", f"mean site {final['metric']}", "95 % interval", "worst site"],
        [
            [
                row["method"],
                number(row["mean_site"]),
                interval(row["low"], row["high"]),
                f"{number(row['worst_mean'])} ({row['worst_site']})",
            ]
            for row in rows
        ],
        chosen=[i for i, row in enumerate(rows) if row["method"] == "tuned"],
    )
    difference, told = paired(summary), ""
    if difference is not None and difference["difference"] is not None:
        bounds = interval(difference["low"], difference["high"], signed=True)
        told = (
            f"Tuned minus configured, paired by site and division, on test cases: "
            f"{number(difference['difference'], signed=True)} (95 % interval {bounds}, "
            f"{difference['num_splits']} divisions)."
        )
    about = (
        "Configured: the keys that were searched as they are without a search, but for those of "
        "privacy, which are the best setting's: both release the same."
    )
    which = [
        page.paragraph(
            f"{arm.capitalize()}: {settings({'settings': final['settings'][arm]})}", "quiet"
        )
        for arm in dict.fromkeys(row["method"] for row in rows)
    ]
    return page.section(
        "The best setting on test cases",
        table,
        *which,
        page.paragraph(told, "answer") if told else "",
        page.paragraph(about, "quiet"),
    )


def _importance(summary: Summary) -> str:
    rows = summary["importance"]
    return page.table(
        f"At version {rows[0]['version']}, the last that every trial reached.",
        ["key", "share", "by chance", "rank correlation"],
        [
            [
                row["key"],
                percent(row["share"]),
                percent(row["chance"]),
                number(row["correlation"], signed=True),
            ]
            for row in rows
        ],
    )


def _failed(summary: Summary) -> list[str]:
    return [
        f"trial {r['trial']} ({settings(r)}) failed: {r['reason'] or NO_REASON}"
        for r in summary["failed_trials"]
    ]


def _about(run: Run) -> str:
    summary = run.summary
    return " · ".join(
        [
            predicted(run),
            f"{len(summary['trials'])} trials ({summary['search']})",
            f"scheduler {summary['scheduler']}",
            f"run.seed {run.knob('run', 'seed')}",
            f"{duration(float(summary['seconds']))} of training",
        ]
    )


def _repeat(summary: Summary) -> str:
    what = ["stopped"] if summary["scheduler"] == "asha" else []
    what += ["made"] if summary["search"] == "optuna" else []
    return _NO_REPEAT.format(what=" and ".join(what)) if what else _REPEAT
