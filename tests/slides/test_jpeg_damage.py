from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jpeg_slides import offsets_of, write_pyramid

from rayfed_hn.errors import SetAside
from rayfed_hn.slides.slide import open_slide


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("jpeg") / "plain.tiff")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_tile_that_is_cut_short_is_not_grey(plain: Path, tmp_path: Path, share: float) -> None:
    _, _, offsets, counts = offsets_of(plain, 0)
    data = bytearray(plain.read_bytes())
    kept = int(share * counts[1])
    data[offsets[1] + kept : offsets[1] + counts[1]] = bytes(counts[1] - kept)
    path = tmp_path / "a.tiff"
    path.write_bytes(data)
    with open_slide(path) as slide:
        assert slide.reader == "jpeg-tiff"
        slide.read(0, 0, (256, 256), 0.25)
        for mpp in (0.25, 0.5):
            with pytest.raises(SetAside, match="damaged"):
                slide.read(256, 0, (100, 100), mpp)


@pytest.mark.parametrize("sides", [(512, 512), (128, 256), (65500, 65500)])
def test_a_tile_of_another_size_is_damage(
    plain: Path, tmp_path: Path, sides: tuple[int, int]
) -> None:
    _, _, offsets, counts = offsets_of(plain, 0)
    data = bytearray(plain.read_bytes())
    frame = data.find(b"\xff\xc0", offsets[5], offsets[5] + counts[5])
    data[frame + 5 : frame + 9] = np.array(sides, ">u2").tobytes()
    path = tmp_path / "a.tiff"
    path.write_bytes(data)
    with open_slide(path) as slide:
        assert slide.reader == "jpeg-tiff"
        for mpp in (0.25, 0.5, 1.9):
            with pytest.raises(SetAside, match="damaged"):
                slide.thumbnail(mpp) if mpp < 0.5 else slide.read(0, 256, (90, 90), 0.5)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
    st.booleans(),
)
def test_damaged_bytes_give_pixels_or_a_reason(
    plain: Path, tmp_path: Path, edits: list[tuple[float, int]], in_header: bool
) -> None:
    data = bytearray(plain.read_bytes())
    with tifffile.TiffFile(plain) as file:
        heads = [page.offset for page in file.pages]
    for place, value in edits:
        at = heads[int(place * 1.99)] + int(place * 250) if in_header else int(place * len(data))
        data[min(at, len(data) - 1)] = value
    path = tmp_path / "damaged.tiff"
    path.write_bytes(data)
    with contextlib.suppress(SetAside), open_slide(path, 0.25) as slide:
        slide.thumbnail(8.0)
        assert slide.read(100, 100, (64, 64), 0.3).shape == (64, 64, 3)
