"""Share of every tile that a truth mask marks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayfed_hn.slides.synthetic_plan import GRID_UM
from rayfed_hn.slides.tiling import grid, tile_size0
from rayfed_hn.slides.truth import tumour_shares


def shares(truth: np.ndarray, corners: list[tuple[int, int]], side0: float, mpp: float = 1.0):
    return tumour_shares(truth, np.array(corners, np.int64), side0, mpp, GRID_UM)


def test_x_runs_along_columns_and_y_along_rows():
    truth = np.zeros((3, 5), bool)
    truth[2, 4] = True
    corners = [(4 * x, 4 * y) for y in range(3) for x in range(5)]
    found = shares(truth, corners, 4.0).reshape(3, 5)
    assert np.array_equal(found, truth.astype(float))


def test_a_cell_counts_by_the_part_that_the_tile_covers():
    truth = np.zeros((4, 4), bool)
    truth[1, 1] = True  # 4 to 8 um
    found = shares(truth, [(3, 3), (6, 6), (8, 4), (0, 0)], 4.0)
    assert found == pytest.approx([(3 / 4) ** 2, (1 / 2) ** 2, 0.0, 0.0])
    assert shares(truth, [(0, 0)], 16.0) == pytest.approx([1 / 16])
    # The same places on a slide of four times the resolution.
    assert shares(truth, [(12, 12)], 16.0, 0.25) == pytest.approx([9 / 16])


def test_what_lies_beyond_the_mask_is_not_marked():
    truth = np.ones((2, 2), bool)
    assert shares(truth, [(4, 4), (8, 8), (6, 0)], 8.0) == pytest.approx([0.25, 0.0, 0.25])


def test_an_impossible_tile_is_refused():
    with pytest.raises(ValueError, match="no tile: 0"):
        shares(np.ones((2, 2), bool), [(0, 0)], 0.0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    mpp=st.sampled_from([0.25, 0.35, 0.46, 0.5, 1.0]),
    tile_px=st.integers(32, 200),
)
def test_tiles_of_a_grid_agree_with_a_fine_count_of_points(seed: int, mpp: float, tile_px: int):
    rng = np.random.default_rng(seed)
    truth = rng.random((40, 52)) < 0.3
    extent = round(52 * GRID_UM / mpp), round(40 * GRID_UM / mpp)
    coords_N2, side0 = grid(extent, mpp, tile_px, tile_px, 0.5), tile_size0(mpp, tile_px, 0.5)
    found = tumour_shares(truth, coords_N2, side0, mpp, GRID_UM)
    assert found.shape == (len(coords_N2),)
    assert ((found >= 0) & (found <= 1)).all()
    offsets = (np.arange(200) + 0.5) / 200 * side0
    for share, (x, y) in zip(found, coords_N2, strict=True):
        columns, rows = (
            np.minimum(((start + offsets) * mpp / GRID_UM).astype(int), size - 1)
            for start, size in ((x, 52), (y, 40))
        )
        assert share == pytest.approx(truth[np.ix_(rows, columns)].mean(), abs=0.02)
