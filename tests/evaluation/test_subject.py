from __future__ import annotations

from typing import Any

import pytest

from rayfed_hn.config import METHODS
from rayfed_hn.evaluation.comparison import compare_methods
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.markdown import MAX_METHODS, markdown_table
from rayfed_hn.evaluation.subject import seen_from, subject

READOUTS = ("last", "best", "mixture")


def _comparison(methods: tuple[str, ...]) -> dict[str, Any]:
    """Later methods are better; one site, four splits."""
    rows = [
        {"method": m, "readout": r, "site": "a", "seed": 0, "fold": f, "num_test": 3}
        | {"value": 0.5 + 0.02 * i + 0.01 * f * (i % 2)}
        for i, m in enumerate(methods)
        for r in READOUTS
        for f in range(4)
    ]
    return compare_methods(rows, [], judge=Judge("binary", 2))


def _differences(text: str) -> list[tuple[str, str]]:
    lines = [line.split(" | ") for line in text.splitlines() if " − " in line]
    return [(line[0].removeprefix("| "), line[1]) for line in lines]


def test_of_many_methods_only_the_hypernetwork_s_differences_are_printed() -> None:
    text = markdown_table(_comparison(METHODS), "mixture")
    found = _differences(text)
    others = [method for method in METHODS if method != "hypernetwork"]
    assert found == [
        (f"hypernetwork − {m}", r) for r in ("mixture", "last", "best") for m in others
    ]
    num_pairs = len(METHODS) * (len(METHODS) - 1) // 2
    left_out = 3 * (num_pairs - len(others))
    assert (
        f"{left_out} more differences, of other pairs, are in summary.json and the report." in text
    )


def test_of_few_methods_all_are_printed() -> None:
    methods = ("local", "fedavg", "pooled", "hypernetwork")
    assert len(methods) == MAX_METHODS
    text = markdown_table(_comparison(methods), "best")
    assert len(_differences(text)) == 3 * 6
    assert "more differences" not in text


def test_the_run_s_readout_comes_first_in_both_tables() -> None:
    text = markdown_table(_comparison(("local", "fedavg")), "mixture")
    first, second = (part.splitlines() for part in text.split("\n\n")[:2])
    order = [line.split(" | ")[1] for line in first[2:]]
    assert order == ["mixture"] * 2 + ["last"] * 2 + ["best"] * 2
    assert [line.split(" | ")[1] for line in second[2:]] == ["mixture", "last", "best"]


def test_without_a_hypernetwork_the_best_method_is_the_subject() -> None:
    methods = tuple(method for method in METHODS if method != "hypernetwork")
    comparison = _comparison(methods)
    assert subject(comparison["table"], "mixture") == methods[-1]
    found = _differences(markdown_table(comparison, "mixture"))
    assert {name.split(" − ")[0] for name, _ in found} == {methods[-1]}


def test_a_hypernetwork_without_an_auc_is_not_the_subject() -> None:
    comparison = _comparison(("hypernetwork", "local"))
    for row in comparison["table"]:
        row["mean_site"] = None if row["method"] == "hypernetwork" else 0.7
    assert subject(comparison["table"], "last") == "local"
    nothing = [row | {"mean_site": None} for row in comparison["table"]]
    assert subject(nothing, "last") == "hypernetwork"


def test_a_difference_seen_from_the_other_side_has_its_bounds_turned() -> None:
    difference = {"method": "a", "against": "b", "difference": 0.02, "low": -0.01, "high": 0.05}
    (found,) = seen_from("b", [difference, difference | {"against": "c"}])
    assert (found["method"], found["against"]) == ("b", "a")
    bounds = found["difference"], found["low"], found["high"]
    assert bounds == pytest.approx((-0.02, -0.05, 0.01))
    (undefined,) = seen_from("b", [difference | {"difference": None, "low": None, "high": None}])
    assert undefined["difference"] is undefined["low"] is undefined["high"] is None
