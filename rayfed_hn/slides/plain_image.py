"""Pictures without a pyramid, through Pillow: PNG, JPEG, BMP and TIFF in strips.

They are held decoded, so their size is limited. A rotation that EXIF asks for is not applied:
coordinates are those of the stored pixels.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from rayfed_hn.errors import SetAside
from rayfed_hn.slides.openslide_source import on_white
from rayfed_hn.slides.source import Level
from rayfed_hn.slides.truncation import WHOLE

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
MODES = ("L", "LA", "P", "PA", "RGB", "RGBA")
# 240 MB as RGB, and as much again or a little more while Pillow decodes it. Below the size at
# which Pillow itself warns of decompression bombs.
MAX_IMAGE_PX = 80_000_000
_BAND_PX = 2**20


class PlainImage:
    """A ``PixelSource`` over a picture in memory."""

    name = "image"

    def __init__(self, picture_HW3: NDArray[np.uint8]) -> None:
        self._picture = picture_HW3
        height, width, _ = picture_HW3.shape
        self.levels = (Level(width, height, 1.0),)

    def close(self) -> None:
        """Let go of the picture."""
        self._picture = np.empty((0, 0, 3), np.uint8)

    def begin(self, level: int, start: int) -> float:
        """Return ``start``: any whole pixel will do."""
        return float(start)

    def read_into(self, level: int, x: int, y: int, out_HW3: NDArray[np.uint8]) -> None:
        """Read a window into an array; see ``PixelSource``."""
        height, width, _ = out_HW3.shape
        inside = self._picture[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
        if inside.shape != out_HW3.shape:
            out_HW3[...] = 255
        top, left = max(-y, 0), max(-x, 0)
        out_HW3[top : top + inside.shape[0], left : left + inside.shape[1]] = inside


def open_image(path: Path) -> PlainImage:
    """Decode a plain picture.

    Raises:
        SetAside: It is none, too large, of another kind than 8-bit grey or RGB, or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags that nobody asked for
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as picture:
                _check(picture)
                return PlainImage(_rgb(picture))
    except UnidentifiedImageError as error:
        raise SetAside(
            "is neither a slide that OpenSlide can read nor a plain picture",
            "give a slide, or remove it from the manifest",
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large() from error
    except (SetAside, MemoryError):
        raise
    except Exception as error:  # Pillow raises whatever a damaged header leads it to
        raise SetAside("is damaged: the picture cannot be decoded", WHOLE) from error


def _check(picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_IMAGE_PX:
        raise _too_large()
    if picture.mode not in MODES:
        raise SetAside(
            f"is a plain picture of the kind {picture.mode}, not 8-bit grey or RGB",
            "convert it to 8-bit RGB",
        )
    if picture.format == "TIFF" and getattr(picture, "n_frames", 1) > 1:
        raise SetAside(
            "holds several pictures, and is no pyramid that OpenSlide knows",
            "save the one to be read as a file of its own",
        )


def _rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels on white, converted band by band: RGBA is a third larger than RGB."""
    picture.load()
    clear = picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info
    rgb_HW3 = np.empty((picture.height, picture.width, 3), np.uint8)
    rows = max(1, _BAND_PX // picture.width)
    for top in range(0, picture.height, rows):
        band = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        band = on_white(band.convert("RGBA")) if clear else band.convert("RGB")
        rgb_HW3[top : top + rows] = np.asarray(band)
    return rgb_HW3


def _too_large() -> SetAside:
    return SetAside(
        f"is a plain picture of more than {MAX_IMAGE_PX // 10**6} million pixels",
        "convert it to a tiled, pyramidal TIFF",
    )
