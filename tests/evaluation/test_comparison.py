from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from rayfed_hn.evaluation import comparison
from rayfed_hn.evaluation.comparison import estimate, markdown_table
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.metrics import auc

compare_methods = functools.partial(comparison.compare_methods, judge=Judge("binary", 2))
_CELLS = st.tuples(st.integers(1, 4), st.integers(2, 8)).flatmap(
    lambda shape: arrays(float, shape, elements=st.floats(0, 1))
)


def _rows(method: str, cells_SK: np.ndarray, folds: int = 2, readout: str = "last") -> list[dict]:
    return [
        {
            "method": method,
            "readout": readout,
            "site": f"site-{s}",
            "seed": k // folds,
            "fold": k % folds,
            "value": None if np.isnan(cells_SK[s, k]) else float(cells_SK[s, k]),
            "num_test": 3,
        }
        for s, k in np.ndindex(*cells_SK.shape)
    ]


def _scores(rng: np.random.Generator, method: str = "local", shift: float = 1.0) -> list[dict]:
    """Two seeds, two folds, two sites with ten bags each; the slide keeps its label."""
    records = []
    for seed, site, slide in itertools.product((0, 1), ("a", "b"), range(10)):
        label = slide % 2
        record = {"method": method, "readout": "last", "seed": seed, "fold": slide % 5 % 2}
        record |= {"site": site, "slide": slide, "case": slide, "label": label}
        records.append(record | {"score": shift * label + rng.normal()})
    return records


def _arm_and_site(record: dict[str, Any]) -> tuple[str, str]:
    return record["method"], record.get("site", "")


@given(_CELLS)
def test_on_complete_data_the_error_is_that_of_the_splits_means(cells_SK: np.ndarray) -> None:
    found = estimate(cells_SK)
    of_splits = cells_SK.mean(axis=0)
    assert found.mean == pytest.approx(of_splits.mean(), abs=1e-12)
    assert found.se == pytest.approx(of_splits.std(ddof=1) / np.sqrt(len(of_splits)), abs=1e-9)


