from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import simplejpeg
import tifffile
from jpeg_slides import JPEG, KINDS, offsets_of, picture_of, write_pyramid
from PIL import Image

from rayfed_hn.slides import jpeg_tiff
from rayfed_hn.slides.slide import Slide, open_slide

CMU = "slides/cmu-1-small-region.svs"
PHOTOMETRIC = {"rgb": 2}  # all others are YCbCr, 6


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("jpeg") / "plain.tiff")


def _both(path: Path) -> tuple[Slide, Slide]:
    return open_slide(path), open_slide(path, reader="openslide")


def _reader(path: Path, mpp: float | None = 0.25) -> str:
    with open_slide(path, mpp) as slide:
        slide.read(0, 0, (300, 300), slide.mpp)
        return slide.reader


def _assert_same(path: Path, level: int, downsample: int) -> None:
    fast, reference = _both(path)
    with fast, reference:
        assert (fast.reader, reference.reader) == ("jpeg-tiff", "openslide")
        assert fast.extent_px == reference.extent_px
        mpp = reference.level_mpp[level]
        right, bottom = fast.extent_px
        for x, y, width, height in (
            (0, 0, 256, 256), (0, 0, 240, 480), (36, 52, 130, 77), (400, 260, 260, 300),
            (-20, -30, 100, 100), (right - 60, bottom - 40, 90, 70), (right + 8, 0, 20, 20),
        ):  # fmt: skip
            corner = x - x % downsample, y - y % downsample
            found = fast.read(*corner, (width, height), mpp)
            np.testing.assert_array_equal(found, reference.read(*corner, (width, height), mpp))


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("tile", [240, 256, 512])
def test_native_levels_are_openslides_pixels(tmp_path: Path, kind: str, tile: int) -> None:
    path = write_pyramid(tmp_path / "a.tiff", kind=kind, tile=tile)
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.tags[262].value == PHOTOMETRIC.get(kind, 6)
    _assert_same(path, 0, 1)
    _assert_same(path, 1, 4)


def test_big_tiff(tmp_path: Path) -> None:
    _assert_same(write_pyramid(tmp_path / "a.tiff", bigtiff=True, steps=(1,)), 0, 1)


def test_tables_that_tiles_share(tmp_path: Path) -> None:
    picture = picture_of(512, 512)
    corners = [(x, y) for y in (0, 256) for x in (0, 256)]
    whole = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(picture[y : y + 256, x : x + 256]), 85)
        for x, y in corners
    ]
    first, frame = whole[0].find(b"\xff\xdb"), whole[0].find(b"\xff\xc0")
    scan, last = whole[0].find(b"\xff\xda"), whole[0].find(b"\xff\xc4")
    tables = b"\xff\xd8" + whole[0][first:frame] + whole[0][last:scan] + b"\xff\xd9"
    short = [b"\xff\xd8" + jpeg[frame:last] + jpeg[scan:] for jpeg in whole]
    path = tmp_path / "a.tiff"
    options: dict[str, Any] = {"jpegtables": tables, "subsampling": (1, 1)}
    tifffile.imwrite(
        *(path, iter(short)),
        shape=picture.shape,
        dtype=np.uint8,
        tile=(256, 256),
        **JPEG,
        **options,
    )
    fast, reference = open_slide(path, 0.25), open_slide(path, 0.25, "openslide")
    with fast, reference:
        assert fast.reader == "jpeg-tiff"
        found = fast.read(0, 0, (512, 512), 0.25)
        np.testing.assert_array_equal(found, reference.read(0, 0, (512, 512), 0.25))
    assert np.abs(found - picture.astype(int)).mean() < 4


def test_real_slide(real_data: Path) -> None:
    _assert_same(real_data / CMU, 0, 1)
    whole = openslide.OpenSlide(real_data / CMU)
    expected = np.asarray(whole.read_region((0, 0), 0, whole.dimensions).convert("RGB"))
    with open_slide(real_data / CMU) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, slide.extent_px, slide.mpp), expected)
        for mpp in (0.998, 1.996, 3.992, 1.2, 5.0):
            _assert_near_area_means(slide, expected, mpp)
    assert _reader(real_data / "slides/tcga-cr-7395-no-mpp.svs") == "openslide"  # JPEG 2000


