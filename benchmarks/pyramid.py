"""The large slide of the benchmarks: a JPEG pyramid of synthetic tissue, levels at 1, 4 and 16."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from rayfed_hn.slides.synthetic import draw_slide
from rayfed_hn.slides.synthetic_hospitals import HOSPITALS

MPP, STEPS, BLOCK_PX, JPEG_TILE_PX, QUALITY = 0.25, (1, 4, 16), 2048, 256, 90


def make_pyramid(folder: Path, side: int) -> Path:
    """Write the pyramid unless it is there; memory stays bounded by one block of tissue."""
    path = folder / f"pyramid-{side}.tiff"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    block = Image.fromarray(tissue_block())
    with tifffile.TiffWriter(partial, bigtiff=True) as file:
        for step in STEPS:
            per_cm, length = 1e4 / MPP / step, side // step
            file.write(
                mirrored_tiles(np.asarray(block.reduce(step) if step > 1 else block), length),
                shape=(length, length, 3),
                dtype=np.uint8,
                tile=(JPEG_TILE_PX, JPEG_TILE_PX),
                compression="jpeg",
                compressionargs={"level": QUALITY},
                photometric="rgb",  # stored as YCbCr
                subsampling=(2, 2),
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int(step > 1),
                metadata=None,
            )
    partial.rename(path)
    return path


def tissue_block() -> np.ndarray:
    """The part of a synthetic slide with most tissue, with a scanner's noise: uint8 (B, B, 3)."""
    picture, _ = draw_slide(replace(HOSPITALS[0], mpp=MPP), True, 1)
    pixels = np.asarray(picture)
    colourful = np.ptp(pixels[::8, ::8], axis=2) > 20
    side = BLOCK_PX // 8
    share, top, left = max(
        (float(colourful[y : y + side, x : x + side].mean()), y, x)
        for y in range(0, colourful.shape[0] - side, 32)
        for x in range(0, colourful.shape[1] - side, 32)
    )
    assert share > 0.5
    block = pixels[8 * top : 8 * top + BLOCK_PX, 8 * left : 8 * left + BLOCK_PX]
    noise = np.random.default_rng(0).normal(0, 4, (BLOCK_PX, BLOCK_PX, 1))  # about 19 kB a tile
    return np.clip(block + noise, 0, 255).astype(np.uint8)


def mirrored_tiles(block: np.ndarray, length: int) -> Iterator[np.ndarray]:
    """Cover ``length`` x ``length`` with the block and its mirror pictures, tile by tile."""
    twice = np.concatenate([block, block[::-1]])
    twice = np.concatenate([twice, twice[:, ::-1]], axis=1)
    period, steps = len(twice), range(0, length, JPEG_TILE_PX)
    for top in steps:
        rows = np.take(twice, np.arange(top, top + JPEG_TILE_PX) % period, axis=0)
        for left in steps:
            yield np.take(rows, np.arange(left, left + JPEG_TILE_PX) % period, axis=1)