@given(_CELLS)
def test_the_interval_is_student_s(cells_SK: np.ndarray) -> None:
    found = estimate(cells_SK)
    if cells_SK.mean(axis=0).std() < 1e-9:  # scipy warns where there is nothing to estimate
        return
    expected = stats.ttest_1samp(cells_SK.mean(axis=0), 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_undefined_cells_by_hand() -> None:
    found = estimate(np.array([[0.5, 0.9, np.nan], [np.nan, 0.6, np.nan]]))
    # Site means .7 and .6; influences (.5 - .7) / (2 * 2) and (.9 - .7) / (2 * 2) + 0.
    assert found.mean == pytest.approx(0.65)
    assert found.num_splits == 2
    assert found.se == pytest.approx(np.sqrt(2 / 1 * (0.05**2 + 0.05**2)))


def test_a_site_without_any_defined_cell_is_left_out() -> None:
    with_site = estimate(np.array([[0.5, 0.9], [np.nan, np.nan]]))
    without = estimate(np.array([[0.5, 0.9]]))
    assert (with_site.mean, with_site.se) == (without.mean, without.se)
    assert estimate(np.full((2, 3), np.nan)).mean is None


def test_one_split_has_no_error() -> None:
    found = estimate(np.array([[0.5], [0.7]]))
    assert (found.mean, found.se, found.low, found.num_splits) == (
        pytest.approx(0.6),
        None,
        None,
        1,
    )


def test_intervals_cover_as_promised_when_splits_are_independent() -> None:
    rng = np.random.default_rng(5)
    truth, covered, repeats = np.array([0.7, 0.8, 0.6]), 0, 2000
    for _ in range(repeats):
        # Sites of a split move together: errors that ignored the cluster would be too small.
        cells_SK = truth[:, None] + rng.normal(0, 0.05, (1, 8)) + rng.normal(0, 0.05, (3, 8))
        found = estimate(cells_SK)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth.mean() <= found.high
    assert covered / repeats == pytest.approx(0.95, abs=0.02)


def test_table_counts_what_is_undefined_and_names_the_worst_site() -> None:
    cells_SK = np.array([[0.9, 0.8, np.nan, 1.0], [0.5, 0.6, 0.7, 0.4]])
    (row,) = compare_methods(_rows("local", cells_SK), [])["table"]
    assert row["mean_site"] == pytest.approx((0.9 + 0.55) / 2)
    assert row["num_undefined"] == 1
    assert (row["worst_site"], row["worst_mean"]) == ("site-1", pytest.approx(0.55))
    assert row["pooled"] is None


def test_the_interval_of_an_auc_stays_among_aucs() -> None:
    (row,) = compare_methods(_rows("local", np.array([[0.2, 1.0, 1.0]])), [])["table"]
    assert 0 <= row["low"] < row["mean_site"] < row["high"] == 1


def test_an_undefined_value_is_never_a_half() -> None:
    nothing = compare_methods(_rows("local", np.full((2, 2), np.nan)), [])
    assert nothing["table"][0]["mean_site"] is None
    assert nothing["table"][0]["worst_site"] is None
    assert [site["mean_value"] for site in nothing["per_site"]] == [None, None]
    assert nothing["table"][0]["num_undefined"] == 4


@given(_CELLS, st.randoms())
def test_the_order_of_rows_changes_nothing(cells_SK: np.ndarray, random: Any) -> None:
    rows = _rows("local", cells_SK) + _rows("fedavg", cells_SK**2)
    shuffled = list(rows)
    random.shuffle(shuffled)
    before, after = compare_methods(rows, []), compare_methods(shuffled, [])
    for name in ("table", "per_site"):
        assert sorted(before[name], key=_arm_and_site) == sorted(after[name], key=_arm_and_site)


def test_differences_are_paired_and_the_hypernetwork_comes_first() -> None:
    rng = np.random.default_rng(0)
    base_SK = rng.uniform(0.6, 0.9, (3, 10))
    rows = [
        *_rows("local", base_SK),
        *_rows("fedavg", base_SK - 0.02),
        *_rows("hypernetwork", base_SK + 0.01 + rng.normal(0, 1e-3, base_SK.shape)),
    ]
    found = {(d["method"], d["against"]): d for d in compare_methods(rows, [])["differences"]}
    assert set(found) == {
        ("hypernetwork", "local"),
        ("hypernetwork", "fedavg"),
        ("local", "fedavg"),
    }
    assert found["local", "fedavg"]["low"] == pytest.approx(0.02)
    best = found["hypernetwork", "local"]
    assert best["low"] < 0.01 < best["high"]
    # Paired: the splits' own spread, a hundred times larger, is gone.
    assert best["high"] - best["low"] < 2e-3
    assert (best["num_splits"], best["num_cells"]) == (10, 30)


def test_differences_use_cells_that_both_have() -> None:
    one_SK = np.array([[0.9, 0.9, 0.2, np.nan]])
    two_SK = np.array([[0.8, 0.7, np.nan, 0.1]])
    rows = _rows("local", one_SK) + _rows("fedavg", two_SK)
    (found,) = compare_methods(rows, [])["differences"]
    assert found["difference"] == pytest.approx(0.15)
    assert found["num_splits"] == 2


def test_differences_stay_within_a_readout() -> None:
    cells_SK = np.full((1, 4), 0.7)
    rows = [
        *_rows("local", cells_SK),
        *_rows("local", cells_SK, readout="best"),
        *_rows("fedavg", cells_SK, readout="best"),
    ]
    (found,) = compare_methods(rows, [])["differences"]
    assert found["readout"] == "best"


def test_identical_methods_differ_by_nothing() -> None:
    cells_SK = np.random.default_rng(1).uniform(0, 1, (4, 6))
    rows = _rows("local", cells_SK) + _rows("fedavg", cells_SK)
    (found,) = compare_methods(rows, [])["differences"]
    assert (found["difference"], found["low"], found["high"]) == (0, 0, 0)


def test_out_of_fold_pools_folds_within_a_seed() -> None:
    scores = _scores(np.random.default_rng(3))
    rows = _rows("local", np.full((1, 4), 0.7))
    found = compare_methods([row | {"site": "a"} for row in rows], scores)

    def by_hand(sites: str) -> float:
        aucs = []
        for seed in (0, 1):
            part = [s for s in scores if s["seed"] == seed and s["site"] in sites]
            aucs.append(auc([s["label"] for s in part], [s["score"] for s in part]))
        return float(np.mean(aucs))

    assert found["table"][0]["pooled"] == pytest.approx(by_hand("ab"))
    (site,) = found["per_site"]
    assert site["out_of_fold"] == pytest.approx(by_hand("a"))
    assert site["num_test"] == 10


def test_out_of_fold_of_an_incomplete_seed_is_not_given() -> None:
    rng = np.random.default_rng(3)
    whole, other = _scores(rng), _scores(rng, "fedavg")
    rows = [
        row | {"site": site}
        for method in ("local", "fedavg")
        for site in "ab"
        for row in _rows(method, np.full((1, 4), 0.7))
    ]
    found = compare_methods(rows, [*whole[1:], *other])
    pooled = {row["method"]: row["pooled"] for row in found["table"]}
    assert pooled["local"] is None
    assert pooled["fedavg"] is not None
    sites = {(s["method"], s["site"]): s["out_of_fold"] for s in found["per_site"]}
    assert sites["local", "a"] is None
    assert sites["local", "b"] is not None
    # A bag that was scored twice was in two test folds: that is not out of fold.
    twice = compare_methods(rows, [*whole, whole[0], *other])
    assert twice["table"][0]["pooled"] is None


def test_a_cell_twice_is_refused() -> None:
    rows = _rows("local", np.full((1, 2), 0.7))
    with pytest.raises(ValueError, match="twice"):
        compare_methods([*rows, rows[0]], [])


def test_markdown_table_is_pasteable() -> None:
    cells_SK = np.array([[0.9, 0.8, np.nan, 1.0], [0.5, 0.6, 0.7, 0.4]])
    rows = _rows("local", cells_SK) + _rows("hypernetwork", cells_SK * 0.8)
    for row in rows:
        row["site"] = row["site"].replace("site-1", "a|<b>\nx")
    text = markdown_table(compare_methods(rows, []))
    assert "| local | last | 0.725 ± 0.026 | 0.550 (a\\|&lt;b> x) | – | 1 |" in text
    assert "| hypernetwork − local | last | -0.145 |" in text
    assert "optimistic" in text
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if "|" in line}
    assert widths == {7, 6}


def test_markdown_of_one_method_and_one_split_has_no_difference_and_no_error() -> None:
    text = markdown_table(compare_methods(_rows("local", np.array([[0.75]])), []))
    assert "| local | last | 0.750 | 0.750 (site-0) | – | 0 |" in text
    assert "difference" not in text
