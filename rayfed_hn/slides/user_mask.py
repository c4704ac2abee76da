"""Tissue that the user has marked: polygons drawn in QuPath (GeoJSON), or a mask picture.

Both are files of others: every size is checked before memory is taken for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from rayfed_hn.errors import SetAside

VERSION = 1  # part of the recipe: raised when the same settings give other tiles or shares
MAX_JSON_BYTES = 64 * 2**20
MAX_PICTURE_BYTES = 128 * 2**20  # of one level, decoded
MAX_CROSSINGS = 500_000_000  # of outlines with the rows of the mask
CROSSINGS_AT_ONCE = 1_000_000
ASPECT_SLACK = 0.02
OUTSIDE_SLACK = 0.05  # of the slide's side; a hand slips over the edge, another slide does not
_NOT_DRAWN = ("cell", "detection", "tile")  # QuPath's results of measurement
_DRAW = "draw the tissue as an annotation in QuPath and export it as GeoJSON"
_SMALLER = "save it as a pyramid, or at a lower resolution"
_REPLACE = "export the mask again, or remove it from the manifest"


@dataclass(frozen=True)
class _Polygon:
    """One polygon.

    Attributes:
        rings: The outline and then its holes, each float64 (V, 2) in level-0 pixels.
        cut: Whether its area is to be left out.
    """

    rings: list[NDArray[np.float64]]
    cut: bool


def read_user_mask(
    path: Path, extent_px: tuple[int, int], mask_shape_HW: tuple[int, int]
) -> NDArray[np.bool_]:
    """Read the user's mask of a slide.

    Args:
        path: GeoJSON as QuPath writes it (``.geojson``, ``.json``; a collection, a feature or a
            list; coordinates in level-0 pixels), or a picture of the whole slide (``.tif``,
            ``.tiff``, ``.png``) on which all but 0 is tissue. Annotations whose class name
            contains "ignore" or ends in "*" are cut out, but for QuPath's "Region*".
        extent_px: Width and height of level 0 of the slide.
        mask_shape_HW: Height and width of the result, which covers the whole slide.

    Returns:
        bool (H, W), True where at least the pixel's middle (GeoJSON) or half of it (picture) is
        tissue.

    Raises:
        SetAside: The mask cannot be used, is not this slide's, or marks nothing.
    """
    suffix = path.suffix.lower()
    if not path.is_file():  # nor is a pipe a file, which would wait for ever
        raise SetAside("its mask is missing", "correct the mask's path in the manifest")
    if suffix in (".geojson", ".json"):
        mask = _rasterise(_polygons(path), extent_px, mask_shape_HW)
    elif suffix in (".tif", ".tiff", ".png"):
        mask = _picture(path, suffix, extent_px, mask_shape_HW)
    else:
        raise SetAside(
            f"its mask is of an unknown kind ({suffix or 'no suffix'})",
            "give .geojson, .json, .tif, .tiff or .png",
        )
    if not mask.any():
        raise SetAside("its mask marks no tissue", "look at the mask")
    return mask


def user_mask_digest(path: Path) -> str:
    """SHA-256 (hex) of the mask's file, all of it: masks of one slide differ in a few bytes.

    Raises:
        SetAside: It cannot be read.
    """
    if not path.is_file():
        raise SetAside("its mask is missing", "correct the mask's path in the manifest")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SetAside(f"its mask cannot be read ({error.strerror})", "check the file") from error


def _polygons(path: Path) -> list[_Polygon]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise SetAside(
                f"its mask is larger than {MAX_JSON_BYTES // 2**20} MiB",
                "export annotations only, without cells and detections, or give a mask picture",
            )
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
        polygons = list(_walk(content, cut=False))
    except (OSError, ValueError, RecursionError) as error:
        raise SetAside("its mask is not readable GeoJSON", _REPLACE) from error
    except (TypeError, KeyError, AttributeError, OverflowError) as error:
        raise SetAside("its mask is JSON, but not GeoJSON", _DRAW) from error
    if not any(not polygon.cut for polygon in polygons):
        raise SetAside("its mask holds no polygon that marks tissue", _DRAW)
    return polygons


def _walk(content: Any, cut: bool) -> Iterator[_Polygon]:
    """Yield the polygons of anything that GeoJSON knows; points and lines have no area."""
    if isinstance(content, list):
        for item in content:
            yield from _walk(item, cut)
        return
    kind = content["type"]
    if kind == "FeatureCollection":
        yield from _walk(content["features"], cut)
    elif kind == "Feature":
        properties = content.get("properties") or {}
        if content.get("geometry") and properties.get("objectType") not in _NOT_DRAWN:
            yield from _walk(content["geometry"], _is_cut(properties))
    elif kind == "GeometryCollection":
        yield from _walk(content["geometries"], cut)
    elif kind in ("Polygon", "MultiPolygon"):
        shapes = content["coordinates"]
        for shape in [shapes] if kind == "Polygon" else shapes:
            yield _Polygon([_ring(ring) for ring in shape], cut)


def _is_cut(properties: dict[str, Any]) -> bool:
    """QuPath calls classes with a star ignored, but uses "Region*" for regions of interest."""
    stated = properties.get("classification") or {}
    if isinstance(stated, str):
        stated = {"name": stated}
    names = [str(name).strip().lower() for name in stated.get("names") or [stated.get("name", "")]]
    return any("ignore" in n or (n.endswith("*") and n != "region*") for n in names)


def _ring(points: list[Any]) -> NDArray[np.float64]:
    ring = np.array([point[:2] for point in points], np.float64)
    if len(ring) == 0:
        return ring.reshape(0, 2)
    if ring.shape[1:] != (2,) or not np.isfinite(ring).all():
        raise SetAside("its mask has corners that are not two numbers", _REPLACE)
    return ring


def _rasterise(
    polygons: list[_Polygon], extent_px: tuple[int, int], shape_HW: tuple[int, int]
) -> NDArray[np.bool_]:
    _check_place(polygons, extent_px)
    per_px = np.array([shape_HW[1] / extent_px[0], shape_HW[0] / extent_px[1]])
    mask = np.zeros(shape_HW, np.bool_)
    for polygon in sorted(polygons, key=lambda polygon: polygon.cut):  # cut last, out of all
        edges = _edges(polygon, per_px)
        if len(edges) == 0:
            continue
        top, left = np.clip(np.floor(edges.min((0, 1)))[::-1], 0, shape_HW)
        bottom, right = np.clip(np.ceil(edges.max((0, 1)))[::-1], 0, shape_HW)
        box = slice(int(top), int(bottom)), slice(int(left), int(right))
        corner = np.array([left, top])
        inside = _inside(edges - corner, (box[0].stop - box[0].start, box[1].stop - box[1].start))
        mask[box] = mask[box] & ~inside if polygon.cut else mask[box] | inside
    return mask


def _check_place(polygons: list[_Polygon], extent_px: tuple[int, int]) -> None:
    side = np.array(extent_px, np.float64)
    for polygon in polygons:
        points = np.concatenate([*polygon.rings, np.empty((0, 2))])
        beyond = np.maximum(-points, points - side).max(0, initial=0)
        if (beyond > OUTSIDE_SLACK * side).any():
            raise SetAside(
                f"its mask reaches {beyond.max():.0f} pixels beyond the slide's edge",
                "give the mask of this very slide, in pixels of its full resolution",
            )


def _edges(polygon: _Polygon, per_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sides of all rings, in mask pixels, as (E, 2 ends, x and y)."""
    sides = [np.stack([ring, np.roll(ring, -1, axis=0)], axis=1) for ring in polygon.rings]
    return np.concatenate([*sides, np.empty((0, 2, 2))]) * per_px


