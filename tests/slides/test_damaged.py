"""Two hundred damaged inputs: each has a bag or a reason, and none ends or stops the reader.

A flipped bit in a picture may only change a colour, so such a slide may be read; everything else
must be set aside. What is said must never be that the reader hung.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from rayfed_hn.bags import store
from rayfed_hn.config import EmbedConfig, LimitsConfig
from rayfed_hn.errors import SetAside
from rayfed_hn.slides.embedding import source_of
from rayfed_hn.slides.isolation import IsolatedReader
from rayfed_hn.slides.manifest import SlideRecord

CONFIG = EmbedConfig(tile_px=64, limits=LimitsConfig(stall_seconds=60, memory_mib=2048))
FRACTIONS = (0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
FEATURES = (".h5", ".pt")


def _picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(90, 220, (32, 40, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    picture[:, :, 1] //= 2
    return picture


def _tiff(compression: str) -> bytes:
    data = io.BytesIO()
    with tifffile.TiffWriter(data) as tiff:
        common = {"tile": (128, 128), "photometric": "rgb", "compression": compression}
        tiff.write(_picture(), **common)
        tiff.write(_picture()[::2, ::2], subfiletype=1, **common)
    return data.getvalue()


def _h5() -> bytes:
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file["features"] = np.random.default_rng(0).random((40, 8), np.float32)
        file["coords"] = np.zeros((40, 2), np.int64)
    return data.getvalue()


def _pt() -> bytes:
    data = io.BytesIO()
    torch.save(torch.rand(40, 8, generator=torch.Generator().manual_seed(0)), data)
    return data.getvalue()


def _png() -> bytes:
    data = io.BytesIO()
    Image.fromarray(_picture()).save(data, "PNG")
    return data.getvalue()


GOOD: dict[str, Callable[[], bytes]] = {
    "jpeg.tiff": lambda: _tiff("jpeg"),
    "deflate.tiff": lambda: _tiff("adobe_deflate"),
    "picture.png": _png,
    "features.h5": _h5,
    "features.pt": _pt,
}


def _truncated() -> Iterator[tuple[str, bytes]]:
    for name, make in GOOD.items():
        data = make()
        for fraction in FRACTIONS:
            yield f"cut-{fraction}-{name}", data[: int(fraction * len(data))]


def _flipped() -> Iterator[tuple[str, bytes]]:
    for name, make in GOOD.items():
        for seed in range(20):
            rng = np.random.default_rng(seed)
            data = bytearray(make())
            # Half of them in the beginning and the end, where the structure is.
            ends = np.r_[0:600, len(data) - 600 : len(data)]
            places = rng.choice(ends if seed % 2 else len(data), 1 + seed)
            for place in places:
                data[place] ^= 1 << int(rng.integers(8))
            yield f"flip-{seed}-{name}", bytes(data)


def _wrong_type() -> Iterator[tuple[str, bytes]]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../evil", "x")
    contents = {
        "text": b"no slide",
        "latin": "nicht lesbar: \xfc\xf6".encode("latin-1"),
        "nul": bytes(4096),
        "zip": archive.getvalue(),
        "elf": b"\x7fELF" + bytes(500),
        "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x8c\x06system\x93.",
        "tiff header": b"II*\x00\xff\xff\xff\xff",
    }
    for what, data in contents.items():
        for suffix in (".svs", ".tiff", ".png", *FEATURES):
            yield f"{what}{suffix}", data


def _absurd() -> Iterator[tuple[str, bytes]]:
    """TIFF tags with values that no slide has."""
    tags = {256: "width", 257: "height", 322: "tile width", 323: "tile height", 258: "bits"}
    tags |= {277: "samples", 259: "compression", 262: "photometric", 324: "offsets", 325: "counts"}
    for name in ("jpeg.tiff", "deflate.tiff"):
        for tag, what in tags.items():
            for value in (0, 1, 2**31 - 1, 2**32 - 1):
                yield f"{what}={value}-{name}", _patched(GOOD[name](), tag, value)


def _patched(data: bytes, tag: int, value: int) -> bytes:
    changed = bytearray(data)
    start = struct.unpack("<I", data[4:8])[0]
    for i in range(struct.unpack("<H", data[start : start + 2])[0]):
        at = start + 2 + 12 * i
        if struct.unpack("<H", data[at : at + 2])[0] == tag:
            changed[at + 2 : at + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(changed)


MUST_FAIL = [*_truncated(), *_wrong_type()]
MAY_WORK = [*_flipped(), *_absurd()]


def test_there_are_two_hundred() -> None:
    assert len(MUST_FAIL) + len(MAY_WORK) >= 200


@pytest.fixture(scope="module")
def reader() -> Iterator[IsolatedReader]:
    reader = IsolatedReader(CONFIG)
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store") / "bags"
    store.create(root, {"feature_dim": 8})
    return root


def _attempt(reader: IsolatedReader, root: Path, path: Path, mask: Path | None = None) -> int:
    record = SlideRecord("a", path, "c", "north", "x", mpp=0.5, mask=mask)
    if path.suffix in FEATURES:
        unscaled = replace(record, mpp=None)
        return reader.import_features(unscaled, source_of(unscaled), root)
    with reader.open_reading(record, source_of(record)) as reading:
        return sum(len(batch.tiles_NHW3) for batch in reading)


def _expect_reason(reader: IsolatedReader, root: Path, path: Path, mask: Path | None = None) -> str:
    with pytest.raises(SetAside) as caught:
        _attempt(reader, root, path, mask)
    assert caught.value.reason
    assert caught.value.remedy
    assert "yielded nothing" not in caught.value.reason
    assert str(path) not in caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize("name", GOOD)
def test_the_undamaged_ones_are_read(
    reader: IsolatedReader, root: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(GOOD[name]())
    assert _attempt(reader, root, tmp_path / name) >= 40


def test_damage_that_must_be_seen(reader: IsolatedReader, root: Path, tmp_path: Path) -> None:
    for name, data in MUST_FAIL:
        (tmp_path / name).write_bytes(data)
        _expect_reason(reader, root, tmp_path / name)


def test_damage_that_may_leave_a_slide(reader: IsolatedReader, root: Path, tmp_path: Path) -> None:
    read, refused = 0, list[SetAside]()
    for name, data in MAY_WORK:
        (tmp_path / name).write_bytes(data)
        try:
            assert _attempt(reader, root, tmp_path / name) > 0
            read += 1
        except SetAside as error:
            refused.append(error)
    assert read + len(refused) == len(MAY_WORK)
    assert read > 0 < len(refused)
    assert all(error.remedy and "yielded nothing" not in error.reason for error in refused)


def test_what_is_no_file(reader: IsolatedReader, root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.svs")
    (tmp_path / "folder.svs").mkdir()
    (tmp_path / "loop.svs").symlink_to(tmp_path / "loop.svs")
    (tmp_path / "none.svs").symlink_to(tmp_path / "gone")
    for path in sorted(tmp_path.iterdir()):
        _expect_reason(reader, root, path)
    (tmp_path / "zero.svs").symlink_to("/dev/zero")
    _expect_reason(reader, root, tmp_path / "zero.svs")


def test_masks(reader: IsolatedReader, root: Path, tmp_path: Path) -> None:
    slide = tmp_path / "slide.tiff"
    slide.write_bytes(GOOD["jpeg.tiff"]())
    ring = [[0, 0], [500, 0], [500, 500], [0, 0]]
    whole = {"type": "Polygon", "coordinates": [ring]}
    texts = {
        "empty": "",
        "list": "[]",
        "number": "3",
        "deep": "[" * 100_000,
        "no ring": json.dumps({"type": "Polygon", "coordinates": []}),
        "point": json.dumps({"type": "Point", "coordinates": [0, 0]}),
        "text": json.dumps(whole).replace("500", '"x"'),
        "nan": json.dumps(whole).replace("500", "NaN"),
        "huge": json.dumps(whole).replace("500", "1e300"),
        "outside": json.dumps(
            {"type": "Polygon", "coordinates": [[[9000, 0], [9100, 0], [9100, 90]]]}
        ),
        "latin": json.dumps(whole) + "\u00fc",
    }
    for name, text in texts.items():
        mask = tmp_path / f"{name}.geojson"
        mask.write_bytes(text.encode("latin-1"))
        _expect_reason(reader, root, slide, mask)
    for name in ("cut-0.5-picture.png", "text.png", "nul.tiff"):
        mask = tmp_path / f"mask-{name}"
        mask.write_bytes(dict(MUST_FAIL)[name])
        _expect_reason(reader, root, slide, mask)
    good = tmp_path / "good.geojson"
    good.write_text(json.dumps(whole))
    assert 0 < _attempt(reader, root, slide, good) < _attempt(reader, root, slide)
