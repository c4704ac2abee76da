"""The page of a report: HTML that is also well-formed XML, with everything inside."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayfed_hn.reporting.style import STYLE
from rayfed_hn.reporting.theme import css_variables


@dataclass(frozen=True)
class Setting:
    """What surrounds the results of a run that tests no networks.

    Attributes:
        about: What was run, under the title.
        repeat: What running it again would make.
        limits: What a reader must not take the numbers for.
    """

    about: str
    repeat: str
    limits: str


@dataclass(frozen=True)
class Parts:
    """What differs between the reports of different verbs.

    Attributes:
        verdict: The answer, as text.
        troubles: What failed, was lost or set aside, as texts.
        table: The main table, as markup.
        figures: The pictures of the first screen, as markup; empty ones are left out.
        more: The sections below it, as markup.
        setting: Of a run that tests no networks; the others share theirs.
    """

    verdict: str
    troubles: tuple[str, ...]
    table: str
    figures: tuple[str, ...]
    more: tuple[str, ...]
    setting: Setting | None = None


def escape(text: object) -> str:
    """Return text for HTML, without characters that XML cannot hold."""
    kept = "".join(c for c in str(text) if c in "\n\t" or c.isprintable())
    return html.escape(kept, quote=True)


def page(title: str, body: Iterable[str]) -> str:
    """Return the whole document; ``body`` is markup, ``title`` is text."""
    return (
        '<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml" lang="en"><head>'
        '<meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width,initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        f"<title>{escape(title)}</title>"
        f"<style>{css_variables()}{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    chosen: Iterable[int] = (),
    text_columns: int = 1,
    quiet_columns: int = 0,
) -> str:
    """Return a table of texts.

    Args:
        caption: What is in it.
        header: Names of the columns.
        rows: Cells; the first of a row is its header.
        chosen: Indices of rows to set in bold.
        text_columns: How many columns from the left hold words; they are left-aligned.
        quiet_columns: How many columns from the right are there for comparison only.
    """
    bold = set(chosen)
    plain = len(header) - text_columns - quiet_columns
    kinds = [' class="text"'] * text_columns + [""] * plain + [' class="quiet"'] * quiet_columns
    head = "".join(
        f'<th scope="col"{kind}>{_breakable(name)}</th>'
        for name, kind in zip(header, kinds, strict=True)
    )
    body = []
    for number, row in enumerate(rows):
        first, *others = (escape(cell) for cell in row)
        cells = "".join(
            f"<td{kind}>{cell}</td>" for cell, kind in zip(others, kinds[1:], strict=True)
        )
        mark = ' class="chosen"' if number in bold else ""
        body.append(f'<tr{mark}><th scope="row">{first}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _breakable(name: str) -> str:
    """Return the name of a column as markup; a dotted key may go on in the next line."""
    return re.sub(r"(?<=\w)\.(?=\w\w)", ".<wbr/>", escape(name))


def figure(title: str, svg: str, caption: str) -> str:
    """Return a figure with its title above and its explanation below."""
    return (
        f"<figure><h3>{escape(title)}</h3>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def figures(items: Iterable[str]) -> str:
    """Return figures side by side where the page is wide enough."""
    return f'<div class="figures">{"".join(items)}</div>'


def first_screen(*parts: str) -> str:
    """Return what is read first, under a heading for those who are read to."""
    return f'<section class="first"><h2>In short</h2>{"".join(parts)}</section>'


def section(title: str, *parts: str) -> str:
    """Return a part of the page under a heading."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def details(title: str, *parts: str) -> str:
    """Return something to unfold."""
    return f"<details><summary>{escape(title)}</summary>{''.join(parts)}</details>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of text."""
    mark = f' class="{escape(kind)}"' if kind else ""
    return f"<p{mark}>{escape(text)}</p>"


def code(text: str) -> str:
    """Return preformatted text."""
    return f"<pre><code>{escape(text)}</code></pre>"


def pairs(values: Mapping[str, Any]) -> str:
    """Return names and values as a definition list."""
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in values.items())
    return f"<dl>{items}</dl>"


def heading(text: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def bullets(items: Iterable[str]) -> str:
    """Return texts as a list."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def trouble(title: str, items: Sequence[str]) -> str:
    """Return what went wrong, or nothing where nothing did."""
    if not items:
        return ""
    return f'<div class="trouble" role="note"><p>{escape(title)}</p>{bullets(items)}</div>'
