"""The other metrics in a comparison: by split, worst site, pooled; and its tests by case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated_scores import BINARY, binary_scores
from sklearn.metrics import brier_score_loss

from rayfed_hn.evaluation.comparison import ByCase, compare_methods, estimate
from rayfed_hn.evaluation.metrics import auc

Records = list[dict[str, Any]]
SKILL = {"fedavg": 1.0, "hypernetwork": 2.0}


def made() -> tuple[Records, Records]:
    """Rows and scores of two methods, three sites, two seeds and three folds."""
    scores = binary_scores(np.random.default_rng(0), SKILL, seeds=2)
    groups: dict[tuple[Any, ...], Records] = {}
    names = ("method", "readout", "site", "seed", "fold")
    for record in scores:
        groups.setdefault(tuple(record[name] for name in names), []).append(record)
    rows = [
        {
            **dict(zip(names, key, strict=True)),
            "value": auc([r["label"] for r in own], [r["score"] for r in own]),
        }
        for key, own in groups.items()
    ]
    return rows, scores


def brier_of(records: Records, **about: Any) -> float:
    own = [r for r in records if all(r[name] == value for name, value in about.items())]
    return float(brier_score_loss([r["label"] for r in own], [r["score"] for r in own]))


def test_the_brier_score_by_split_pooled_and_at_the_worst_site() -> None:
    rows, scores = made()
    found = compare_methods(rows, scores, judge=BINARY)
    sites = sorted({row["site"] for row in rows})
    (row,) = (
        r for r in found["more_table"] if (r["method"], r["metric"]) == ("fedavg", "Brier score")
    )
    cells = np.array([
        [brier_of(scores, method="fedavg", site=site, seed=seed, fold=fold)
         for seed in range(2) for fold in range(3)]
        for site in sites
    ])  # fmt: skip
    expected = estimate(cells)
    assert (row["mean_site"], row["low"]) == pytest.approx((expected.mean, expected.low))
    worst = int(np.argmax(expected.site_means))  # of an error, the highest
    assert (row["worst_site"], row["worst_mean"]) == (sites[worst], expected.site_means[worst])
    pooled = [brier_of(scores, method="fedavg", seed=seed) for seed in range(2)]
    assert row["pooled"] == pytest.approx(np.mean(pooled))
    (site,) = (
        r
        for r in found["more_per_site"]
        if (r["method"], r["metric"], r["site"]) == ("fedavg", "Brier score", sites[0])
    )
    held = [brier_of(scores, method="fedavg", site=sites[0], seed=seed) for seed in range(2)]
    assert site["out_of_fold"] == pytest.approx(np.mean(held))
    (difference,) = (r for r in found["more_differences"] if r["metric"] == "Brier score")
    assert difference["difference"] < 0  # the hypernetwork errs less


def test_every_metric_has_its_rows_and_words() -> None:
    found = compare_methods(*made(), judge=BINARY)
    names = ["balanced accuracy", "F1", "Brier score", "calibration error"]
    assert [measure["metric"] for measure in found["measures"]] == names
    assert [m["lower_is_better"] for m in found["measures"]] == [False, False, True, True]
    for table, size in (("more_table", 2), ("more_per_site", 6), ("more_differences", 1)):
        assert [r["metric"] for r in found[table]] == [n for n in names for _ in range(size)]


def test_the_reliability_curve_is_of_all_bags_and_seeds() -> None:
    _, scores = made()
    found = compare_methods(*made(), judge=BINARY)["reliability"]
    assert {(one["method"], one["readout"]) for one in found} == {(m, "last") for m in SKILL}
    (bins,) = (one["bins"] for one in found if one["method"] == "fedavg")
    assert len(bins) == 10
    own = [r for r in scores if r["method"] == "fedavg"]
    assert sum(b["num_bags"] for b in bins) == len(own)
    share = sum(b["num_bags"] * b["observed"] for b in bins) / len(own)
    assert share == pytest.approx(np.mean([r["label"] for r in own]))
    assert [b["predicted"] for b in bins] == sorted(b["predicted"] for b in bins)


def test_a_lost_cell_is_undefined_in_every_metric() -> None:
    rows, scores = made()
    lost = {"method": "fedavg", "site": "site-0", "seed": 1, "fold": 2}

    def is_lost(record: dict[str, Any]) -> bool:
        return all(record[name] == value for name, value in lost.items())

    rows = [row | {"value": None} if is_lost(row) else row for row in rows]
    scores = [record for record in scores if not is_lost(record)]
    found = compare_methods(rows, scores, judge=BINARY)
    of_fedavg = [r for r in found["more_table"] if r["method"] == "fedavg"]
    assert [row["num_undefined"] for row in of_fedavg] == [1] * 4
    assert {row["pooled"] for row in of_fedavg} == {None}
    assert [one["method"] for one in found["reliability"]] == ["hypernetwork"]


def test_tests_are_made_when_asked_for_and_corrected() -> None:
    rows, scores = made()
    assert compare_methods(rows, scores, judge=BINARY)["tests"] == []
    found = compare_methods(rows, scores, judge=BINARY, by_case=ByCase(100, 0))["tests"]
    assert {"method", "against", "readout", "metric", "kind", "difference", "low", "high", "p",
            "p_holm"} < set(found[0])  # fmt: skip
    kinds = {(t["kind"], t["scope"]) for t in found if t["metric"] == "AUC"}
    assert kinds == {
        ("bootstrap by case", "mean of sites"), ("bootstrap by case", "pooled"),
        ("DeLong by case", "pooled"), ("DeLong by case", "site"),
    }  # fmt: skip
    single = [t for t in found if t["scope"] != "site"]
    assert all(t["p_holm"] == t["p"] for t in single)  # one pair
    sites = [t for t in found if t["scope"] == "site"]
    assert min(t["p_holm"] for t in sites) == pytest.approx(3 * min(t["p"] for t in sites))
