"""One slide at any scale. OpenSlide is the reference reader.

Pixels are asked for in micrometres per pixel. The level with the nearest finer scale is read and
resampled to exactly that scale. Label, macro and thumbnail pictures inside the file are never
opened: they may show a patient's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from rayfed_hn.errors import SetAside
from rayfed_hn.slides.truncation import is_cut_short

PLAUSIBLE_MPP = (0.05, 20.0)  # outside of it a resolution tag says 72 or 96 dpi or the like
MAX_ANISOTROPY = 1.05
LEVEL_SLACK = 1.01  # a level may be this much coarser: level sizes are whole pixels
BLOCK_PX = 2048  # side of the blocks that a thumbnail is read in
MAX_THUMBNAIL_PX = 200_000_000
_MICROMETRES = {"centimeter": 10_000.0, "inch": 25_400.0}

_WHOLE = "copy the file again from its source, or remove it from the manifest"


class Slide:
    """An open slide; a context manager. Reading from several threads is safe.

    Attributes:
        mpp: Micrometres per pixel of level 0.
        extent_px: Width and height of level 0.
        level_mpp: Micrometres per pixel of every level, finest first.
    """

    def __init__(self, handle: openslide.OpenSlide, mpp: float) -> None:
        self._handle = handle
        self.mpp = mpp
        self.extent_px: tuple[int, int] = handle.dimensions
        # Kept here, because a handle that met an error answers nothing any more.
        self._downsamples = handle.level_downsamples
        self._dimensions = handle.level_dimensions
        self.level_mpp = tuple(mpp * d for d in self._downsamples)

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading is over."""
        self._handle.close()

    def level_for(self, mpp: float) -> int:
        """Return the coarsest level that is still as fine as ``mpp``, else level 0."""
        fine = [i for i, scale in enumerate(self.level_mpp) if scale <= mpp * LEVEL_SLACK]
        return max(fine, key=lambda i: self.level_mpp[i], default=0)

    def read(self, x: float, y: float, size_px: tuple[int, int], mpp: float) -> NDArray[np.uint8]:
        """Read a window.

        Args:
            x: Left edge in level-0 pixels; parts of a pixel count.
            y: Top edge in level-0 pixels.
            size_px: Width and height of the result in pixels at ``mpp``.
            mpp: Micrometres per pixel of the result.

        Returns:
            uint8 RGB (H, W, 3). What lies outside the slide or is transparent is white.

        Raises:
            SetAside: The slide is damaged there; it cannot be read any more.
        """
        span = tuple(n * mpp / self.mpp for n in size_px)
        return self._read((x, y), (span[0], span[1]), size_px, self.level_for(mpp))

    def thumbnail(self, mpp: float) -> NDArray[np.uint8]:
        """Return the whole slide at about ``mpp`` (rounded to whole pixels), uint8 (H, W, 3).

        Read in blocks, so that memory stays bounded by the result.

        Raises:
            SetAside: The slide is damaged, or far too large for such a picture.
        """
        width, height = (max(1, round(n * self.mpp / mpp)) for n in self.extent_px)
        if width * height > MAX_THUMBNAIL_PX:
            raise SetAside(
                f"is implausibly large ({self.extent_px[0]} x {self.extent_px[1]} pixels)",
                "check the scale and the size of the slide, or raise embed.tissue.mpp",
            )
        level = self.level_for(mpp)
        per_px = self.extent_px[0] / width, self.extent_px[1] / height
        step = max(1, int(BLOCK_PX * self.level_mpp[level] / (max(per_px) * self.mpp)))
        picture = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, step):
            for left in range(0, width, step):
                size = min(step, width - left), min(step, height - top)
                corner = left * per_px[0], top * per_px[1]
                span = size[0] * per_px[0], size[1] * per_px[1]
                block = self._read(corner, span, size, level)
                picture[top : top + size[1], left : left + size[0]] = block
        return picture

    def _read(
        self,
        corner: tuple[float, float],
        span: tuple[float, float],
        size_px: tuple[int, int],
        level: int,
    ) -> NDArray[np.uint8]:
        """Read the level-0 window ``corner`` + ``span`` from ``level`` into ``size_px``."""
        down = self._downsamples[level]
        ratio = max(span[0] / size_px[0], span[1] / size_px[1]) / down
        margin = 0 if _is_whole(ratio) else math.ceil(max(ratio, 1))  # what the filter looks at
        lengths = self._dimensions[level]
        across, along = (
            _axis(*edge, down, margin) for edge in zip(corner, span, lengths, strict=True)
        )
        size = across.length, along.length
        picture = _on_white(self._region((across.at, along.at), level, size))
        box = (across.low, along.low, across.high, along.high)
        if size == size_px and np.allclose(box, (0, 0, *size), rtol=0, atol=1e-6):
            return np.asarray(picture)
        return np.asarray(picture.resize(size_px, _filter(ratio), box=box))

    def _region(self, at: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        try:
            return self._handle.read_region(at, level, size)
        except (openslide.OpenSlideError, OSError, ValueError) as error:
            # OpenSlide refuses every further call on this handle, so this ends the slide.
            raise SetAside("is damaged: a part of it cannot be decoded", _WHOLE) from error


@dataclass(frozen=True)
class _Axis:
    """What to read along one axis: ``length`` pixels of the level from ``at`` (level-0 pixels).

    ``low`` to ``high`` of these pixels are the window; the rest is for the filter.
    """

    at: int
    length: int
    low: float
    high: float


def _axis(corner: float, span: float, level_length: int, down: float, margin: int) -> _Axis:
    first = math.floor(corner / down + 1e-6)
    last = math.ceil((corner + span) / down - 1e-6)
    # Outside is white, so the margin must not reach there; nor a last pixel lost to rounding when
    # the level was made.
    start = max(first - margin, min(first, 0))
    stop = min(last + margin, level_length if last <= level_length + 1 else last)
    # OpenSlide takes whole level-0 pixels. Rounded down, what it blends when they are not whole
    # pixels of the level too lies inside the slide; a pixel more makes up for the step back.
    at = math.floor(start * down + 1e-6)
    uneven = start - at / down > 1e-6
    length = stop - start + int(uneven and stop < level_length)
    low = max(0.0, (corner - at) / down)
    high = min(float(length), (corner - at + span) / down)
    return _Axis(at, length, low, high)


def _is_whole(ratio: float) -> bool:
    return ratio >= 0.999 and abs(ratio - round(ratio)) < 1e-3 * ratio


def _filter(ratio: float) -> Image.Resampling:
    """Area means where they are exact, else Pillow's area-like filter; bilinear to enlarge."""
    if _is_whole(ratio):
        return Image.Resampling.BOX
    return Image.Resampling.HAMMING if ratio > 1 else Image.Resampling.BILINEAR


def _on_white(picture: Image.Image) -> Image.Image:
    """Drop the alpha channel; transparent pixels are glass, not black."""
    if picture.getchannel("A").getextrema() == (255, 255):
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def open_slide(path: Path, mpp: float | None = None) -> Slide:
    """Open a slide with OpenSlide.

    Args:
        path: The slide's file.
        mpp: Micrometres per pixel of level 0 from the manifest; it overrides the file's own.
            Else the file's properties are asked, then its TIFF resolution tags.

    Raises:
        SetAside: It is missing, cut short, no slide, damaged, or states no scale.
    """
    handle = _open(path)
    try:
        return Slide(handle, mpp if mpp is not None else _stated_mpp(handle.properties))
    except BaseException:
        handle.close()
        raise


def _open(path: Path) -> openslide.OpenSlide:
    try:
        cut = is_cut_short(path)
    except FileNotFoundError as error:
        raise SetAside("the file is missing", "correct its path in the manifest") from error
    except OSError as error:
        raise SetAside(f"the file cannot be read ({error.strerror})", "check the file") from error
    if cut:
        raise SetAside("is truncated: its contents go on behind the end of the file", _WHOLE)
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise SetAside(
            "is not a slide that OpenSlide can read", "give a slide, or remove it from the manifest"
        ) from error
    except (openslide.OpenSlideError, OSError) as error:
        raise SetAside("is damaged: OpenSlide cannot open it", _WHOLE) from error


def _stated_mpp(properties: Mapping[str, str]) -> float:
    for scale in (_vendor_mpp(properties), _tiff_mpp(properties)):
        if scale is None:
            continue
        if max(scale) / min(scale) > MAX_ANISOTROPY:
            raise SetAside(
                f"states two scales ({scale[0]:g} and {scale[1]:g} um/px across and down)",
                "give mpp in the manifest",
            )
        return math.sqrt(scale[0] * scale[1])
    raise SetAside(
        "states no scale (no usable micrometres per pixel in the file)", "give mpp in the manifest"
    )


def _vendor_mpp(properties: Mapping[str, str]) -> tuple[float, float] | None:
    x = _number(properties.get(openslide.PROPERTY_NAME_MPP_X))
    y = _number(properties.get(openslide.PROPERTY_NAME_MPP_Y))
    return _plausible(x, y)


def _tiff_mpp(properties: Mapping[str, str]) -> tuple[float, float] | None:
    unit = _MICROMETRES.get(properties.get("tiff.ResolutionUnit", "").lower(), math.nan)
    x, y = (_number(properties.get(f"tiff.{axis}Resolution")) for axis in "XY")
    return _plausible(unit / x if x else math.nan, unit / y if y else math.nan)


def _plausible(x: float, y: float) -> tuple[float, float] | None:
    low, high = PLAUSIBLE_MPP
    return (x, y) if low <= x <= high and low <= y <= high else None


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else math.nan
    except ValueError:
        return math.nan
