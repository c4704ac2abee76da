from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from PIL import Image

from rayfed_hn.errors import SetAside
from rayfed_hn.slides import user_mask
from rayfed_hn.slides.user_mask import _inside, read_user_mask, user_mask_digest

EXTENT, SHAPE = (1200, 800), (80, 120)  # a pixel of the mask is 10 x 10 of the slide


def _box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def _feature(geometry: dict | None, name: str | None = None, **properties: Any) -> dict:
    if name is not None:
        properties["classification"] = {"name": name, "color": [1, 2, 3]}
    return {"type": "Feature", "id": "x", "geometry": geometry, "properties": properties}


def _polygon(*rings: list[list[float]]) -> dict:
    return {"type": "Polygon", "coordinates": list(rings)}


def _write(folder: Path, content: Any) -> Path:
    path = folder / "mask.geojson"
    path.write_text(json.dumps(content))
    return path


def _expected(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, np.bool_)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


OUTER, HOLE = _box(100, 200, 500, 600), _box(200, 300, 300, 400)


@pytest.mark.parametrize("wrap", ["collection", "list", "feature", "geometry", "geometries"])
def test_every_wrapping_gives_the_same_mask(tmp_path: Path, wrap: str) -> None:
    geometry = _polygon(OUTER)
    content = {
        "collection": {"type": "FeatureCollection", "features": [_feature(geometry)]},
        "list": [_feature(geometry, "Tumor", objectType="annotation")],
        "feature": _feature(geometry),
        "geometry": geometry,
        "geometries": _feature({"type": "GeometryCollection", "geometries": [geometry]}),
    }[wrap]
    found = read_user_mask(_write(tmp_path, content), EXTENT, SHAPE)
    np.testing.assert_array_equal(found, _expected((10, 20, 50, 60)))
    assert found.dtype == np.bool_


def test_holes_are_left_out_and_may_hold_another_polygon(tmp_path: Path) -> None:
    expected = _expected((10, 20, 50, 60))
    expected[30:40, 20:30] = False
    found = read_user_mask(_write(tmp_path, _polygon(OUTER, HOLE)), EXTENT, SHAPE)
    np.testing.assert_array_equal(found, expected)
    island = [_feature(_polygon(OUTER, HOLE)), _feature(_polygon(_box(230, 330, 270, 370)))]
    expected[33:37, 23:27] = True
    found = read_user_mask(_write(tmp_path, island), EXTENT, SHAPE)
    np.testing.assert_array_equal(found, expected)


def test_polygons_that_overlap_are_united(tmp_path: Path) -> None:
    boxes = [_box(0, 0, 400, 400), _box(200, 200, 600, 600)]
    several = {"type": "MultiPolygon", "coordinates": [[box] for box in boxes]}
    apart = [_feature(_polygon(box)) for box in boxes]
    expected = _expected((0, 0, 40, 40), (20, 20, 60, 60))
    for content in (several, apart):
        found = read_user_mask(_write(tmp_path, content), EXTENT, SHAPE)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["Ignore*", "ignored fold", "Artefact*", "Tumor: Ignore*"])
@pytest.mark.parametrize("first", [True, False])
def test_ignored_annotations_are_cut_out(tmp_path: Path, name: str, first: bool) -> None:
    features = [_feature(_polygon(HOLE), name), _feature(_polygon(OUTER), "Tissue")]
    content = features if first else features[::-1]
    expected = _expected((10, 20, 50, 60))
    expected[30:40, 20:30] = False
    found = read_user_mask(_write(tmp_path, content), EXTENT, SHAPE)
    np.testing.assert_array_equal(found, expected)
    listed = _feature(_polygon(HOLE), classification={"names": name.split(": ")})
    found = read_user_mask(_write(tmp_path, [listed, features[1]]), EXTENT, SHAPE)
    np.testing.assert_array_equal(found, expected)


def test_what_has_no_area_or_is_a_cell_does_not_count(tmp_path: Path) -> None:
    content = [
        _feature(_polygon(OUTER), "Region*"),
        _feature(_polygon(_box(600, 0, 1200, 800)), objectType="cell"),
        _feature({"type": "Point", "coordinates": [900, 100]}),
        _feature({"type": "LineString", "coordinates": [[900, 100], [1000, 700]]}),
        _feature(_polygon()),
        _feature(_polygon([])),
        _feature(None),
    ]
    found = read_user_mask(_write(tmp_path, content), EXTENT, SHAPE)
    np.testing.assert_array_equal(found, _expected((10, 20, 50, 60)))


def test_a_hand_may_slip_over_the_edge_a_little(tmp_path: Path) -> None:
    content = _polygon(_box(-30, -20, 500, 820))
    found = read_user_mask(_write(tmp_path, content), EXTENT, SHAPE)
    np.testing.assert_array_equal(found, _expected((0, 0, 50, 80)))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.integers(1, 30), st.integers(1, 30))
