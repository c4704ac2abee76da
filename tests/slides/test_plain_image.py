from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.data import astronaut

from rayfed_hn.errors import SetAside
from rayfed_hn.slides import plain_image
from rayfed_hn.slides.slide import open_slide


def _save(path: Path, mode: str = "RGB", **options: Any) -> np.ndarray:
    """Save a picture; returns it as RGB on white."""
    picture = Image.fromarray(astronaut()[:300, :400]).convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(path, **options)
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def _reason(path: Path, mpp: float | None = 0.5) -> str:
    with pytest.raises(SetAside) as error:
        open_slide(path, mpp)
    assert error.value.remedy
    return error.value.reason


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
@pytest.mark.parametrize("reader", ["auto", "openslide"])
def test_lossless_pictures_are_read_as_they_are(tmp_path: Path, name: str, reader: Any) -> None:
    expected = _save(tmp_path / name)
    with open_slide(tmp_path / name, 0.5, reader) as slide:
        assert (slide.reader, slide.extent_px, slide.mpp) == ("image", (400, 300), 0.5)
        np.testing.assert_array_equal(slide.read(0, 0, (400, 300), 0.5), expected)
        np.testing.assert_array_equal(slide.read(17, 31, (50, 60), 0.5), expected[31:91, 17:67])
        outside = slide.read(390, -5, (20, 10), 0.5)
        np.testing.assert_array_equal(outside[5:, :10], expected[:5, 390:])
        assert (outside[:5] == 255).all()
        assert (outside[:, 10:] == 255).all()
        assert (slide.read(900, 900, (4, 4), 0.5) == 255).all()
        means = expected.reshape(150, 2, 200, 2, 3).mean((1, 3))
        assert np.abs(slide.thumbnail(1.0) - means).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P"])
def test_modes(tmp_path: Path, mode: str) -> None:
    expected = _save(tmp_path / "a.png", mode)
    with open_slide(tmp_path / "a.png", 0.5) as slide:
        found = slide.read(0, 0, (400, 300), 0.5).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_jpeg_is_not_rotated(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    expected = _save(tmp_path / "a.jpg", exif=exif, quality=95)
    with open_slide(tmp_path / "a.jpg", 0.5) as slide:
        assert slide.extent_px == (400, 300)
        assert np.abs(slide.read(0, 0, (400, 300), 0.5) - expected.astype(int)).mean() < 4


def test_the_manifest_must_give_the_scale(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", dpi=(50_800, 50_800))  # 0.5 um/px, if one believed it
    assert _reason(tmp_path / "a.png", None).startswith("states no scale")


def _png_head(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("sides", [(9_000, 9_000), (10_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_pictures_that_are_too_large(tmp_path: Path, sides: tuple[int, int]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_png_head(*sides) + struct.pack(">I", 4) + b"IDAT" + bytes(100))
    assert "more than 80 million pixels" in _reason(path)


def test_limit_is_in_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path / "a.png")
    monkeypatch.setattr(plain_image, "MAX_IMAGE_PX", 400 * 300)
    open_slide(tmp_path / "a.png", 0.5).close()
    monkeypatch.setattr(plain_image, "MAX_IMAGE_PX", 400 * 300 - 1)
    assert "is a plain picture of more than" in _reason(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "tiff"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
def test_cut_short(tmp_path: Path, kind: str, share: float) -> None:
    buffer = io.BytesIO()
    Image.fromarray(astronaut()).save(buffer, kind)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(buffer.getvalue()[: int(share * buffer.tell())])
    assert _reason(path).startswith(("is damaged", "is truncated", "is neither"))


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (64, 64)).save(tmp_path / "a.jpg")
    assert "kind CMYK" in _reason(tmp_path / "a.jpg")
    Image.new("I;16", (64, 64)).save(tmp_path / "a.png")
    assert "kind I;16" in _reason(tmp_path / "a.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.gif")
    assert "is no slide" in _reason(tmp_path / "a.gif")
    for name in ("a.mrxs", "a.ndpi", "a.svs"):  # a preview is no slide
        Image.new("RGB", (64, 64)).save(tmp_path / name, "JPEG")
        assert "is no slide" in _reason(tmp_path / name)
    pages = tmp_path / "a.tiff"
    tifffile.imwrite(pages, np.zeros((3, 64, 64, 3), np.uint8), photometric="rgb")
    assert "holds several pictures" in _reason(pages)
