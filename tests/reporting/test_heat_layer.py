"""Percentiles of tiles as planes and colours."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from rayfed_hn.prediction.heat import Heat, agreement
from rayfed_hn.reporting.heat_layer import (
    COLOURS,
    OPACITY,
    Ground,
    blank_ground,
    grade_of,
    overlay,
    plane,
)


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


def test_colours_lie_over_grey_and_leave_the_rest() -> None:
    found = heat([(0, 0), (10, 0)], [0.1, 0.9])
    stained = np.empty((10, 30, 3), np.uint8)
    stained[:] = (180, 90, 160)
    ground = Ground(stained, (30, 10), 0.5, False)
    picture = overlay(found, ground).astype(int)
    grey = 0.299 * 180 + 0.587 * 90 + 0.114 * 160
    for column, percentile in ((5, 50), (15, 100)):
        colour = 255 * np.array(COLOURS(percentile / 100)[:3])
        expected = OPACITY * colour + (1 - OPACITY) * grey
        np.testing.assert_allclose(picture[5, column], expected, atol=1)
    assert picture[5, 25].tolist() == [180, 90, 160]
    assert ground.picture_mpp == (0.5, 0.5)
    tiles = heat([(i, 0) for i in range(0, 100, 10)], list(range(10)))
    low = overlay(tiles, blank_ground(tiles, 100))
    np.testing.assert_allclose(low[5, 5], 255 * np.array(COLOURS(0.1)[:3]), atol=1)


def test_colours_are_even_steps_also_for_those_who_see_fewer_of_them() -> None:
    colours_K3 = COLOURS(np.linspace(0, 1, 11))[:, :3]
    # Machado et al. 2009, full deuteranopia and protanopia, on linear light.
    blind = {
        "none": np.eye(3),
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                   [-0.011820, 0.042940, 0.968881]],
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    }  # fmt: skip
    linear_K3 = np.where(
        colours_K3 <= 0.04045, colours_K3 / 12.92, ((colours_K3 + 0.055) / 1.055) ** 2.4
    )
    for name, matrix in blind.items():
        seen_K3 = np.clip(linear_K3 @ np.array(matrix).T, 0, 1)
        coded_K3 = np.where(
            seen_K3 <= 0.0031308, seen_K3 * 12.92, 1.055 * seen_K3 ** (1 / 2.4) - 0.055
        )
        steps = np.diff(rgb2lab(coded_K3[None])[0, :, 0])
        assert steps.min() > 4, name  # lightness rises all the way
        assert steps.max() < 2.5 * steps.min(), name


def test_the_scale_is_that_of_either_side() -> None:
    ground = Ground(np.zeros((7, 10, 3), np.uint8), (1000, 750), 0.5, False)
    assert ground.picture_mpp == pytest.approx((50, 0.5 * 750 / 7))


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
