from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from skimage.data import astronaut

from rayfed_hn.errors import SetAside
from rayfed_hn.slides.openslide_source import on_white
from rayfed_hn.slides.slide import open_slide

CMU = "slides/cmu-1-small-region.svs"


def _pyramid(path: Path, levels: int = 3, mpp: float | None = 0.25) -> np.ndarray:
    """Write a lossless tiled pyramid of area means; returns level 0 (1024 x 1536)."""
    picture = np.tile(astronaut(), (2, 3, 1))
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            step = 2**level
            area = picture.reshape(1024 // step, step, 1536 // step, step, 3).mean((1, 3))
            density = None if mpp is None else (1e4 / mpp / step, 1e4 / mpp / step)
            file.write(
                area.round().astype(np.uint8),
                tile=(256, 256),
                photometric="rgb",
                compression="adobe_deflate",
                subfiletype=int(level > 0),
                resolution=density,
                resolutionunit="CENTIMETER" if mpp else None,
            )
    return picture


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("slide") / "pyramid.tiff"
    return path, _pyramid(path)


def _area(picture: np.ndarray, step: int) -> np.ndarray:
    height, width, _ = picture.shape
    return picture.reshape(height // step, step, width // step, step, 3).mean((1, 3))


def test_native_scale_is_openslides_pixels(real_data: Path) -> None:
    reference = openslide.OpenSlide(real_data / CMU)
    expected = np.asarray(reference.read_region((301, 402), 0, (256, 200)).convert("RGB"))
    with open_slide(real_data / CMU) as slide:
        assert slide.mpp == pytest.approx(0.499)
        found = slide.read(301, 402, (256, 200), slide.mpp)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_levels_read_at_their_own_scale_are_untouched(pyramid: tuple[Path, np.ndarray]) -> None:
    path, picture = pyramid
    with open_slide(path) as slide:
        assert [slide.level_for(m) for m in (0.1, 0.25, 0.49, 0.5, 0.9, 1, 8)] == [
            0, 0, 0, 1, 1, 2, 2,
        ]  # fmt: skip
        for level, mpp in enumerate((0.25, 0.5, 1.0)):
            found = slide.read(128, 256, (100, 100), mpp)
            y, x, step = 256 >> level, 128 >> level, 2**level
            expected = _area(picture, step).round()[y : y + 100, x : x + 100]
            np.testing.assert_array_equal(found, expected)


def test_scaled_reading_is_close_to_area_means_of_level_0(
    pyramid: tuple[Path, np.ndarray],
) -> None:
    path, picture = pyramid
    fine = picture[100:868, 100:868].astype(float)
    for step in (2, 3, 4, 6):
        with open_slide(path) as slide:
            found = slide.read(100, 100, (768 // step, 768 // step), 0.25 * step)
        assert np.abs(found - _area(fine, step)).mean() < 2.5


def test_one_large_window_equals_many_small_ones(pyramid: tuple[Path, np.ndarray]) -> None:
    path, _ = pyramid
    for mpp in (0.2, 0.25, 0.4, 0.5, 0.75):
        side0 = 100 * mpp / 0.25  # whole level-0 pixels for all of these
        with open_slide(path) as slide:
            large = slide.read(0, 0, (300, 200), mpp).astype(int)
            for i in range(6):
                x, y = i % 3, i // 3
                small = slide.read(x * side0, y * side0, (100, 100), mpp)
                part = large[100 * y : 100 * y + 100, 100 * x : 100 * x + 100]
                assert np.abs(part - small).max() <= 1


def test_edges_do_not_turn_white(tmp_path: Path) -> None:
    path = tmp_path / "even.tiff"
    even = np.full((515, 771, 3), 50, np.uint8)  # not a whole number of tiles
    with tifffile.TiffWriter(path) as file:
        for level, picture in enumerate((even, even[:257, :385])):
            file.write(picture, tile=(256, 256), photometric="rgb", subfiletype=min(level, 1))
    with open_slide(path, 0.25) as slide:
        assert len(slide.level_mpp) == 2
        for mpp in (0.2, 0.25, 0.4, 0.5, 0.8):
            side0 = 100 * mpp / 0.25
            for x in (0, 771 - side0):
                for y in (0, 515 - side0):
                    found = slide.read(x, y, (100, 100), mpp).astype(int)
                    # One grey level: OpenSlide blends where a level is no whole fraction.
                    assert np.abs(found - 50).max() <= 1, (mpp, x, y)
        assert (slide.thumbnail(3.1) == 50).all()


def test_outside_and_transparent_is_white(pyramid: tuple[Path, np.ndarray]) -> None:
    with open_slide(pyramid[0]) as slide:
        assert (slide.read(2000, 2000, (32, 32), 0.25) == 255).all()
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert (np.asarray(on_white(clear)) == 255).all()
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert np.asarray(on_white(half)).mean() == pytest.approx(127, abs=1)


def test_thumbnail_is_the_same_in_blocks_and_at_once(
    pyramid: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, picture = pyramid
    with open_slide(path) as slide:
        whole = slide.thumbnail(8.0)
        monkeypatch.setattr("rayfed_hn.slides.slide.BLOCK_PX", 70)
        blocks = slide.thumbnail(8.0)
    assert whole.shape == (32, 48, 3)
    assert np.abs(whole - _area(picture, 32)).mean() < 1.5
    np.testing.assert_array_equal(whole, blocks)


def test_threads_share_a_slide(real_data: Path) -> None:
    corners = [(x, y) for y in range(0, 2400, 400) for x in range(0, 1800, 300)]
    with open_slide(real_data / CMU) as slide, ThreadPoolExecutor(4) as pool:
        one = [slide.read(x, y, (128, 128), 0.6) for x, y in corners]
        two = list(pool.map(lambda c: slide.read(c[0], c[1], (128, 128), 0.6), corners))
    np.testing.assert_array_equal(one, two)


def _reason(path: Path, mpp: float | None = None) -> str:
    with pytest.raises(SetAside) as error:
        open_slide(path, mpp).read(0, 0, (8, 8), 1.0)
    assert path.name not in str(error.value)
    assert error.value.remedy
    return error.value.reason


def test_scale_that_is_missing_is_asked_for(real_data: Path) -> None:
    path = real_data / "slides/tcga-cr-7395-no-mpp.svs"
    assert _reason(path).startswith("states no scale")
    with open_slide(path, 0.25) as slide:
        assert slide.mpp == 0.25


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.9, 0.999])
def test_truncated_svs(real_data: Path, tmp_path: Path, share: float) -> None:
    data = (real_data / CMU).read_bytes()
    path = tmp_path / "cut.svs"
    path.write_bytes(data[: int(share * len(data))])
    assert "truncated" in _reason(path)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
@pytest.mark.parametrize("big", [False, True])
def test_truncated_tiff_whose_directory_comes_first(
    tmp_path: Path, share: float, big: bool
) -> None:
    path = tmp_path / "whole.tiff"
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    tifffile.imwrite(path, noise, tile=(256, 256), photometric="rgb", bigtiff=big)
    open_slide(path, 0.5).close()
    data = path.read_bytes()
    cut = tmp_path / "cut.tiff"
    cut.write_bytes(data[: int(share * len(data))])
    assert "truncated" in _reason(cut, 0.5)


def test_what_is_no_slide(tmp_path: Path) -> None:
    for name, content in (("text.svs", b"hello\n" * 99), ("empty.svs", b""), ("ii.svs", b"II")):
        path = tmp_path / name
        path.write_bytes(content)
        assert "is no slide that OpenSlide can read" in _reason(path)
    assert "missing" in _reason(tmp_path / "none.svs")


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({256: 4_000_000_000, 257: 4_000_000_000}, "more tiles than it lists"),
        ({256: 2**31, 257: 2**31, 322: 2**31, 323: 2**31}, "tiles that are far too large"),
        ({256: 0}, "is"),
    ],
)
@pytest.mark.parametrize("compression", ["adobe_deflate", "jpeg"])
def test_headers_that_claim_the_impossible(
    tmp_path: Path, tags: dict[int, int], reason: str, compression: str
) -> None:
    path = tmp_path / "a.tiff"
    picture = np.zeros((512, 512, 3), np.uint8)
    tifffile.imwrite(
        *(path, picture), tile=(256, 256), photometric="rgb", compression=compression, bigtiff=True
    )
    with tifffile.TiffFile(path) as file:
        head = file.pages.first.offset
    data = bytearray(path.read_bytes())
    for i in range(struct.unpack_from("<Q", data, head)[0]):
        at = head + 8 + 20 * i
        if (number := struct.unpack_from("<H", data, at)[0]) in tags:
            struct.pack_into("<HQQ", data, at + 2, 4, 1, tags[number])
    path.write_bytes(data)
    assert reason in _reason(path, 0.25)


def test_a_tile_that_cannot_be_decoded_ends_the_slide(tmp_path: Path) -> None:
    path = tmp_path / "p.tiff"
    _pyramid(path)
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + 64] = bytes(64)
    path.write_bytes(data)
    with open_slide(path) as slide:
        with pytest.raises(SetAside, match="damaged"):
            slide.read(0, 0, (64, 64), 0.25)
        with pytest.raises(SetAside, match="damaged"):  # the handle is dead, also elsewhere
            slide.read(800, 800, (64, 64), 0.25)
