"""How large a pixel is. Pure: a slide's properties in, micrometres per pixel out.

Asked in this order, and the first that gives a plausible answer counts:

1. ``mpp`` in the manifest;
2. OpenSlide's own answer (``openslide.mpp-x``, ``-y``), which knows most vendors' properties;
3. what vendors write that OpenSlide does not take up;
4. OME-XML in the description of the picture (``PhysicalSizeX``, ``-Y`` and their units);
5. the resolution tags of the TIFF.

The magnification of the objective is never used as a scale: what "20x" means differs by a quarter
between scanners. Sources that contradict each other are named in notes.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from rayfed_hn.errors import SetAside

PLAUSIBLE_MPP = (0.05, 20.0)  # outside of it a resolution tag says 72 or 96 dpi or the like
MAX_ANISOTROPY = 1.05
MAX_DISAGREEMENT = 1.05  # two sources that differ by more are worth a note
MAX_MAGNIFICATION_ERROR = 1.5
UM_PER_PIXEL_AT_1X = 10.0  # by convention: 20x is about 0.5 um/px

_MICROMETRES = {"": 1.0, "nm": 1e-3, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25_400.0}
_MICROMETRES |= {"\N{MICRO SIGN}m": 1.0, "\N{GREEK SMALL LETTER MU}m": 1.0, "centimeter": 1e4}
_VENDORS_OWN = ("aperio.MPP", "ventana.ScanRes")
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\s([^>]*)>")
_PIXEL_SIZE = re.compile(r"<PixelSizeMicrons>\s*([^<\s]{1,32})\s*</PixelSizeMicrons>")


class Stated(NamedTuple):
    """A scale and who states it; micrometres per pixel across and down."""

    source: str
    x: float
    y: float

    @property
    def mpp(self) -> float:
        return math.sqrt(self.x * self.y)


def find_scale(
    properties: Mapping[str, str], manifest_mpp: float | None = None
) -> tuple[float, tuple[str, ...]]:
    """Return the micrometres per pixel of level 0 and notes on what contradicts it.

    Args:
        properties: As OpenSlide gives them; empty for a plain picture.
        manifest_mpp: What the user states.

    Raises:
        SetAside: Nothing states a usable scale, or it differs between across and down.
    """
    stated = [scale for scale in _stated(properties, manifest_mpp) if _is_plausible(scale)]
    if not stated:
        raise SetAside(
            "states no scale (no usable micrometres per pixel in the file)",
            "give mpp in the manifest",
        )
    used, *others = stated
    if max(used.x, used.y) / min(used.x, used.y) > MAX_ANISOTROPY:
        raise SetAside(
            f"states two scales ({used.x:g} and {used.y:g} um/px across and down)",
            "give mpp in the manifest",
        )
    notes = [_contradiction(used, other) for other in others if _differ(used.mpp, other.mpp)]
    power = _number(properties.get("openslide.objective-power"))
    expected = UM_PER_PIXEL_AT_1X / power if 0 < power < math.inf else math.nan
    if max(expected / used.mpp, used.mpp / expected) > MAX_MAGNIFICATION_ERROR:
        notes.append(
            f"{used.source} states {used.mpp:g} um/px, but the objective is said to magnify "
            f"{power:g} times (about {expected:g} um/px); {used.mpp:g} is used"
        )
    return used.mpp, tuple(notes)


def _stated(properties: Mapping[str, str], manifest_mpp: float | None) -> list[Stated]:
    scales = [Stated("the manifest", manifest_mpp, manifest_mpp)] if manifest_mpp else []
    pair = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    scales.append(Stated("the scanner (openslide.mpp)", *pair))
    for name in _VENDORS_OWN:
        value = _number(properties.get(name))
        scales.append(Stated(f"the scanner ({name})", value, value))
    scales += _in_comment(properties.get("openslide.comment", ""))
    scales += _ome(properties.get("tiff.ImageDescription", ""))
    unit = _MICROMETRES.get(properties.get("tiff.ResolutionUnit", "none").lower(), math.nan)
    density = [_number(properties.get(f"tiff.{axis}Resolution")) for axis in "XY"]
    pair = (unit / value if value else math.nan for value in density)
    return [*scales, Stated("the TIFF resolution tags", *pair)]


def _in_comment(comment: str) -> list[Stated]:
    found = _PIXEL_SIZE.search(comment)
    if found is None:
        return []
    value = _number(found[1])
    return [Stated("the description (PixelSizeMicrons)", value, value)]


def _ome(description: str) -> list[Stated]:
    """Read the first ``Pixels`` element of OME-XML by its text: no parser, so no entities."""
    found = _PIXELS.search(description)
    if found is None:
        return []
    sizes = [_ome_size(found[1], axis) for axis in "XY"]
    return [Stated("OME-XML (PhysicalSize)", *sizes)]


def _ome_size(attributes: str, axis: str) -> float:
    size = re.search(rf'\bPhysicalSize{axis}\s*=\s*["\']([^"\']*)', attributes)
    unit = re.search(rf'\bPhysicalSize{axis}Unit\s*=\s*["\']([^"\']*)', attributes)
    per_unit = _MICROMETRES.get(html.unescape(unit[1]).strip() if unit else "", math.nan)
    return _number(size[1] if size else None) * per_unit


def _is_plausible(scale: Stated) -> bool:
    if scale.source == "the manifest":  # checked where the manifest is read
        return True
    low, high = PLAUSIBLE_MPP
    return low <= scale.x <= high and low <= scale.y <= high


def _differ(one: float, other: float) -> bool:
    return max(one, other) / min(one, other) > MAX_DISAGREEMENT


def _contradiction(used: Stated, other: Stated) -> str:
    return (
        f"{used.source} states {used.mpp:g} um/px and {other.source} {other.mpp:g}; "
        f"{used.mpp:g} is used"
    )


def _number(text: str | None) -> float:
    try:
        return float(text.replace(",", ".")) if text is not None else math.nan
    except ValueError:
        return math.nan
