"""The tables of an experiment with more and more sites as markdown.

Nothing here draws: the verb that measures memory imports this module before it measures.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rayfed_hn.files import write_text
from rayfed_hn.reporting.scale_rows import Columns, memories, phases, rounds
from rayfed_hn.reporting.scale_scores import scores, tested
from rayfed_hn.reporting.scale_words import notes, verdict

_WIDTH = 118  # of a terminal


def scale_table(summary: Mapping[str, Any]) -> str:
    """Return a verdict, the tables and how to read them, aligned for a terminal.

    Args:
        summary: ``summary.json`` of scale.
    """
    tables = [_markdown(make(summary)) for make in tables_of(summary)]
    words = [textwrap.fill(note, _WIDTH) for note in notes(summary)]
    return "\n\n".join([textwrap.fill(verdict(summary), _WIDTH), *tables, *words]) + "\n"


def tables_of(summary: Mapping[str, Any]) -> list[Callable[[Mapping[str, Any]], Columns]]:
    """What there are tables of."""
    return [rounds, *([scores] if tested(summary) else []), phases, memories]


def write_scale_files(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write ``table.md`` into a run directory; pictures are in the report, as of other verbs."""
    write_text(folder / "table.md", scale_table(summary))


def _markdown(columns: Columns) -> str:
    lines = [columns.header, *columns.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head, *body = (
        " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )
    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join(
        [f"{columns.title}:", "", f"| {head} |", f"|{rule}|", *(f"| {line} |" for line in body)]
    )
