"""A search as text: what was found, the trials, and the test of the best setting."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rayfed_hn.evaluation.markdown import markdown_table, number
from rayfed_hn.reporting.tune_words import (
    amounts,
    by_rank,
    choice_words,
    limits,
    mattered,
    setting,
    status_of,
    verdict,
)

_WIDTH = 118  # of a terminal


def tune_table(summary: Mapping[str, Any]) -> str:
    """Return the verdict, the table of trials and the final test, as markdown.

    Args:
        summary: ``summary.json`` of tune.
    """
    parts = [_filled(verdict(summary)), _trials(summary), *map(_filled, mattered(summary))]
    if summary["final"]:
        parts += [
            "Test cases of other divisions:",
            markdown_table(summary["final"], summary["final"]["readout"]).rstrip(),
        ]
    parts += [_filled(choice_words(summary)), _filled(limits(summary))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _trials(summary: Mapping[str, Any]) -> str:
    keys = list(summary["trials"][0]["settings"])
    more = amounts(summary)
    header = ["trial", *keys, f"validation {summary['metric']}", *more, "status"]
    rows = [
        [
            str(r["trial"]),
            *(setting(r["settings"][key]) for key in keys),
            number(r["validation_metric"]),
            *(setting(r[name]) for name in more),
            status_of(r),
        ]
        for r in by_rank(summary)
    ]
    return _markdown(header, rows)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(w) for cell, w in zip(line, widths, strict=True))} |"
        for line in lines
    )


def _filled(text: str) -> str:
    return textwrap.fill(text, _WIDTH)