def test_rasterising_equals_asking_for_every_pixel(
    seed: int, corners: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    ring = rng.uniform(-0.3, 1.3, (corners, 2)) * (width, height)  # crosses itself and the frame
    edges = np.stack([ring, np.roll(ring, -1, axis=0)], axis=1)
    y, x = np.mgrid[:height, :width] + 0.5
    asked = Outline(np.concatenate([ring, ring[:1]]), closed=True)
    expected = asked.contains_points(np.stack([x.ravel(), y.ravel()], axis=1))
    np.testing.assert_array_equal(_inside(edges, (height, width)).ravel(), expected)


def test_many_sides_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = np.random.default_rng(3).uniform(0, 200, (300, 2))
    edges = np.stack([ring, np.roll(ring, -1, axis=0)], axis=1)
    whole = _inside(edges, (200, 200))
    monkeypatch.setattr(user_mask, "CROSSINGS_AT_ONCE", 500)
    np.testing.assert_array_equal(_inside(edges, (200, 200)), whole)
    monkeypatch.setattr(user_mask, "MAX_CROSSINGS", 1000)
    with pytest.raises(SetAside, match="intricate"):
        _inside(edges, (200, 200))


_FEATURES = '{"type": "FeatureCollection", "features": ['


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not readable"),
        ("\x00\x01", "not readable"),
        ("{", "not readable"),
        ("[" * 100_000, "not readable"),
        ("3", "not GeoJSON"),
        ('"Polygon"', "not GeoJSON"),
        ('{"type": "Polygon"}', "not GeoJSON"),
        ('{"type": "Polygon", "coordinates": [[1, 2, 3]]}', "not GeoJSON"),
        ('{"type": "Polygon", "coordinates": [[[1], [2], [3]]]}', "corners"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [2], [3, 4]]]}', "not readable"),
        ('{"type": "Polygon", "coordinates": [[[1, NaN], [2, 3], [3, 4]]]}', "corners"),
        ('{"type": "Polygon", "coordinates": [[[1, 1e999], [2, 3], [3, 4]]]}', "corners"),
        ('{"type": "Polygon", "coordinates": [[[1, "x"], [2, 3], [3, 4]]]}', "not readable"),
        (f'{{"type": "Polygon", "coordinates": [[[{"9" * 400}, 1]]]}}', "not GeoJSON"),
        (_FEATURES + "]}", "no polygon"),
        (_FEATURES + '{"type": "Feature", "properties": null, "geometry": null}]}', "no polygon"),
        (json.dumps(_feature(_polygon(OUTER), "Ignore*")), "no polygon"),
        (json.dumps(_polygon(_box(0, 0, 5000, 400))), "3800 pixels beyond"),
        (json.dumps(_polygon(_box(-1e300, 0, 50, 40))), "beyond"),
        (json.dumps(_polygon(_box(1, 1, 2, 2))), "marks no tissue"),
        (json.dumps(_polygon([[5, 5], [500, 500]])), "marks no tissue"),
    ],
)
def test_bad_geojson_is_set_aside(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "mask.geojson"
    path.write_text(text)
    with pytest.raises(SetAside, match=reason) as caught:
        read_user_mask(path, EXTENT, SHAPE)
    assert caught.value.remedy


def test_geojson_above_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "mask.json"
    path.touch()
    os.truncate(path, user_mask.MAX_JSON_BYTES + 1)  # a file of holes: takes no space
    with pytest.raises(SetAside, match="larger than"):
        read_user_mask(path, EXTENT, SHAPE)


def _drawn(factor: int) -> np.ndarray:
    """The result's blobs, ``factor`` times as large."""
    blobs = np.random.default_rng(4).random(SHAPE) < 0.3
    return blobs.repeat(factor, 0).repeat(factor, 1)


@pytest.mark.parametrize("kind", ["bool", "uint8", "palette", "rgb", "rgba", "uint16"])
@pytest.mark.parametrize("factor", [1, 2, 5])
def test_a_png_of_any_kind_and_size_gives_the_same_mask(
    tmp_path: Path, kind: str, factor: int
) -> None:
    drawn, path = _drawn(factor), tmp_path / "mask.png"
    if kind == "palette":
        picture = Image.fromarray(drawn.astype(np.uint8)).convert("P")
        picture.putpalette([0, 0, 0, 10, 200, 10])
    elif kind == "rgba":
        every = np.full((*drawn.shape, 4), 90, np.uint8)
        every[..., 3] = drawn * 255
        picture = Image.fromarray(every)
    elif kind == "rgb":
        picture = Image.fromarray(drawn[..., None] * np.array([0, 0, 7], np.uint8))
    else:
        picture = Image.fromarray(drawn if kind == "bool" else drawn.astype(kind))
    picture.save(path)
    np.testing.assert_array_equal(read_user_mask(path, EXTENT, SHAPE), _drawn(1))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "bool"])
