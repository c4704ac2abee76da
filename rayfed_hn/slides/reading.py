"""From a slide's file to its tiles: open, find tissue, cut. No encoder, no Ray."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayfed_hn.config import EmbedConfig
from rayfed_hn.errors import SetAside
from rayfed_hn.files import write_atomically
from rayfed_hn.slides.artefacts import measure
from rayfed_hn.slides.manifest import SlideRecord
from rayfed_hn.slides.pictures import draw_slide
from rayfed_hn.slides.slide import Slide, open_slide
from rayfed_hn.slides.tiling import grid, tile_size0
from rayfed_hn.slides.tissue import tissue_fraction, tissue_mask
from rayfed_hn.slides.user_mask import read_user_mask

READER_THREADS = 2  # decoders let go of the GIL; two keep a core busy between reads
MAX_BATCH_BYTES = 64 * 2**20
PICTURE_PX, JPEG_QUALITY = 1200, 85


@dataclass(frozen=True, eq=False)
class Found:
    """What a slide holds, known before any tile is read.

    Attributes:
        coords_N2: int64, top left corners of the tiles in level-0 pixels, row by row.
        tissue_N: float32, the share of every tile that is tissue.
        tile_size0: Side of a tile in level-0 pixels.
        mpp: Micrometres per pixel of level 0.
        reader: What reads the pixels.
        notes: What the user should know of the slide, such as scales that contradict each other.
    """

    coords_N2: NDArray[np.int64]
    tissue_N: NDArray[np.float32]
    tile_size0: float
    mpp: float
    reader: str
    notes: tuple[str, ...] = ()


class Batch(NamedTuple):
    """Tiles in the order of ``Found.coords_N2``; they are overwritten when the next batch is taken.

    Attributes:
        tiles_NHW3: uint8 RGB.
        artefacts_N4: float32, the share of each tile that each of ``ARTEFACTS`` covers.
    """

    tiles_NHW3: NDArray[np.uint8]
    artefacts_N4: NDArray[np.float32]


class Reading:
    """An open slide and its tiles; a context manager made by ``open_reading``.

    Attributes:
        found: Its tiles, before any is read.
    """

    def __init__(self, slide: Slide, found: Found, config: EmbedConfig) -> None:
        self.found = found
        self._slide = slide
        self._config = config

    def fill(self, start: int, tiles_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Read as many tiles as the array holds, from number ``start`` on, into it.

        Returns:
            Their artefacts, float32 (N, 4).

        Raises:
            SetAside: The slide is damaged there.
        """
        coords_N2 = self.found.coords_N2[start : start + len(tiles_NHW3)]
        parts = np.array_split(np.arange(len(coords_N2)), READER_THREADS)

        def read(part: NDArray[np.int64]) -> NDArray[np.float32]:
            if len(part) == 0:
                return np.empty((0, 4), np.float32)
            rows = slice(part[0], part[-1] + 1)
            tiles = tiles_NHW3[rows]
            self._slide.read_tiles(coords_N2[rows], self._config.tile_px, self._config.mpp, tiles)
            return measure(tiles, self._config.mpp, self._config.artefacts)

        with ThreadPoolExecutor(READER_THREADS) as pool:
            return np.concatenate(list(pool.map(read, parts)))

    def __iter__(self) -> Iterator[Batch]:
        total, size = len(self.found.coords_N2), batch_tiles(self._config)
        buffer_NHW3 = np.empty(batch_shape(self._config), np.uint8)
        for start in range(0, total, size):
            tiles_NHW3 = buffer_NHW3[: min(size, total - start)]
            yield Batch(tiles_NHW3, self.fill(start, tiles_NHW3))


def batch_tiles(config: EmbedConfig) -> int:
    """Return how many tiles are read at once: ``embed.batch_tiles``, fewer if they are very big."""
    return max(1, min(config.batch_tiles, MAX_BATCH_BYTES // (3 * config.tile_px**2)))


def batch_shape(config: EmbedConfig) -> tuple[int, int, int, int]:
    """Return the shape of a whole batch of tiles."""
    return (batch_tiles(config), config.tile_px, config.tile_px, 3)


@contextmanager
def open_reading(
    record: SlideRecord, config: EmbedConfig, picture: Path | None = None
) -> Iterator[Reading]:
    """Open a slide of the manifest and find its tiles.

    Args:
        record: The slide.
        config: Scale, tile and tissue settings.
        picture: Where to draw the slide with its tissue and tiles, if anywhere.

    Raises:
        SetAside: The slide cannot be used; says why and what to do.
    """
    refuse_no_file(record)
    with open_slide(record.path, record.mpp, config.reader) as slide:
        yield Reading(slide, find_tiles(slide, config, record.mask, picture), config)


def refuse_no_file(record: SlideRecord) -> None:
    """Refuse what is there but no file: to open a pipe would wait for ever.

    Raises:
        SetAside: The slide or its mask is a folder, a pipe or a device.
    """
    for path in filter(None, (record.path, record.mask)):
        if path.exists() and not path.is_file():
            raise SetAside("is no file", "give the path of a file in the manifest")


def find_tiles(
    slide: Slide, config: EmbedConfig, mask: Path | None = None, picture: Path | None = None
) -> Found:
    """Return the tiles to encode.

    Args:
        slide: An open slide.
        config: Scale, tile and tissue settings.
        mask: The user's own tissue mask, in place of ours.
        picture: Where to draw what was found, if anywhere.

    Raises:
        SetAside: The slide is smaller than a tile, has no tissue, or too little of it in any tile.
    """
    stride_px = config.stride_px or config.tile_px
    coords = grid(slide.extent_px, slide.mpp, config.tile_px, stride_px, config.mpp)
    side_um = config.tile_px * config.mpp
    if len(coords) == 0:
        extent_um = " x ".join(f"{n * slide.mpp:.0f}" for n in slide.extent_px)
        raise SetAside(
            f"is smaller than one tile ({extent_um} um, a tile is {side_um:g} um)",
            "check its scale, or lower embed.tile_px or embed.mpp",
        )
    mask_HW = _tissue(slide, config, mask)
    size0 = tile_size0(slide.mpp, config.tile_px, config.mpp)
    tissue = tissue_fraction(mask_HW, slide.extent_px, coords, size0)
    keep = tissue >= config.min_tissue
    if picture is not None:
        view = slide.thumbnail(max(slide.mpp, max(slide.extent_px) * slide.mpp / PICTURE_PX))
        drawn = draw_slide(view, mask_HW, coords[keep], size0, slide.extent_px)
        write_atomically(picture, lambda path: drawn.save(path, "JPEG", quality=JPEG_QUALITY))
    if not mask_HW.any():
        raise SetAside("no tissue found", "look at the slide; lower embed.tissue.min_saturation")
    if not keep.any():
        raise SetAside(
            f"has tissue, but no tile with {config.min_tissue:.0%} of it "
            f"(the fullest has {tissue.max():.0%})",
            "lower embed.min_tissue, embed.tile_px or embed.stride_px",
        )
    return Found(coords[keep], tissue[keep], size0, slide.mpp, slide.reader, slide.notes)


def _tissue(slide: Slide, config: EmbedConfig, mask: Path | None) -> NDArray[np.bool_]:
    # A picture coarser than a few pixels per tile could not tell one tile from the next.
    mpp = min(config.tissue.mpp, config.tile_px * config.mpp / 4)
    if mask is None:
        return tissue_mask(slide.thumbnail(mpp), mpp, config.tissue)
    width, height = (max(1, round(length * slide.mpp / mpp)) for length in slide.extent_px)
    return read_user_mask(mask, slide.extent_px, (height, width))
