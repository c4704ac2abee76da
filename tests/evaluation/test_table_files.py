"""The tables that are written beside each other: markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from cost_cells import cell

from rayfed_hn.evaluation.costs import costs_of
from rayfed_hn.evaluation.csv_table import COLUMNS, csv_table
from rayfed_hn.evaluation.latex_table import escape, latex_table
from rayfed_hn.evaluation.markdown import markdown_table

HOSTILE = 'a_1 & "b" 50% {x}\\y | <z>, #$~^'


def row(method: str, mean: float | None, metric: str | None = None, **more: Any) -> dict[str, Any]:
    bounds = {"se": 0.01, "low": None if mean is None else mean - 0.02}
    bounds |= {"high": None if mean is None else mean + 0.02, "pooled": mean}
    found = {"method": method, "readout": "last", "mean_site": mean, **bounds}
    found |= {"worst_mean": mean, "worst_site": HOSTILE, "num_undefined": 0}
    found |= {"num_splits": 4, "num_sites": 2, **more}
    return found if metric is None else found | {"metric": metric}


def paired(scope: str, kind: str, metric: str = "AUC") -> dict[str, Any]:
    about = {"method": "hypernetwork", "against": "local", "readout": "last", "metric": metric}
    values = {"difference": 0.05, "low": 0.01, "high": 0.09, "p": 0.0002, "p_holm": 0.02}
    return about | {"scope": scope, "site": None, "kind": kind, "num_cases": 9} | values


def comparison() -> dict[str, Any]:
    measures = [
        {"metric": "balanced accuracy", "about": "", "lower_is_better": False},
        {"metric": "Brier score", "about": "", "lower_is_better": True},
    ]
    return {
        "task": "binary",
        "metric": "AUC",
        "table": [row("local", 0.7001), row("hypernetwork", 0.9), row("other", None),
                  row("local", 0.5, readout="best")],
        "differences": [],
        "measures": measures,
        "more_table": [
            *(row(m, v, "balanced accuracy") for m, v in
              (("local", 0.6), ("hypernetwork", 0.6004), ("other", 0.5))),
            *(row(m, v, "Brier score") for m, v in
              (("local", 0.2), ("hypernetwork", 0.1), ("other", 0.3))),
        ],
        "tests": [paired("mean of sites", "bootstrap by case"), paired("pooled", "DeLong by case"),
                  paired("site", "DeLong by case"), paired("pooled", "bootstrap by case", "F1")],
        "costs": costs_of([cell(0, 2_000_000)]),
    }  # fmt: skip


def test_csv_has_every_number_and_metric_in_full() -> None:
    found = list(csv.DictReader(io.StringIO(csv_table(comparison()))))
    assert len(found) == 4 + 6
    assert tuple(found[0]) == COLUMNS
    first = found[0]
    assert (first["metric"], first["mean_site"], first["noise"]) == ("AUC", "0.7001", "")
    assert first["worst_site"] == HOSTILE
    assert found[2]["mean_site"] == ""
    assert [r["mean_site"] for r in found if r["metric"] == "Brier score"] == ["0.2", "0.1", "0.3"]


def test_latex_sets_the_best_in_bold_and_gives_intervals() -> None:
    text = latex_table(comparison(), "last")
    lines = {line.split(" & ")[0]: line for line in text.splitlines() if line.endswith(r"\\")}
    assert set(lines) == {"Method", "local", "hypernetwork", "other"}
    head = "Method & Mean AUC & Worst site & Pooled & Balanced accuracy & Brier score"
    assert lines["Method"] == rf"{head} \\"
    best = r"\textbf{0.900} {\scriptsize [0.880, 0.920]}"
    assert lines["hypernetwork"].split(" & ")[1] == best
    # Ties as printed are both best; of an error, the least is.
    bold = {name: line.count(r"\textbf") for name, line in lines.items()}
    assert bold == {"Method": 0, "local": 1, "hypernetwork": 5, "other": 0}
    assert r"\textbf{0.600}" in lines["local"]
    assert r"\textbf{0.100}" in lines["hypernetwork"]
    assert lines["other"].split(" & ")[1:4] == ["--"] * 3
    assert re.findall(r"\\\w+rule", text) == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert r"\begin{tabular}{lccccc}" in text
    assert {line.count("&") for line in lines.values()} == {5}


def test_latex_holds_any_name() -> None:
    found = escape(HOSTILE)
    assert found == (
        r'a\_1 \& "b" 50\% \{x\}\textbackslash{}y \textbar{} \textless{}z\textgreater{}, '
        r"\#\$\textasciitilde{}\textasciicircum{}"
    )
    # At the start of a row these would be taken for the options of the row before.
    assert escape("[1cm] *x") == "{[}1cm] {*}x"


def test_latex_has_minus_signs_in_numbers_and_hyphens_in_names() -> None:
    below = comparison()
    below["table"] = [row("fed-prox", -0.25), row("local", -0.5)]
    del below["more_table"]
    cells = latex_table(below, "last").splitlines()[6].split(" & ")
    assert cells[:2] == ["fed-prox", r"\textbf{$-$0.250} {\scriptsize [$-$0.270, $-$0.230]}"]


def test_tables_of_amounts_name_them() -> None:
    noisy = comparison()
    noisy["noise_of"] = "target_epsilon"
    for name in ("table", "more_table", "tests"):
        noisy[name] = [record | {"noise": 3.0} for record in noisy[name]]
    noisy["costs"] = costs_of([cell(0, 100, noise=3.0)])
    assert "Method & epsilon & Mean AUC" in latex_table(noisy, "last")
    assert "local & 3 & " in latex_table(noisy, "last")
    assert "local,3.0,last,AUC" in csv_table(noisy)
    text = markdown_table(noisy, "last")
    assert "| hypernetwork − local | 3 | pooled |" in text
    assert "| fedavg | 3 | 100 B |" in text


def test_markdown_has_tests_metrics_and_costs() -> None:
    text = markdown_table(comparison(), "last")
    line = "| hypernetwork − local | mean of sites | bootstrap by case | +0.050 | +0.010 to +0.090"
    assert f"{line} | < 0.001 | 0.020 |" in text
    assert text.count("| hypernetwork − local |") == 2  # sites and other metrics: in the report
    assert "| local | 0.600 (0.580 to 0.620) | 0.200 (0.180 to 0.220) |" in text
    assert "| fedavg | 2 MB | 1 MB | 4 MB | 2 MB | 1.5 s | – | 4 s |" in text
    assert "those by case, what other patients would" in text


@pytest.mark.parametrize("name", ["measures", "more_table", "tests", "costs", "metric"])
def test_older_summaries_lack_parts(name: str) -> None:
    older = comparison()
    del older[name]
    if name == "measures":
        del older["more_table"]
    assert "hypernetwork" in markdown_table(older, "last")
    assert "0.900" in latex_table(older, "last")
    assert "0.7001" in csv_table(older)
