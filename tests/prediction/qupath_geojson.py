"""Reads GeoJSON as QuPath 0.4 and later do, and refuses what RFC 7946 does not allow.

QuPath's readers are PathObjectTypeAdapter, ROITypeAdapter and PathClassTypeAdapter: the type of an
object comes from ``properties.objectType`` (an annotation where it is not known), its class from
``properties.classification``, which must have a name and a colour, and its measurements are an
object of numbers. Of a polygon JTS wants a ring that is closed to the bit.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

OBJECT_TYPES = ("annotation", "detection", "tile", "cell", "tmaCore", "root")


@dataclass(frozen=True)
class PathObject:
    """What QuPath makes of a feature: ``ring`` has its first point at its end too."""

    object_type: str
    ring: list[tuple[float, float]]
    classification: str
    colour: tuple[int, int, int]
    measurements: dict[str, float]

    @property
    def corner(self) -> tuple[float, float]:
        return self.ring[0]


def read(path: Path) -> list[PathObject]:
    """The objects of a file.

    Raises:
        ValueError: It is no GeoJSON, or QuPath would not take it.
    """
    text = path.read_bytes().decode("utf-8")  # RFC 8259: UTF-8, and no byte order mark
    whole = json.loads(text, parse_constant=_no_number, object_pairs_hook=_no_twins)
    _demand(isinstance(whole, dict) and whole.get("type") == "FeatureCollection", "a collection")
    # crs went with RFC 7946; members of a geometry or a feature may not stand here (section 7.1).
    _demand(set(whole) == {"type", "features"}, f"members {sorted(whole)}")
    _demand(isinstance(whole["features"], list), "features are a list")
    return [_object(feature) for feature in whole["features"]]


def _object(feature: Any) -> PathObject:
    _demand(isinstance(feature, dict) and feature.get("type") == "Feature", "a feature")
    _demand({"geometry", "properties"} <= set(feature), "a feature has both")
    _demand(not {"coordinates", "geometries", "features", "crs"} & set(feature), "section 7.1")
    about = feature["properties"]
    _demand(about["objectType"] in OBJECT_TYPES, f"object type {about['objectType']!r}")
    named = about["classification"]
    _demand(isinstance(named["name"], str) and named["name"].strip() != "", "name of a class")
    _demand(
        len(named["color"]) == 3 and all(_is_byte(value) for value in named["color"]),
        f"colour {named['color']}",
    )
    for name, value in about["measurements"].items():
        _demand(isinstance(value, float) and math.isfinite(value), f"{name} is {value!r}")
    ring = _ring(feature["geometry"])
    return PathObject(
        about["objectType"], ring, named["name"], tuple(named["color"]), about["measurements"]
    )


def _ring(geometry: Any) -> list[tuple[float, float]]:
    _demand(geometry["type"] == "Polygon" and set(geometry) == {"type", "coordinates"}, "polygon")
    _demand(len(geometry["coordinates"]) == 1, "one ring, no hole")
    ring = geometry["coordinates"][0]
    _demand(len(ring) >= 4 and ring[0] == ring[-1], "a ring has four positions and is closed")
    for position in ring:
        _demand(len(position) == 2 and all(_is_number(value) for value in position), "position")
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2
    _demand(area > 0, f"the right-hand rule: outer rings run counterclockwise, area is {area}")
    return [(x, y) for x, y in ring]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    _demand(len(found) == len(pairs), "a member stands twice")
    return found


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)
