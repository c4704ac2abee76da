"""The page of a report: HTML that is also well-formed XML, with everything inside."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayfed_hn.reporting.theme import css_variables

_STYLE = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
main{max-width:78rem;margin:0 auto;padding:1.5rem 1.5rem 3rem}
header p,.quiet{color:var(--muted)} header p{margin:0}
h1{font-size:1.05rem;margin:0;font-weight:650}
h2{font-size:1.1rem;margin:2.2rem 0 .6rem}
.verdict{font-size:1.35rem;line-height:1.4;margin:.9rem 0 1rem;max-width:62rem;font-weight:500;
  text-wrap:pretty}
.answer{font-size:1.1rem;font-weight:500;max-width:62rem;margin:.2rem 0 .5rem}
section>p,section>dl,section>ul{max-width:62rem}
section>h3{font-size:.98rem;margin:1.3rem 0 .3rem;font-weight:650}
section>ul{padding-left:1.2rem;margin:.3rem 0}
.trouble{border-left:4px solid var(--series-0);background:var(--panel);padding:.6rem 1rem;
  margin:1rem 0;max-width:62rem}
.trouble p{margin:0;font-weight:650} .trouble ul{margin:.3rem 0 0;padding-left:1.2rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:0}
caption{text-align:left;color:var(--muted);padding-bottom:.35rem;width:max-content;
  max-width:min(56rem,calc(100vw - 3rem))}
th,td{padding:.28rem .9rem .28rem 0;text-align:right;white-space:nowrap;
  border-bottom:1px solid var(--rule)}
th:first-child,td:first-child,.text{text-align:left}
thead th{font-weight:600;color:var(--muted);border-bottom-color:var(--muted);
  vertical-align:bottom}
tbody th{font-weight:400} tr.chosen th,tr.chosen td{font-weight:650}
tr.chosen .quiet{font-weight:400}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(20rem,100%),1fr));
  gap:1.4rem 2rem;align-items:start;margin:1.2rem 0}
figure{margin:0;min-width:0;max-width:34rem;break-inside:avoid}
figure h3{font-size:.95rem;margin:0 0 .2rem;font-weight:650}
figcaption{color:var(--muted);font-size:.86rem;line-height:1.4}
svg{display:block;width:100%;height:auto}
svg text{font-family:inherit}
details{border-top:1px solid var(--rule);padding:.55rem 0}
summary{cursor:pointer;font-weight:600}
pre{background:var(--panel);padding:.8rem 1rem;overflow-x:auto;font-size:.85rem;line-height:1.4}
code{font-size:.92em} dt{font-weight:600} dd{margin:0 0 .5rem}
a{color:inherit}
@media print{main{padding:0;max-width:none} body{font-size:10.5pt} pre{white-space:pre-wrap}
  .verdict{font-size:14pt} section{break-inside:avoid-page} details{break-inside:auto}
  .figures{grid-template-columns:repeat(3,1fr);gap:.8rem 1rem}
  .scroll{overflow:visible} table{font-size:8.5pt} th,td{padding:.15rem .5rem .15rem 0}
  thead th{white-space:normal}
  details::details-content{content-visibility:visible;height:auto}}
"""


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
        f"<style>{css_variables()}{_STYLE}</style></head>\n<body><main>\n"
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
        f'<th scope="col"{kind}>{escape(name)}</th>'
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


def figure(title: str, svg: str, caption: str) -> str:
    """Return a figure with its title above and its explanation below."""
    return (
        f"<figure><h3>{escape(title)}</h3>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def figures(items: Iterable[str]) -> str:
    """Return figures side by side where the page is wide enough."""
    return f'<div class="figures">{"".join(items)}</div>'


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
