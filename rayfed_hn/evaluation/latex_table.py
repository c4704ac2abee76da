"""The table of a comparison for papers: LaTeX with booktabs, methods by metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayfed_hn.evaluation.markdown_cells import amount, amount_name, number
from rayfed_hn.evaluation.subject import Record

_HEAD = (
    r"% needs \usepackage{{booktabs}}; readout {readout}. Means over sites of test metrics, with",
    "% 95 % intervals over splits (optimistic: splits re-divide the same cases); bold: best.",
)
_ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{opening: f"{{{opening}}}" for opening in "[*"},  # what \\ would take at the start of a row
    **{special: f"\\{special}" for special in "&%$#_{}"},
}


@dataclass(frozen=True)
class _Column:
    """A column of numbers: what is above it, the numbers and their bounds, and which is best."""

    title: str
    values: Sequence[float | None]
    bounds: Sequence[tuple[float | None, float | None]]
    lower_is_better: bool = False

    def cells(self) -> list[str]:
        """The numbers, best ones in bold: those that are printed as the best is."""
        known = [value for value in self.values if value is not None]
        best = number((min if self.lower_is_better else max)(known)) if known else None
        return [_cell(v, b, best) for v, b in zip(self.values, self.bounds, strict=True)]


def latex_table(comparison: Mapping[str, Any], readout: str) -> str:
    """Return a ``tabular`` with one row a method (and amount of noise), to be input in a paper.

    Args:
        comparison: What ``compare_methods`` returned, or a ``summary.json`` of compare.
        readout: Whose rows; of another run's, the table's first.
    """
    present = [row["readout"] for row in comparison["table"]]
    readout = readout if readout in present or not present else present[0]
    rows = [row for row in comparison["table"] if row["readout"] == readout]
    noise = amount_name(comparison)
    names = [escape("Method"), *([escape(noise)] if noise else [])]
    columns = _columns(comparison, rows, readout)
    cells = zip(*(column.cells() for column in columns), strict=True)
    lines = [
        " & ".join([escape(row["method"]), *([amount(row["noise"])] if noise else []), *found])
        for row, found in zip(rows, cells, strict=True)
    ]
    head = [line.format(readout=" ".join(readout.split())) for line in _HEAD]
    return "\n".join([
        *head,
        rf"\begin{{tabular}}{{{'l' * len(names)}{'c' * len(columns)}}}",
        r"\toprule",
        rf"{' & '.join([*names, *(escape(column.title) for column in columns)])} \\",
        r"\midrule",
        *(rf"{line} \\".replace("–", "--") for line in lines),
        r"\bottomrule",
        r"\end{tabular}",
        "",
    ])  # fmt: skip


def _columns(comparison: Mapping[str, Any], rows: Sequence[Record], readout: str) -> list[_Column]:
    """The task's metric in three columns, then one for every other."""
    metric = comparison.get("metric", "AUC")
    none = [(None, None)] * len(rows)
    found = [
        _Column(f"Mean {metric}", [r["mean_site"] for r in rows], [_bounds(r) for r in rows]),
        _Column("Worst site", [row["worst_mean"] for row in rows], none),
        _Column("Pooled", [row["pooled"] for row in rows], none),
    ]
    more = {
        (row["metric"], row["method"], row.get("noise")): row
        for row in comparison.get("more_table", [])
        if row["readout"] == readout
    }
    for measure in comparison.get("measures", []) if more else []:
        name, lower = measure["metric"], measure["lower_is_better"]
        own = [more[name, row["method"], row.get("noise")] for row in rows]
        values = [row["mean_site"] for row in own]
        found.append(_Column(name.capitalize() if name[1:].islower() else name, values,
                             [_bounds(row) for row in own], lower))  # fmt: skip
    return found


def _bounds(row: Record) -> tuple[float | None, float | None]:
    return row.get("low"), row.get("high")


def _cell(value: float | None, bounds: tuple[float | None, float | None], best: str | None) -> str:
    text = number(value)
    text = rf"\textbf{{{text}}}" if text == best else text
    if bounds[0] is not None and bounds[1] is not None:
        text += rf" {{\scriptsize [{number(bounds[0])}, {number(bounds[1])}]}}"
    return text.replace("-", "$-$")  # a minus, and no hyphen


def escape(text: object) -> str:
    """Return one line of text as LaTeX, whatever characters are in it."""
    return "".join(_ESCAPED.get(c, c) for c in " ".join(str(text).split()))
