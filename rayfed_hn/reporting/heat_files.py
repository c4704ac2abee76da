"""Attention for other programs: GeoJSON and a pyramidal TIFF, both of which QuPath opens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from rayfed_hn.files import write_atomically
from rayfed_hn.prediction.heat import Heat
from rayfed_hn.reporting.heat_layer import COLOURS, GRADES, grade_of

TILE_PX, SMALLEST_PX = 256, 512  # of the pyramid; its last level has no side above the second
JPEG_QUALITY = 88


def write_geojson(path: Path, heat: Heat) -> None:
    """Write a feature a tile, as QuPath's tile objects.

    A FeatureCollection of RFC 7946, but in level-0 pixels of the slide, x to the right and y down.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            file.write('{"type":"FeatureCollection","features":[\n')
            for number, feature in enumerate(_features(heat)):
                file.write(",\n" * bool(number))
                file.write(json.dumps(feature, separators=(",", ":"), allow_nan=False))
            file.write("\n]}\n")

    write_atomically(path, write)


def write_pyramid(
    path: Path, picture_HW3: NDArray[np.uint8], mpp: tuple[float, float] | None
) -> None:
    """Write a JPEG-tiled pyramid, every level half of the one before.

    Args:
        path: Where to.
        picture_HW3: The finest level, uint8 RGB.
        mpp: Its micrometres per pixel along x and y; None: not stated.
    """

    def write(temporary: Path) -> None:
        with tifffile.TiffWriter(temporary) as tiff:
            for number, level in enumerate(_levels(Image.fromarray(picture_HW3))):
                scale: dict[str, Any] = {}
                if mpp is not None:
                    per_cm = (
                        1e4 / mpp[0] * level.width / picture_HW3.shape[1],
                        1e4 / mpp[1] * level.height / picture_HW3.shape[0],
                    )
                    scale = {"resolution": per_cm, "resolutionunit": "CENTIMETER"}
                tiff.write(
                    np.asarray(level),
                    tile=(TILE_PX, TILE_PX),
                    compression="jpeg",
                    compressionargs={"level": JPEG_QUALITY},
                    photometric="rgb",  # stored as YCbCr
                    subfiletype=int(number > 0),
                    metadata=None,
                    software="rayfed_hn",
                    **scale,
                )

    write_atomically(path, write)


def _features(heat: Heat) -> Iterator[dict[str, Any]]:
    colours = {name: _colour(place) for place, (_, name) in enumerate(GRADES)}
    tiles = zip(
        heat.coords_N2.tolist(), heat.attention_N.tolist(), heat.percentiles.tolist(), strict=True
    )
    for (x, y), attention, percentile in tiles:
        name = grade_of(percentile)
        right, bottom = round(x + heat.tile_size0, 3), round(y + heat.tile_size0, 3)
        ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {
                "objectType": "tile",
                "classification": {"name": f"attention: {name}", "color": colours[name]},
                "measurements": {"attention": attention, "attention percentile": percentile},
            },
        }


def _colour(place: int) -> list[int]:
    """Of a grade, the first being the highest; evenly apart, to be told apart in QuPath."""
    return [round(255 * value) for value in COLOURS(1 - place / (len(GRADES) - 1))[:3]]


def _levels(picture: Image.Image) -> Iterator[Image.Image]:
    yield picture
    while max(picture.size) > SMALLEST_PX:
        picture = picture.reduce(2)
        yield picture
