from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rayfed_hn.slides.tiling import grid, tile_size0

scales = st.floats(0.1, 2.0)
sides = st.integers(1, 20_000)


@settings(deadline=None)
@given(st.integers(1, 100_000), sides, scales, scales, st.integers(64, 1024), st.integers(1, 4))
def test_tiles_lie_inside_row_by_row_without_drift(
    width: int, height: int, slide_mpp: float, mpp: float, tile_px: int, overlap: int
) -> None:
    stride_px = max(8, tile_px // overlap)
    assume(width * height < 200_000 * (stride_px * mpp / slide_mpp) ** 2)
    coords = grid((width, height), slide_mpp, tile_px, stride_px, mpp)
    side0 = tile_size0(slide_mpp, tile_px, mpp)
    stride0 = stride_px * mpp / slide_mpp
    assert coords.dtype == np.int64
    assert (coords >= 0).all()
    assert (coords + side0 <= np.array([width, height]) + 1e-6).all()
    steps = coords / stride0
    assert np.abs(coords - np.rint(steps) * stride0).max(initial=0) <= 0.5 + 1e-6
    assert (np.lexsort((coords[:, 0], coords[:, 1])) == np.arange(len(coords))).all()
    assert len(np.unique(coords, axis=0)) == len(coords)
    expected = [max(0, (side - side0) / stride0 + 1) for side in (width, height)]
    for axis, count in enumerate(expected):
        if len(coords):  # rounding of the last tile may cost or win one
            found = len(np.unique(coords[:, axis]))
            assert count - 1 - 1 / stride0 <= found <= count + 1 / stride0


def test_known_grids() -> None:
    assert grid((512, 256), 0.5, 256, 256, 0.5).tolist() == [[0, 0], [256, 0]]
    assert grid((512, 512), 0.25, 256, 256, 0.5).tolist() == [[0, 0]]
    assert grid((775, 522), 0.62, 256, 256, 0.5)[:, 0].max() == 413  # 2 x 206.45
    assert grid((255, 300), 0.5, 256, 256, 0.5).shape == (0, 2)
    assert len(grid((300, 300), 0.5, 256, 8, 0.5)) == 36


def test_no_drift_at_the_far_end_of_a_large_slide() -> None:
    x = grid((100_000, 600), 0.2265, 256, 256, 0.5)[:, 0].max()
    step = 256 * 0.5 / 0.2265
    assert abs(x - round(x / step) * step) <= 0.5


whole_grids = st.tuples(
    st.integers(1, 100_000),
    st.floats(0.1, 2.0),
    st.floats(0.25, 2.0),  # so that a step is at least a pixel of level 0
    st.integers(32, 1024),
    st.floats(0.1, 1.0),
)


def _along_one_axis(
    extent: int, slide_mpp: float, mpp: float, tile_px: int, share: float
) -> tuple[np.ndarray, float, float]:
    """Starts of the tiles along x, and side and step in level-0 pixels."""
    stride_px = max(8, int(share * tile_px))
    high = int(np.ceil(tile_size0(slide_mpp, tile_px, mpp))) + 1  # one row of tiles
    coords = grid((extent, high), slide_mpp, tile_px, stride_px, mpp)
    starts = np.unique(coords[:, 0])
    return starts, tile_size0(slide_mpp, tile_px, mpp), stride_px * mpp / slide_mpp


@settings(deadline=None)
@given(whole_grids)
def test_tiles_cover_what_they_should(values: tuple[int, float, float, int, float]) -> None:
    extent = values[0]
    starts, side0, stride0 = _along_one_axis(*values)
    if len(starts) == 0:
        assert extent < side0 + 0.5
        return
    assert starts[0] == 0
    # No gaps: a tile begins at the latest where the one before it ends (to a pixel's rounding).
    assert (np.diff(starts) <= side0 + 1).all()
    assert starts[-1] + side0 <= extent + 1e-6  # never beyond the slide
    assert starts[-1] + side0 + stride0 > extent - 1  # and no further tile would have fitted


@settings(deadline=None)
@given(whole_grids.map(lambda values: (100_000, *values[1:])))
def test_coordinates_go_to_the_scale_of_the_tiles_and_back(
    values: tuple[int, float, float, int, float],
) -> None:
    starts, _, stride0 = _along_one_axis(*values)
    _, slide_mpp, mpp, tile_px, share = values
    number = np.arange(len(starts))
    at_scale = number * max(8, int(share * tile_px))  # pixels at the tiles' scale
    back = starts * slide_mpp / mpp
    assert np.abs(back - at_scale).max(initial=0) <= 0.5 * slide_mpp / mpp + 1e-6
    assert np.abs(starts - at_scale * mpp / slide_mpp).max(initial=0) <= 0.5 + 1e-6
    # The last tile is no further off than the first ones: nothing adds up.
    assert np.abs(starts - number * stride0).max(initial=0) <= 0.5 + 1e-6
