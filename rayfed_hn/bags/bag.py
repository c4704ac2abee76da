"""A bag: the features of the tiles of one slide."""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass

import numpy as np
from numpy.typing import NDArray

ARTEFACTS = ("blur", "pen", "black", "white")


@dataclass(frozen=True, eq=False)
class Bag:
    """What training and reporting know of a slide.

    Attributes:
        slide_id: Name of the slide.
        case_id: The patient or specimen.
        site: The hospital that owns it.
        label: The class, as text.
        features_ND: float32, one row per tile.
        coords_N2: int64 top left corners (x, y) of the tiles in level-0 pixels.
        tissue_N: float32, the share of every tile that is tissue.
        tile_size0: Side of a tile in level-0 pixels.
        mpp: Micrometres per pixel of level 0, if known.
        artefacts_N4: float32, the share of every tile that each of ``ARTEFACTS`` covers; NaN where
            nobody measured it (default: all NaN).
        source_sha256: Fingerprint of the file it was made from (``rayfed_hn.files.fingerprint``).
        reader: What read the pixels: jpeg-tiff, openslide, image, or "" for imported features.
        time: Follow-up of the case until its event or the end of observation, in the manifest's
            unit; None where the manifest does not say.
        event: Whether it ended with the event (False: censored); None as for ``time``.
        verify: False skips reading every value; for features that were verified when written.

    Raises:
        ValueError: A shape or type is wrong, there is no instance, or a value is not finite.
    """

    slide_id: str
    case_id: str
    site: str
    label: str
    features_ND: NDArray[np.float32]
    coords_N2: NDArray[np.int64]
    tissue_N: NDArray[np.float32]
    tile_size0: float
    mpp: float | None = None
    artefacts_N4: NDArray[np.float32] = None  # pyright: ignore[reportAssignmentType]
    source_sha256: str = ""
    reader: str = ""
    time: float | None = None
    event: bool | None = None
    verify: InitVar[bool] = True

    def __post_init__(self, verify: bool) -> None:
        if self.artefacts_N4 is None:
            unknown = np.full((len(self), len(ARTEFACTS)), np.nan, np.float32)
            object.__setattr__(self, "artefacts_N4", unknown)
        _check_shapes(self)
        if verify and not (
            np.isfinite(self.features_ND).all() and np.isfinite(self.tissue_N).all()
        ):
            raise ValueError("features or tissue shares hold values that are not finite")

    def __len__(self) -> int:
        return len(self.features_ND)

    @property
    def feature_dim(self) -> int:
        """D, the number of features of a tile."""
        return self.features_ND.shape[1]


def _check_shapes(bag: Bag) -> None:
    if bag.features_ND.ndim != 2 or 0 in bag.features_ND.shape:
        raise ValueError(f"features must be (N, D) with N, D >= 1, not {bag.features_ND.shape}")
    for name, array, shape, dtype in (
        ("features", bag.features_ND, bag.features_ND.shape, np.float32),
        ("coords", bag.coords_N2, (len(bag), 2), np.int64),
        ("tissue", bag.tissue_N, (len(bag),), np.float32),
        ("artefacts", bag.artefacts_N4, (len(bag), len(ARTEFACTS)), np.float32),
    ):
        if array.shape != shape or array.dtype != dtype:
            expected = f"{np.dtype(dtype).name} {shape}"
            raise ValueError(f"{name} must be {expected}, not {array.dtype} {array.shape}")
    if not (math.isfinite(bag.tile_size0) and bag.tile_size0 > 0):
        raise ValueError(f"tile_size0 must be positive, not {bag.tile_size0}")
    if (bag.time is None) != (bag.event is None):
        raise ValueError("time and event must be given together")
    if bag.time is not None and not (math.isfinite(bag.time) and bag.time > 0):
        raise ValueError(f"time must be positive, not {bag.time}")
    if bag.mpp is not None and not (math.isfinite(bag.mpp) and bag.mpp > 0):
        raise ValueError(f"mpp must be positive, not {bag.mpp}")
