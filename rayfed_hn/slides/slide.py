"""One slide at any scale. OpenSlide is the reference reader.

Pixels are asked for in micrometres per pixel. The level with the nearest finer scale is read and
resampled to exactly that scale. Label, macro and thumbnail pictures inside the file are never
opened: they may show a patient's name.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rayfed_hn.errors import SetAside
from rayfed_hn.slides.jpeg_tiff import open_jpeg_tiff
from rayfed_hn.slides.openslide_source import OpenSlideSource, open_handle
from rayfed_hn.slides.plain_image import open_image
from rayfed_hn.slides.scale import find_scale
from rayfed_hn.slides.source import PixelSource
from rayfed_hn.slides.truncation import refuse_cut_short

# A level may be this much coarser than asked for. Level sizes are whole pixels; and half of what a
# 40x scanner calls 0.2525 is then read for 0.5 um/px at half the cost, enlarged by one percent.
LEVEL_SLACK = 1.02
PLAIN_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
NEAR_1 = 1.25  # ratio up to which bilinear is the nearest to area means
BLOCK_PX = 2048  # side of the windows that are read at once, in pixels of a level
MAX_THUMBNAIL_PX = 200_000_000


class Slide:
    """An open slide; a context manager. Reading from several threads is safe.

    Attributes:
        mpp: Micrometres per pixel of level 0.
        extent_px: Width and height of level 0.
        level_mpp: Micrometres per pixel of every level that can be read, finest first.
        reader: What reads the pixels: jpeg-tiff, openslide or image.
        notes: What contradicts itself in the file, for the user to know.
    """

    def __init__(self, source: PixelSource, mpp: float, notes: tuple[str, ...] = ()) -> None:
        self._source = source
        self.mpp = mpp
        self.notes = notes
        self.reader = source.name
        self.extent_px: tuple[int, int] = (source.levels[0].width, source.levels[0].height)
        self.level_mpp = tuple(mpp * level.downsample for level in source.levels)

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
        self._source.close()

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
        window_HW3 = np.empty((size_px[1], size_px[0], 3), np.uint8)
        per_px = mpp / self.mpp
        self._fill((x, y), (per_px, per_px), self.level_for(mpp), window_HW3)
        return window_HW3

    def read_tiles(
        self, coords_N2: NDArray[np.int64], tile_px: int, mpp: float, out_NHW3: NDArray[np.uint8]
    ) -> None:
        """Read square tiles into an array; the same as one ``read`` for each.

        Args:
            coords_N2: Top left corners (x, y) in level-0 pixels.
            tile_px: Side of a tile in pixels at ``mpp``.
            mpp: Micrometres per pixel of the tiles.
            out_NHW3: uint8 RGB (N, tile_px, tile_px, 3); may lie in memory that processes share.

        Raises:
            ValueError: The array is not made for these tiles.
            SetAside: The slide is damaged there; it cannot be read any more.
        """
        shape = len(coords_N2), tile_px, tile_px, 3
        if out_NHW3.shape != shape or out_NHW3.dtype != np.uint8:
            raise ValueError(f"need uint8 {shape}, got {out_NHW3.dtype} {out_NHW3.shape}")
        per_px, level = mpp / self.mpp, self.level_for(mpp)
        for (x, y), tile_HW3 in zip(coords_N2.tolist(), out_NHW3, strict=True):
            self._fill((x, y), (per_px, per_px), level, tile_HW3)

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
        picture_HW3 = np.empty((height, width, 3), np.uint8)
        per_px = self.extent_px[0] / width, self.extent_px[1] / height
        self._fill((0, 0), per_px, self.level_for(mpp), picture_HW3)
        return picture_HW3

    def _fill(
        self,
        corner: tuple[float, float],
        per_px: tuple[float, float],
        level: int,
        out_HW3: NDArray[np.uint8],
    ) -> None:
        """Read from ``corner`` on, every pixel as large as ``per_px`` level-0 pixels."""
        height, width, _ = out_HW3.shape
        down = self._source.levels[level].downsample
        step = max(1, int(BLOCK_PX * down / max(per_px)))
        for top in range(0, height, step):
            for left in range(0, width, step):
                block_HW3 = out_HW3[top : top + step, left : left + step]
                begin = corner[0] + left * per_px[0], corner[1] + top * per_px[1]
                self._fill_block(begin, per_px, level, block_HW3)

    def _fill_block(
        self,
        corner: tuple[float, float],
        per_px: tuple[float, float],
        level: int,
        out_HW3: NDArray[np.uint8],
    ) -> None:
        size = out_HW3.shape[1], out_HW3.shape[0]
        down = self._source.levels[level].downsample
        ratio = max(per_px) / down
        exact = _is_whole(ratio) and all(_is_pixel(edge / down) for edge in corner)
        margin = 0 if exact else math.ceil(max(ratio, 1))  # what the filter looks at
        spans = size[0] * per_px[0], size[1] * per_px[1]
        across = self._axis(level, 0, corner[0], spans[0], margin)
        along = self._axis(level, 1, corner[1], spans[1], margin)
        if across.is_exactly(size[0]) and along.is_exactly(size[1]):
            self._source.read_into(level, across.start, along.start, out_HW3)
            return
        window_HW3 = np.empty((along.length, across.length, 3), np.uint8)
        self._source.read_into(level, across.start, along.start, window_HW3)
        box = (across.low, along.low, across.high, along.high)
        scaled = Image.fromarray(window_HW3).resize(size, _filter(ratio, exact), box=box)
        out_HW3[...] = np.asarray(scaled)

    def _axis(self, level: int, axis: int, corner: float, span: float, margin: int) -> _Axis:
        limits = self._source.levels[level]
        down, level_length = limits.downsample, limits[:2][axis]
        first = math.floor(corner / down + 1e-6)
        last = math.ceil((corner + span) / down - 1e-6)
        # Outside is white, so the margin must not reach there; nor a last pixel lost to rounding
        # when the level was made.
        start = max(first - margin, min(first, 0))
        stop = min(last + margin, level_length if last <= level_length + 1 else last)
        begin = self._source.begin(level, start)
        uneven = start - begin > 1e-6  # then a pixel more makes up for the step back
        length = stop - start + int(uneven and stop < level_length)
        low = max(0.0, corner / down - begin)
        high = min(float(length), (corner + span) / down - begin)
        return _Axis(start, length, low, high)


class _Axis(NamedTuple):
    """What to read along one axis: ``length`` pixels of the level from ``start``.

    ``low`` to ``high`` of these pixels are the window; the rest is for the filter.
    """

    start: int
    length: int
    low: float
    high: float

    def is_exactly(self, size: int) -> bool:
        """Return whether these are ``size`` pixels as they are."""
        return self.length == size and self.low <= 1e-6 and self.high >= size - 1e-6


def _is_whole(ratio: float) -> bool:
    return ratio >= 0.999 and abs(ratio - round(ratio)) < 1e-3 * ratio


def _is_pixel(edge: float) -> bool:
    return abs(edge - round(edge)) < 1e-3


def _filter(ratio: float, exact: bool) -> Image.Resampling:
    """Area means where pixels fall on pixels, else the nearest to them of Pillow's filters.

    Between pixels Pillow's BOX takes one or the other; near a ratio of 1 the mean of two, which is
    bilinear, is the area mean.
    """
    if exact:
        return Image.Resampling.BOX
    return Image.Resampling.HAMMING if ratio > NEAR_1 else Image.Resampling.BILINEAR


def open_slide(
    path: Path, mpp: float | None = None, reader: Literal["auto", "openslide"] = "auto"
) -> Slide:
    """Open a slide with the reader that suits its file.

    Args:
        path: The slide's file.
        mpp: Micrometres per pixel of level 0 from the manifest; it overrides the file's own, for
            which ``rayfed_hn.slides.scale`` gives the order.
        reader: auto to decode JPEG tiles directly where the file allows it; openslide to read all
            that OpenSlide knows with OpenSlide. Plain pictures are read in any case.

    Raises:
        SetAside: It is missing, cut short, no slide, damaged, or states no scale.
    """
    refuse_cut_short(path)
    handle = open_handle(path)
    if handle is None:
        if path.suffix.lower() not in PLAIN_SUFFIXES:
            # A scanner's format that lost its other files may hold a preview that opens.
            raise SetAside(
                "is no slide that OpenSlide can read",
                "give a whole slide, with its companion files, or remove it from the manifest",
            )
        picture = open_image(path)
        return Slide(picture, *find_scale({}, mpp))
    source = OpenSlideSource(handle)
    try:
        scale, notes = find_scale(handle.properties, mpp)
        vendor = handle.properties.get("openslide.vendor", "")
        direct = open_jpeg_tiff(path, vendor, source.levels) if reader == "auto" else None
    except BaseException:
        source.close()
        raise
    if direct is None:
        return Slide(source, scale, notes)
    source.close()
    return Slide(direct, scale, notes)
