"""How much keys mattered: what is planted is found, and chance is called chance."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from rayfed_hn.tuning.dimensions import Dimension
from rayfed_hn.tuning.importance import LEAST_TRIALS, explained, groups, importance

GRID = (Dimension("a.x", "grid", (1, 2, 3)), Dimension("a.y", "grid", ("p", "q")))


def record(number: int, settings: dict[str, Any], curve: list[float | None]) -> dict[str, Any]:
    return {"trial": number, "settings": settings, "status": "finished", "curve": curve}


def grid(value: Any) -> list[dict[str, Any]]:
    pairs = itertools.product((1, 2, 3), ("p", "q"))
    return [record(n, {"a.x": x, "a.y": y}, [value(x, y)]) for n, (x, y) in enumerate(pairs)]


def test_on_a_grid_it_is_the_main_effect() -> None:
    rows = {r["key"]: r for r in importance(grid(lambda x, y: 0.1 * x), GRID, 0)}
    assert rows["a.x"]["share"] == pytest.approx(1.0)
    assert rows["a.y"]["share"] == 0.0
    assert rows["a.x"]["correlation"] == pytest.approx(1.0)
    assert rows["a.y"]["correlation"] is None
    assert rows["a.x"]["chance"] < 0.1 < rows["a.y"]["chance"]


def test_a_share_is_that_of_an_analysis_of_variance() -> None:
    metric_T = np.array([1.0, 3.0, 4.0, 6.0, 5.0, 11.0])
    group_T = np.array([0, 0, 1, 1, 2, 2])
    # Sums of squares by hand: total 58; within 2 + 2 + 18 = 22; adjusted 1 - 22/58 * 5/3.
    assert explained(metric_T, group_T) == pytest.approx(1 - 22 / 58 * 5 / 3)


def test_noise_has_no_share_on_average() -> None:
    rng = np.random.default_rng(0)
    group_T = np.arange(24) % 4
    found = [explained(rng.normal(size=24), group_T) for _ in range(2000)]
    assert abs(np.mean(found)) < 0.01  # without the adjustment it would be 3/23


def test_drawn_numbers_are_grouped_by_rank() -> None:
    dimension = Dimension("a.z", "loguniform", (1e-3, 1.0))
    values = [10.0 ** (-3 * i / 15) for i in range(16)]
    found = groups(dimension, values)
    assert np.bincount(found).tolist() == [4, 4, 4, 4]
    assert (np.diff(found) <= 0).all()
    assert len(set(groups(dimension, [0.1] * 5 + [0.2, 0.3, 0.4, 0.5, 0.6])[:5])) == 1


def test_all_trials_are_judged_at_the_last_version_that_each_has_reached() -> None:
    records = [
        record(n, {"a.x": 1 + n % 3, "a.y": "pq"[n % 2]}, [0.5]) for n in range(LEAST_TRIALS)
    ]
    for r in records:
        r["curve"] = [0.5, 0.1 * r["settings"]["a.x"], 0.9, 0.9][: 4 if r["trial"] else 2]
    rows = importance(records, GRID, 0)
    assert {row["version"] for row in rows} == {1}
    assert rows[0]["key"] == "a.x"
    assert rows[0]["share"] == pytest.approx(1.0)


def test_of_few_trials_or_equal_ones_nothing_is_said() -> None:
    assert importance(grid(lambda x, y: x)[: LEAST_TRIALS - 1], GRID, 0) == []
    assert {r["share"] for r in importance(grid(lambda x, y: 0.5), GRID, 0)} == {0.0}


def test_it_repeats() -> None:
    records = grid(lambda x, y: 0.1 * x + 0.05 * (y == "p"))
    assert importance(records, GRID, 3) == importance(records, GRID, 3)