def _inside(edges_E22: NDArray[np.float64], shape_HW: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell pixels whose middle lies inside: an odd number of sides is to the left of it.

    Holes need no care of their own: they make the number even.
    """
    height, width = shape_HW
    upward = edges_E22[:, 0, 1] > edges_E22[:, 1, 1]
    edges_E22 = np.where(upward[:, None, None], edges_E22[:, ::-1], edges_E22)
    (x0, y0), (x1, y1) = edges_E22[:, 0].T, edges_E22[:, 1].T
    first, last = (np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64) for y in (y0, y1))
    counts = last - first
    if counts.sum() > MAX_CROSSINGS:
        raise SetAside("its mask is implausibly intricate", "simplify its outlines")
    slope = (x1 - x0) / np.where(counts > 0, y1 - y0, 1)
    flips = np.zeros(height * (width + 1), np.uint8)
    for part in _parts(counts):
        edge = np.repeat(np.arange(part.start, part.stop), counts[part])
        began = np.cumsum(counts[part]) - counts[part]
        row = first[edge] + np.arange(len(edge)) - np.repeat(began, counts[part])
        x = x0[edge] + (row + 0.5 - y0[edge]) * slope[edge]
        column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
        np.bitwise_xor.at(flips, row * (width + 1) + column, 1)
    odd = np.bitwise_xor.accumulate(flips.reshape(height, width + 1), axis=1)
    return odd[:, :width].astype(np.bool_)


def _parts(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Divide the sides so that each part crosses about ``CROSSINGS_AT_ONCE`` rows."""
    part = np.cumsum(counts) // CROSSINGS_AT_ONCE
    starts = np.flatnonzero(np.diff(part, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(counts)], strict=True):
        yield slice(int(start), int(stop))


def _picture(
    path: Path, suffix: str, extent_px: tuple[int, int], shape_HW: tuple[int, int]
) -> NDArray[np.bool_]:
    try:
        read = _read_png if suffix == ".png" else _read_tiff
        marked = read(path, extent_px, shape_HW)
    except SetAside:
        raise
    except Image.DecompressionBombError as error:
        raise SetAside("its mask is absurdly large", _SMALLER) from error
    except Exception as error:  # whatever a decoder says of a damaged file
        raise SetAside("its mask cannot be read as a picture", _REPLACE) from error
    if marked.ndim != 2 or 0 in marked.shape:
        raise SetAside("its mask is no plain picture", _REPLACE)
    grey = Image.fromarray(marked.view(np.uint8) * np.uint8(255))
    resized = grey.resize((shape_HW[1], shape_HW[0]), Image.Resampling.BOX)
    return np.asarray(resized) >= 128


def _read_png(
    path: Path, extent_px: tuple[int, int], shape_HW: tuple[int, int]
) -> NDArray[np.bool_]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have our own limit
        picture = Image.open(path, formats=("PNG",))
    with picture:
        _check_size(picture.size, extent_px, len(picture.getbands()))
        coloured = "RGBA" if "transparency" in picture.info else "RGB"
        return _nonzero(np.asarray(picture.convert(coloured) if picture.mode == "P" else picture))


def _read_tiff(
    path: Path, extent_px: tuple[int, int], shape_HW: tuple[int, int]
) -> NDArray[np.bool_]:
    with tifffile.TiffFile(path) as file:
        levels = [level for level in file.series[0].levels if level.axes in ("YX", "YXS")]
        if not levels:
            raise SetAside("its mask has more than two dimensions", "save it as a plain picture")
        fine = [level for level in levels if np.all(np.array(level.shape[:2]) >= shape_HW)]
        level = min(fine or levels[:1], key=lambda level: level.shape[0])
        _check_size((levels[0].shape[1], levels[0].shape[0]), extent_px, 0)
        per_pixel = level.dtype.itemsize * math.prod(level.shape[2:])
        _check_size((level.shape[1], level.shape[0]), extent_px, per_pixel)
        if math.prod(level.keyframe.chunks) * level.dtype.itemsize > MAX_PICTURE_BYTES:
            raise SetAside("its mask states absurdly large tiles", _REPLACE)
        return _nonzero(level.asarray(maxworkers=1))


def _check_size(size: tuple[int, int], extent_px: tuple[int, int], bytes_per_pixel: int) -> None:
    expected = size[1] * extent_px[0] / extent_px[1]
    if abs(size[0] - expected) > max(1.0, ASPECT_SLACK * expected):
        raise SetAside(
            f"its mask ({size[0]} x {size[1]} pixels) has another shape than the slide "
            f"({extent_px[0]} x {extent_px[1]})",
            "give a mask of the whole slide, neither cropped nor turned",
        )
    if math.prod(size) * bytes_per_pixel > MAX_PICTURE_BYTES:
        raise SetAside(
            f"its mask is very large ({size[0]} x {size[1]} pixels)",
            _SMALLER,
        )


def _nonzero(picture: np.ndarray) -> NDArray[np.bool_]:
    """Tell which pixels are not 0, nor transparent where there is a channel for it."""
    marked_HWC = np.not_equal(np.atleast_3d(picture), 0)
    if marked_HWC.shape[2] in (2, 4):
        return np.asarray(marked_HWC[..., :-1].any(-1) & marked_HWC[..., -1])
    return np.asarray(marked_HWC.any(-1))
