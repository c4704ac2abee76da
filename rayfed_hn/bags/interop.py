"""Features that other programs made: CLAM's ``.h5`` and ``.pt`` files and TRIDENT's ``.h5``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rayfed_hn.bags.bag import Bag
from rayfed_hn.bags.interop_h5 import (
    TileCoords,
    read_h5,
    read_h5_coords,
    read_h5_statement,
    read_h5_width,
)
from rayfed_hn.bags.interop_pt import read_pt, read_pt_width

__all__ = ["is_feature_file", "read_features", "read_width", "stated_recipe"]

_HDF5 = (".h5", ".hdf5")
_TORCH = (".pt",)


def is_feature_file(path: Path) -> bool:
    """Return whether a file is taken for features, by its suffix."""
    return path.suffix.lower() in (*_HDF5, *_TORCH)


def read_features(
    path: Path, *, slide_id: str, case_id: str, site: str, label: str, mpp: float | None = None
) -> Bag:
    """Read one feature file.

    Args:
        path: HDF5 with ``features`` (N, D) or (1, N, D) of any real type and, optionally,
            ``coords`` (N, 2) in level-0 pixels with the attribute ``patch_size_level0``; or a
            tensor file. The tiles of ``pt_files/NAME.pt`` lie where ``h5_files/NAME.h5`` says,
            if that is there and has as many.
        slide_id: Name of the slide.
        case_id: The patient or specimen.
        site: The hospital that owns it.
        label: The class.
        mpp: Micrometres per pixel of level 0, if known.

    Returns:
        The bag. Without coordinates these are zero; all tiles count as tissue.

    Raises:
        SetAside: Missing, damaged, of another layout, empty, absurdly large, or not finite.
    """
    if path.suffix.lower() in _TORCH:
        features = read_pt(path)
        place = _beside(path, len(features)) or TileCoords.unknown(len(features))
    else:
        features, place = read_h5(path)
    tissue = np.ones(len(features), np.float32)
    return Bag(
        *(slide_id, case_id, site, label, features, place.coords_N2, tissue, place.tile_size0, mpp)
    )


def read_width(path: Path) -> int:
    """Return D of a feature file without reading its features.

    Raises:
        SetAside: As for ``read_features``.
    """
    return read_pt_width(path) if path.suffix.lower() in _TORCH else read_h5_width(path)


def stated_recipe(path: Path) -> dict[str, Any]:
    """Return what a feature file states of its making, the same for all slides of one run.

    Only for a process that may be lost: on a damaged file HDF5 can crash here or never come back.

    Returns:
        JSON values of ``encoder``, ``patch_size``, ``patch_level``, ``target_magnification`` and
        ``overlap``, as far as they are stated: TRIDENT states most, CLAM nothing.

    Raises:
        SetAside: As for ``read_features``.
    """
    return {} if path.suffix.lower() in _TORCH else read_h5_statement(path)


def _beside(path: Path, num_tiles: int) -> TileCoords | None:
    if path.parent.name != "pt_files":
        return None
    sibling = path.parent.parent / "h5_files" / f"{path.stem}.h5"
    # Never through a link: the manifest's root was checked for the .pt file only.
    if sibling.is_symlink() or sibling.parent.is_symlink():
        return None
    return read_h5_coords(sibling, num_tiles)
