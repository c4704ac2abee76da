"""With one amount of noise, a trade-off is a comparison; with several, it is one for each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rayfed_hn.evaluation.comparison import ByCase, compare_methods, estimate
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.trade_off import compare_amounts, membership

JUDGE = Judge("binary", 2)
Records = list[dict[str, Any]]


def made(amounts: Sequence[float], methods: Sequence[str] = ("fedavg", "local", "hypernetwork")):
    rng, rows, scores = np.random.default_rng(0), Records(), Records()
    for method, fold, site in itertools.product(methods, range(3), ("north", "south")):
        for noise in [None] if method == "local" else amounts:
            key = {"method": method, "seed": 0, "fold": fold, "site": site, "noise": noise}
            for readout in ("last", "best"):
                key["readout"] = readout
                value = None if rng.random() < 0.1 else float(rng.random())
                rows.append(key | {"value": value})
                scores += [
                    key | {"slide": 4 * fold + i, "label": i % 2, "score": float(rng.random())}
                    for i in range(4)
                ]
    return rows, scores


def plain(records: Records) -> Records:
    return [{k: v for k, v in record.items() if k != "noise"} for record in records]


def test_one_amount_is_the_plain_comparison() -> None:
    rows, scores = made([0.1])
    by_case = ByCase(resamples=50, seed=3)
    found = compare_amounts(rows, scores, [0.1], least=min, judge=JUDGE, by_case=by_case)
    expected = compare_methods(plain(rows), plain(scores), judge=JUDGE, by_case=by_case)
    assert found.pop("by_amount") == []
    tables = [name for name, value in found.items() if isinstance(value, list)]
    tables.remove("measures")
    assert {"table", "more_differences", "reliability", "tests"} < set(tables)
    assert {**found, **{name: plain(found[name]) for name in tables}} == expected
    assert {row["noise"] for row in found["table"] if row["method"] == "local"} == {None}


def test_every_amount_is_compared_for_itself() -> None:
    amounts = [0.0, 0.1, 1.0]
    rows, scores = made(amounts)
    found = compare_amounts(rows, scores, amounts, least=min, judge=JUDGE)
    for amount in amounts:
        own = [r for r in rows if r["noise"] in (amount, None)]
        theirs = [s for s in scores if s["noise"] in (amount, None)]
        expected = compare_methods(plain(own), plain(theirs), judge=JUDGE)
        for name in ("table", "per_site", "differences"):
            records = [r for r in found[name] if r["noise"] in (amount, None)]
            key = lambda record: str(sorted(record.items(), key=str))  # noqa: E731
            assert sorted(plain(records), key=key) == sorted(expected[name], key=key)


def test_noise_costs_a_method_what_it_has_less_than_with_the_least() -> None:
    amounts = [1.0, 0.0, 0.1]
    rows, scores = made(amounts)
    found = compare_amounts(rows, scores, amounts, least=min, judge=JUDGE)["by_amount"]
    arms = {(d["method"], d["readout"], d["noise"]) for d in found}
    assert arms == set(itertools.product(("fedavg", "hypernetwork"), ("last", "best"), (1.0, 0.1)))
    for d in found:
        assert d["against_noise"] == 0.0
        pairs: list[list[float]] = []
        for site in ("north", "south"):
            more, least = (
                [
                    np.nan if r["value"] is None else r["value"]
                    for r in rows
                    if (r["method"], r["readout"], r["noise"], r["site"])
                    == (d["method"], d["readout"], noise, site)
                ]
                for noise in (d["noise"], 0.0)
            )
            pairs.append(list(np.subtract(more, least)))
        expected = estimate(np.array(pairs))
        assert (d["difference"], d["low"], d["high"]) == (
            expected.mean, expected.low, expected.high,
        )  # fmt: skip


def test_what_releases_nothing_is_there_once() -> None:
    amounts = [0.1, 1.0]
    rows, scores = made(amounts, ("local", "fedavg"))
    twin = [r | {"method": "pooled"} for r in rows if r["method"] == "local"]
    found = compare_amounts([*rows, *twin], scores, amounts, least=min, judge=JUDGE)
    table = [(row["method"], row["noise"]) for row in found["table"] if row["readout"] == "best"]
    assert table == [("local", None), ("fedavg", 0.1), ("fedavg", 1.0), ("pooled", None)]
    pairs = [
        (d["method"], d["against"], d["noise"])
        for d in found["differences"]
        if d["readout"] == "best"
    ]
    assert len(pairs) == len(set(pairs)) == 1 + 2 * len(amounts)
    assert {noise for *names, noise in pairs if "fedavg" not in names} == {None}


def test_an_amount_whose_cells_all_failed_is_left_out() -> None:
    rows, scores = made([0.1], ("fedavg",))
    found = compare_amounts(rows, scores, [0.1, 1.0], least=min, judge=JUDGE)
    assert {row["noise"] for row in found["table"]} == {0.1}


def test_membership_is_averaged_over_splits() -> None:
    records = [
        {"method": "fedavg", "seed": 0, "fold": fold, "noise": 0.1, "membership_auc": value}
        for fold, value in enumerate((0.5, 0.6, 0.7))
    ]
    (found,) = membership(records)
    expected = estimate(np.array([[0.5, 0.6, 0.7]]))
    assert found["mean"] == pytest.approx(0.6)
    assert (found["low"], found["high"]) == (expected.low, expected.high)
    assert (found["noise"], found["num_splits"]) == (0.1, 3)
    assert membership([]) == []