def _assert_near_area_means(slide: Slide, level0: np.ndarray, mpp: float) -> None:
    """Against Pillow's exact box filter on the pixels of level 0."""
    ratio = mpp / slide.mpp
    size = int(640 / ratio), int(512 / ratio)
    box = (128, 64, 128 + size[0] * ratio, 64 + size[1] * ratio)
    area = Image.fromarray(level0).resize(size, Image.Resampling.BOX, box=box)
    found = slide.read(128, 64, size, mpp).astype(float)
    assert np.abs(found - np.asarray(area)).mean() <= 2.0, mpp


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("tile", [240, 256])
def test_scaled_reading_is_near_area_means(tmp_path: Path, kind: str, tile: int) -> None:
    path = write_pyramid(tmp_path / "a.tiff", kind=kind, tile=tile, steps=(1,))
    fast, reference = _both(path)
    with fast, reference:
        level0 = reference.read(0, 0, reference.extent_px, reference.mpp)
        for mpp in (0.5, 1.0, 2.0, 0.6, 1.3):
            _assert_near_area_means(fast, level0, mpp)


def test_levels_are_the_files_own_and_scaled_ones_between(tmp_path: Path, plain: Path) -> None:
    fast, reference = _both(plain)
    with fast, reference:
        assert len(reference.level_mpp) == 2
        assert fast.level_mpp == pytest.approx((0.25, 0.5, 1.0, 2.0, 4.0, 8.0))
        assert [fast.level_for(m) for m in (0.2, 0.49, 0.5, 0.9, 1.1, 2, 9)] == [
            0, 0, 1, 1, 2, 3, 5,
        ]  # fmt: skip
    tiny = write_pyramid(tmp_path / "tiny.tiff", size=(300, 6), steps=(1,), tile=16)
    with open_slide(tiny) as slide:
        assert slide.level_mpp == pytest.approx((0.25, 0.5, 1.0))  # 6 px have no eighth


def test_edges_of_scaled_levels_do_not_turn_white(tmp_path: Path) -> None:
    path = tmp_path / "even.tiff"
    even = np.full((528, 784, 3), 50, np.uint8)  # not whole tiles, but whole blocks of the JPEG
    tifffile.imwrite(path, even, tile=(256, 256), **JPEG)
    with open_slide(path, 0.25) as slide:
        assert slide.reader == "jpeg-tiff"
        for mpp in (0.25, 0.4, 0.5, 0.8, 1.0, 1.2):
            side0 = 100 * mpp / 0.25
            for x in (0, 784 - side0):
                for y in (0, 528 - side0):
                    found = slide.read(x, y, (100, 100), mpp).astype(int)
                    assert np.abs(found - 50).max() <= 2, (mpp, x, y)
        assert np.abs(slide.thumbnail(3.1).astype(int) - 50).max() <= 2


@pytest.mark.parametrize("mpp", [0.25, 0.33, 0.5, 1.0, 1.7])
@pytest.mark.parametrize("reader", ["auto", "openslide"])
def test_many_tiles_are_many_reads(plain: Path, mpp: float, reader: Any) -> None:
    coords_N2 = np.array([(0, 0), (256, 512), (31, 77), (900, 800), (-50, 10), (256, 512)])
    shared = np.zeros((8, 64, 64, 3), np.uint8)
    with open_slide(plain, reader=reader) as slide:
        slide.read_tiles(coords_N2, 64, mpp, shared[1:7])
        for (x, y), tile in zip(coords_N2, shared[1:7], strict=True):
            np.testing.assert_array_equal(tile, slide.read(x, y, (64, 64), mpp))
        assert not shared[[0, 7]].any()
        with pytest.raises(ValueError, match="need uint8"):
            slide.read_tiles(coords_N2, 64, mpp, shared)


