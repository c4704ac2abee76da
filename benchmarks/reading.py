"""How fast are pixels read? Our reader, OpenSlide, tiffslide and the decoder alone, in one run.

Makes a 20,000 x 20,000 JPEG pyramid once (levels at 1, 4 and 16, as scanners write them) and reads
the same region of it in every way, in turn, the best of three; then the CMU slide of the real data
(RAYFED_HN_DATA), if it is there. Times are CPU seconds of the process, so other load matters less.
The limit is the decoder on the same JPEG tiles in memory. One JSON line a measurement: tiles of the
result, and megapixels of the result; in the end the ratios to OpenSlide and to the limit.

A part of ``benchmarks/slides.py``.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openslide
import simplejpeg
import tifffile
from PIL import Image

from rayfed_hn.slides.slide import open_slide

REPEATS, CHUNK_TILES = 3, 16
TIFFSLIDE: Any = None
with contextlib.suppress(ImportError):
    TIFFSLIDE = importlib.import_module("tiffslide")
ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


@dataclass(frozen=True)
class Task:
    """A grid of tiles to read from a slide.

    Attributes:
        what: Its name in the results.
        tile_px: Side of the tiles of the result.
        ratio: Level-0 pixels per pixel of the result.
        corners: Top left corners in level-0 pixels.
        box: The region they cover, in level-0 pixels: left, top, right, bottom.
        decode_at: By how much the decoder alone may scale down.
    """

    what: str
    tile_px: int
    ratio: float
    corners: list[tuple[int, int]]
    box: tuple[int, int, int, int]
    decode_at: int


def measure_reading(path: Path, num_tiles: int) -> Iterator[dict[str, Any]]:
    """Yield a line for every task, reader and number of threads, and one of ratios.

    Args:
        path: A slide in JPEG tiles.
        num_tiles: How many tiles of 256 level-0 pixels the region holds, at most.
    """
    ratios: dict[str, float] = {}
    for task in make_tasks(path, num_tiles):
        for threads in (1, 2):
            best = measure_task(path, task, threads)
            yield from describe(path, task, threads, best)
            per_core = {name: rate for name, (rate, _) in best.items()}
            limit = max(rate for name, rate in per_core.items() if name.startswith("decoder"))
            ratios[f"{task.what}, {threads} thread(s), to openslide"] = (
                per_core["ours"] / per_core["openslide"]
            )
            ratios[f"{task.what}, {threads} thread(s), to the decoder"] = per_core["ours"] / limit
    if TIFFSLIDE is None:
        yield {"what": "tiffslide", "absent": "it is not installed"}
    rounded = {name: round(ratio, 2) for name, ratio in ratios.items()}
    yield {"what": f"ratios of ours, {path.name}", **rounded}


def measure_task(path: Path, task: Task, threads: int) -> dict[str, tuple[float, float]]:
    """Best tiles per CPU second and per second of every way, all in turn in every repeat."""
    ways = make_ways(path, task)
    best = dict.fromkeys(ways, (0.0, 0.0))
    for _ in range(REPEATS):
        for name, open_way in ways.items():
            best[name] = max(best[name], timed(open_way, threads))
    return best


def describe(
    path: Path, task: Task, threads: int, best: dict[str, tuple[float, float]]
) -> Iterator[dict[str, Any]]:
    """One line for every way to do a task."""
    for name, (per_core, per_second) in best.items():
        yield {
            "what": f"{task.what}, {path.name}",
            "reader": name,
            "threads": threads,
            "tiles_per_s": round(per_second),
            "tiles_per_core_s": round(per_core),
            "megapixels_per_core_s": round(per_core * task.tile_px**2 / 1e6, 1),
        }


def make_tasks(path: Path, num_tiles: int) -> list[Task]:
    """The grids to read: on the file's tiles and off them, at its scale and coarser."""
    with openslide.OpenSlide(path) as slide:
        width, height = slide.dimensions
    across = min(width // 256, max(2, int(num_tiles**0.5) // 2 * 2))
    down = min(height // 256, max(2, num_tiles // across))
    right, bottom = 256 * across, 256 * down

    def task(what: str, ratio: float, offset: tuple[int, int], decode_at: int) -> Task:
        step = 256 * ratio
        xs = np.arange(offset[0], right - step + 1, step).astype(int).tolist()
        ys = np.arange(offset[1], bottom - step + 1, step).astype(int).tolist()
        corners = [(x, y) for y in ys for x in xs]
        box = xs[0], ys[0], int(xs[-1] + step), int(ys[-1] + step)
        return Task(what, 256, ratio, corners, box, decode_at)

    return [
        task("native scale, from the corner", 1, (0, 0), 1),
        task("native scale, off the file's tiles", 1, (77, 33), 1),
        task("half scale (40x to 20x)", 2, (0, 0), 2),
        task("1.08 of the scale", 1.08, (0, 0), 1),
    ]


class Way(NamedTuple):
    """An opened way to do a task in parts, which threads share.

    Attributes:
        read: Does the parts with these numbers.
        parts: How many there are.
        tiles_per_part: Tiles of the result that one part is worth.
        close: Ends it.
    """

    read: Callable[[range], None]
    parts: int
    tiles_per_part: float
    close: Callable[[], object]


def make_ways(path: Path, task: Task) -> dict[str, Callable[[], Way]]:
    """Ways to do a task; each opens the slide anew."""
    jpegs = jpegs_of(path, task.box)
    ways: dict[str, Callable[[], Way]] = {
        "openslide": lambda: openslide_way(openslide.OpenSlide(path), task),
        "ours": lambda: our_way(path, task),
        "decoder alone": lambda: decoder_way(jpegs, task, 1),
    }
    if task.decode_at > 1:
        ways["decoder alone, scaling"] = lambda: decoder_way(jpegs, task, task.decode_at)
    if TIFFSLIDE is not None:
        ways["tiffslide"] = lambda: openslide_way(TIFFSLIDE.TiffSlide(path), task)
    return ways


def openslide_way(slide: Any, task: Task) -> Way:
    """One tile at a time, as its users do: read, drop alpha, take the area mean."""
    size = round(task.tile_px * task.ratio)
    result = task.tile_px, task.tile_px

    def read(numbers: range) -> None:
        for number in numbers:
            picture = slide.read_region(task.corners[number], 0, (size, size)).convert("RGB")
            if task.ratio == round(task.ratio) > 1:
                picture = picture.reduce(round(task.ratio))
            elif size != task.tile_px:
                picture = picture.resize(result, Image.Resampling.HAMMING)
            assert np.asarray(picture).shape[:2] == result

    return Way(read, len(task.corners), 1, slide.close)


def our_way(path: Path, task: Task) -> Way:
    """``Slide.read_tiles`` into an array that is used again and again."""
    slide = open_slide(path)
    mpp, slots = task.ratio * slide.mpp, 4  # more than threads
    corners_N2 = np.array(task.corners)
    out_SNHW3 = np.empty((slots, CHUNK_TILES, task.tile_px, task.tile_px, 3), np.uint8)

    def read(numbers: range) -> None:
        tiles_NHW3 = out_SNHW3[numbers.start // CHUNK_TILES % slots, : len(numbers)]
        own_N2 = corners_N2[numbers.start : numbers.stop]
        slide.read_tiles(own_N2, task.tile_px, mpp, tiles_NHW3)

    return Way(read, len(corners_N2), 1, slide.close)


def decoder_way(jpegs: list[bytes], task: Task, scale: int) -> Way:
    """Nothing but libjpeg-turbo on the region's JPEGs in memory."""
    height, width = (int(n) for n in simplejpeg.decode_jpeg_header(jpegs[0])[:2])
    shape = height // scale, width // scale, 3
    smallest: dict[str, Any] = {"min_height": shape[0], "min_width": shape[1]} if scale > 1 else {}

    def read(numbers: range) -> None:
        buffer = np.empty(shape, np.uint8)
        for number in numbers:
            simplejpeg.decode_jpeg(jpegs[number], "RGB", buffer=buffer, **smallest)

    return Way(read, len(jpegs), len(task.corners) / len(jpegs), lambda: None)


def jpegs_of(path: Path, box: tuple[int, int, int, int]) -> list[bytes]:
    """The whole JPEGs of the level-0 tiles that a region touches (by tifffile, not our code)."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        offsets, counts = page.dataoffsets, page.databytecounts
        across = -(-page.imagewidth // page.tilewidth)
        columns = range(box[0] // page.tilewidth, -(-box[2] // page.tilewidth))
        rows = range(box[1] // page.tilelength, -(-box[3] // page.tilelength))
        shared, is_rgb = page.jpegtables, page.photometric == tifffile.PHOTOMETRIC.RGB
        tables = shared[:-2] if shared else b"\xff\xd8"
        jpegs = []
        for number in (row * across + column for row in rows for column in columns):
            file.filehandle.seek(offsets[number])
            tile = file.filehandle.read(counts[number])
            jpegs.append(tables + (ADOBE_RGB if is_rgb else b"") + tile[2:])
    return jpegs


def timed(open_way: Callable[[], Way], threads: int) -> tuple[float, float]:
    """Tiles of the result per CPU second and per second; opening the slide does not count."""
    way = open_way()
    chunks = [range(way.parts)[i : i + CHUNK_TILES] for i in range(0, way.parts, CHUNK_TILES)]
    with ThreadPoolExecutor(threads) as pool:
        cpu, wall = time.process_time(), time.monotonic()
        for _ in pool.map(way.read, chunks):
            pass
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    way.close()
    tiles = way.parts * way.tiles_per_part
    return tiles / cpu, tiles / wall