def test_a_tiff_gives_the_same_mask(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "mask.tiff"
    tifffile.imwrite(path, _drawn(4).astype(dtype), tile=(64, 64), compression="adobe_deflate")
    np.testing.assert_array_equal(read_user_mask(path, EXTENT, SHAPE), _drawn(1))


def test_a_pyramid_is_read_at_the_coarsest_level_that_is_fine_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mask.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((640, 960), np.uint8), tile=(64, 64), subifds=3)
        for picture in (_drawn(4), _drawn(2), _drawn(1)[::2, ::2]):
            file.write(picture.astype(np.uint8), tile=(64, 64), subfiletype=1)
    np.testing.assert_array_equal(read_user_mask(path, EXTENT, SHAPE), _drawn(1))
    monkeypatch.setattr(user_mask, "MAX_PICTURE_BYTES", 160 * 240)  # its other levels are larger
    np.testing.assert_array_equal(read_user_mask(path, EXTENT, SHAPE), _drawn(1))
    monkeypatch.setattr(user_mask, "MAX_PICTURE_BYTES", 160 * 240 - 1)
    with pytest.raises(SetAside, match="very large"):
        read_user_mask(path, EXTENT, SHAPE)


def test_half_a_pixel_decides(tmp_path: Path) -> None:
    fine = np.zeros((160, 240), np.uint8)
    fine[::2, ::2] = 1  # a quarter of every pixel
    fine[:80, 1::2] = 1  # and above more than half
    Image.fromarray(fine).save(tmp_path / "mask.png")
    expected = _expected((0, 0, 120, 40))
    found = read_user_mask(tmp_path / "mask.png", EXTENT, SHAPE)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("width", "fits"), [(600, True), (609, True), (620, False), (580, False)])
def test_a_picture_must_have_the_slides_shape(
    tmp_path: Path, suffix: str, width: int, fits: bool
) -> None:
    path = tmp_path / f"mask{suffix}"
    picture = np.ones((400, width), np.uint8)
    Image.fromarray(picture).save(path)
    if fits:
        assert read_user_mask(path, EXTENT, SHAPE).all()
        return
    with pytest.raises(SetAside, match="another shape"):
        read_user_mask(path, EXTENT, SHAPE)


def _absurd_png() -> bytes:
    """The head of a PNG of 120,000 x 80,000 pixels."""
    head = struct.pack(">IIBBBBB", 120_000, 80_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))))
    packed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("mask.png", b"", "cannot be read"),
        ("mask.png", b"\x89PNG\r\n\x1a\nnothing", "cannot be read"),
        ("mask.png", _absurd_png(), "absurdly large"),
        ("mask.tif", b"", "cannot be read"),
        ("mask.tif", b"II*\x00\xff\xff\xff\x7f", "cannot be read"),
        ("mask.TIFF", b"<html>", "cannot be read"),
        ("mask.svg", b"<svg/>", r"unknown kind \(.svg\)"),
        ("mask", b"", "no suffix"),
    ],
)
def test_bad_pictures_are_set_aside(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SetAside, match=reason):
        read_user_mask(tmp_path / name, EXTENT, SHAPE)


def test_a_damaged_tiff_is_set_aside_or_read(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, _drawn(2).astype(np.uint8), tile=(64, 64), compression="adobe_deflate")
    whole = path.read_bytes()
    rng = np.random.default_rng(9)
    set_aside = 0
    for _ in range(40):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 12):
            damaged[place] ^= 1 << rng.integers(0, 8)
        path.write_bytes(damaged[: rng.integers(1, len(whole) + 1)])
        try:
            assert read_user_mask(path, EXTENT, SHAPE).shape == SHAPE
        except SetAside:
            set_aside += 1
    assert set_aside > 20


@pytest.mark.parametrize("name", ["none.geojson", "none.png"])
def test_a_missing_mask_is_set_aside(tmp_path: Path, name: str) -> None:
    with pytest.raises(SetAside, match="missing"):
        read_user_mask(tmp_path / name, EXTENT, SHAPE)
    os.mkfifo(tmp_path / name)  # would never answer
    with pytest.raises(SetAside, match="missing"):
        read_user_mask(tmp_path / name, EXTENT, SHAPE)
    with pytest.raises(SetAside, match="missing"):
        user_mask_digest(tmp_path / name)


def test_digest_is_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    content = bytearray(300_000)
    path.write_bytes(content)
    assert user_mask_digest(path) == hashlib.sha256(content).hexdigest()
    content[150_000] = 1
    path.write_bytes(content)
    assert user_mask_digest(path) == hashlib.sha256(content).hexdigest()