def test_many_threads_read_the_same_as_one(plain: Path) -> None:
    coords_N2 = np.array([(x, y) for y in range(0, 800, 50) for x in range(0, 1000, 50)])
    for mpp in (0.25, 0.5, 0.6):
        one = np.empty((len(coords_N2), 96, 96, 3), np.uint8)
        many = np.empty_like(one)
        with open_slide(plain) as slide:
            slide.read_tiles(coords_N2, 96, mpp, one)
        with open_slide(plain) as slide, ThreadPoolExecutor(8) as pool:
            shuffled = np.random.default_rng(0).permutation(len(coords_N2))
            jobs = [
                pool.submit(slide.read_tiles, coords_N2[i : i + 1], 96, mpp, many[i : i + 1])
                for i in shuffled
            ]
            for job in jobs:
                job.result()
        np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize(
    ("side", "stride", "most"), [(256, 256, 1), (240, 240, 1), (512, 512, 1), (256, 128, 2)]
)
def test_tiles_are_decoded_about_once(
    plain: Path, monkeypatch: pytest.MonkeyPatch, side: int, stride: int, most: int
) -> None:
    decoded: list[bytes] = []
    decode = jpeg_tiff.decode

    def spy(jpeg: bytes, factor: int, out_HW3: np.ndarray) -> None:
        decoded.append(jpeg)
        decode(jpeg, factor, out_HW3)

    monkeypatch.setattr(jpeg_tiff, "decode", spy)
    with open_slide(plain) as slide:
        for y in range(0, 768 - side + 1, stride):
            for x in range(0, 1024 - side + 1, stride):
                slide.read(x, y, (side, side), slide.mpp)
    assert max(decoded.count(jpeg) for jpeg in set(decoded)) <= most


def test_label_and_macro_are_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tiff"
    with tifffile.TiffWriter(path) as file:
        file.write(picture_of(700, 600), tile=(256, 256), **JPEG)
        file.write(picture_of(400, 300), **JPEG)  # in strips, as labels are
        file.write(picture_of(512, 256), tile=(256, 256), **JPEG)  # tiled, and no level
    with tifffile.TiffFile(path) as file:
        first, *others = file.pages
        own = set(first.dataoffsets)
        foreign = {offset for page in others for offset in page.dataoffsets}
    read: set[int] = set()
    pread = os.pread

    def spy(descriptor: int, length: int, offset: int) -> bytes:
        read.add(offset)
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", spy)
    with open_slide(path, 0.25) as slide:
        assert slide.reader == "jpeg-tiff"
        slide.thumbnail(0.5)
        slide.read(0, 0, slide.extent_px, 0.25)
    assert own <= read
    assert not foreign & read


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "adobe_deflate", "compressionargs": None, "subsampling": None},
        {"compression": None, "compressionargs": None, "subsampling": None},
        {"planarconfig": "separate"},
    ],
)
def test_what_is_not_understood_is_openslides(tmp_path: Path, options: dict[str, Any]) -> None:
    if "planarconfig" in options:
        path = tmp_path / "a.tiff"
        planes = np.moveaxis(picture_of(600, 500), 2, 0)
        tifffile.imwrite(
            path, planes, tile=(256, 256), compression="jpeg", photometric="rgb", **options
        )
    else:
        path = write_pyramid(tmp_path / "a.tiff", kind="rgb", **options)
    assert _reader(path) == "openslide"


def test_grey_and_ambiguous_levels_are_openslides(tmp_path: Path) -> None:
    grey = tmp_path / "grey.tiff"
    tifffile.imwrite(grey, picture_of(600, 500)[..., 0], tile=(256, 256), compression="jpeg")
    assert _reader(grey) == "openslide"
    twice = write_pyramid(tmp_path / "twice.tiff", steps=(1, 1), size=(600, 500))
    assert _reader(twice) == "openslide"


def test_tiles_that_were_never_written_are_white(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tiff")
    for page in (0, 1):
        at, width, _, _ = offsets_of(path, page)
        data = bytearray(path.read_bytes())
        data[at + width : at + 2 * width] = bytes(width)  # the second tile of its level
        path.write_bytes(data)
    _assert_same(path, 0, 1)
    _assert_same(path, 1, 4)
    with open_slide(path) as slide:
        assert slide.reader == "jpeg-tiff"
        assert (slide.read(256, 0, (256, 256), 0.25) == 255).all()
        assert (slide.read(256, 0, (128, 128), 0.5) == 255).all()
        assert (slide.read(250, 0, (256, 256), 0.25)[:, :6] < 255).any()


def test_gaps_in_an_aperio_pyramid_are_openslides(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.svs", description="Aperio Image Library v1|MPP = 0.25")
    assert _reader(path, None) == "jpeg-tiff"
    at, width, _, _ = offsets_of(path, 1)
    data = bytearray(path.read_bytes())
    data[at + width : at + 2 * width] = bytes(width)
    path.write_bytes(data)
    assert _reader(path, None) == "openslide"
