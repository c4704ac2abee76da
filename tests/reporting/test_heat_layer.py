"""Percentiles of tiles as planes and colours."""

from __future__ import annotations

import numpy as np
import pytest

from rayfed_hn.prediction.heat import Heat, agreement
from rayfed_hn.reporting.heat_layer import Ground, blank_ground, grade_of, overlay, plane


def heat(corners: list[tuple[int, int]], attention: list[float], side: float = 10.0) -> Heat:
    total = np.array(attention, float)
    return Heat("s", "a", "run", "personal", "1", np.array(corners, np.int64), side, total)


def test_percentiles_count_from_below_and_ties_share() -> None:
    found = heat([(0, 0), (10, 0), (20, 0), (30, 0)], [0.1, 0.4, 0.4, 0.05])
    assert found.percentiles.tolist() == [50.0, 87.5, 87.5, 25.0]


def test_grades_hold_as_many_tiles_as_their_names_say() -> None:
    many = heat([(i, 0) for i in range(1000)], list(range(1000)))
    names = [grade_of(p) for p in many.percentiles]
    counts = {name: names.count(name) for name in names}
    assert counts == {"top 1 %": 10, "top 10 %": 90, "upper half": 400, "lower half": 500}


def test_x_runs_along_columns() -> None:
    found = plane(heat([(10, 0), (0, 10)], [0.1, 0.9]), (30, 20), (4, 6))
    assert np.isnan(found[:2, :2]).all()
    assert (found[:2, 2:4] == 50).all()
    assert (found[2:, :2] == 100).all()
    assert np.isnan(found[:, 4:]).all()


def test_overlapping_tiles_are_averaged() -> None:
    found = plane(heat([(0, 0), (5, 0)], [0.1, 0.9]), (15, 10), (2, 3))
    assert found.tolist() == [[50, 75, 100]] * 2


def test_a_tile_smaller_than_a_pixel_is_seen_and_one_beyond_the_edge_is_cut() -> None:
    found = plane(heat([(999, 0), (0, 999)], [0.1, 0.9], 4.0), (1000, 1000), (10, 10))
    assert found[0, 9] == 50
    assert found[9, 0] == 100
    assert np.isfinite(found).sum() == 2


@pytest.mark.parametrize("seed", range(3))
def test_a_plane_is_what_painting_one_tile_after_the_other_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = [tuple(map(int, xy)) for xy in rng.integers(0, 90, (40, 2))]
    found = heat(corners, rng.random(40).tolist())  # type: ignore[arg-type]
    total, count = np.zeros((50, 50)), np.zeros((50, 50))
    for (x, y), percentile in zip(corners, found.percentiles, strict=True):
        rows = slice(int(np.rint(y / 2)), int(np.rint((y + 10) / 2)))
        columns = slice(int(np.rint(x / 2)), int(np.rint((x + 10) / 2)))
        total[rows, columns] += percentile
        count[rows, columns] += 1
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(plane(found, (100, 100), (50, 50)), total / count)


def test_colours_go_from_blue_to_vermillion_and_leave_the_rest() -> None:
    found = heat([(0, 0), (10, 0)], [0.1, 0.9])
    ground = Ground(np.full((10, 30, 3), 200, np.uint8), (30, 10), 0.5, False)
    picture = overlay(found, ground).astype(int)
    assert picture[5, 15, 0] - picture[5, 15, 2] > 80
    assert picture[5, 25].tolist() == [200, 200, 200]
    assert ground.picture_mpp == 0.5
    low = overlay(
        heat([(i, 0) for i in range(0, 100, 10)], list(range(10))), blank_ground(found, 50)
    )
    assert low[5, 2, 2] > low[5, 2, 0]


def test_blank_ground_holds_all_tiles_and_is_no_larger_than_asked() -> None:
    ground = blank_ground(heat([(0, 0), (990, 490)], [0.1, 0.9]), 100)
    assert ground.extent == (1000, 500)
    assert ground.picture_HW3.shape == (50, 100, 3)
    assert ground.blank
    assert ground.picture_mpp is None


def test_agreement() -> None:
    corners = [(0, 0), (10, 0), (20, 0)]
    one = heat(corners, [0.1, 0.2, 0.7])
    assert agreement(one, heat(corners, [0.2, 0.3, 0.5])) == pytest.approx(1)
    assert agreement(one, heat(corners, [0.7, 0.2, 0.1])) == pytest.approx(-1)
    assert agreement(one, heat(corners, [1 / 3] * 3)) is None
    assert agreement(one, heat(corners[::-1], [0.2, 0.3, 0.5])) is None
