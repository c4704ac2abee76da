"""Features that other programs made: HDF5 files in the layout of CLAM and TRIDENT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from rayfed_hn.bags.bag import Bag
from rayfed_hn.errors import SetAside

MAX_TILES = 2_000_000
MAX_FEATURES = 65_536
MAX_BYTES = 8 * 2**30  # as float32

_REMEDY = "extract its features again, or remove it from the manifest"


def read_h5_features(
    path: Path, *, slide_id: str, case_id: str, site: str, label: str, mpp: float | None = None
) -> Bag:
    """Read one feature file.

    Args:
        path: HDF5 with ``features`` (N, D) or (1, N, D) of any real type and, optionally,
            ``coords`` (N, 2) in level-0 pixels with the attribute ``patch_size_level0``.
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
    try:
        with h5py.File(path, "r") as file:
            features = _features(file)
            coords, size0 = _coords(file, len(features))
    except FileNotFoundError as error:
        raise SetAside("the file is missing", "correct its path in the manifest") from error
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise SetAside("is no readable HDF5 file, or damaged", _REMEDY) from error
    if not np.isfinite(features).all():
        raise SetAside("has features that are not finite numbers", _REMEDY)
    tissue = np.ones(len(features), np.float32)
    return Bag(slide_id, case_id, site, label, features, coords, tissue, size0, mpp)


def read_h5_width(path: Path) -> int:
    """Return D of a feature file without reading its features.

    Raises:
        SetAside: As for ``read_h5_features``.
    """
    try:
        with h5py.File(path, "r") as file:
            return _dataset(file, "features").shape[-1]
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        raise SetAside("is no readable HDF5 file, or damaged", _REMEDY) from error


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    # Only what lies in this very file: a link to another one, external storage or a virtual
    # dataset could read what the user may not have meant to give.
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise SetAside(f"has no dataset {name!r}", "give features as CLAM or TRIDENT write them")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise SetAside(f"has no dataset {name!r}", "give features as CLAM or TRIDENT write them")
    return dataset


def _features(file: h5py.File) -> NDArray[np.float32]:
    dataset = _dataset(file, "features")
    shape = dataset.shape[1:] if len(dataset.shape) == 3 else dataset.shape
    if len(shape) != 2 or dataset.size != shape[0] * shape[1] or dataset.dtype.kind not in "fiu":
        raise SetAside("has 'features' that are not a table of numbers (N, D)", _REMEDY)
    if 0 in shape:
        raise SetAside("has no tiles", "check how its tissue was found, or remove it")
    if shape[0] > MAX_TILES or shape[1] > MAX_FEATURES or 4 * shape[0] * shape[1] > MAX_BYTES:
        raise SetAside(f"is too large ({shape[0]} tiles of {shape[1]} features)", _REMEDY)
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite and is refused
        return np.asarray(dataset[()]).reshape(shape).astype(np.float32)


def _coords(file: h5py.File, num_tiles: int) -> tuple[NDArray[np.int64], float]:
    if "coords" not in file:
        return np.zeros((num_tiles, 2), np.int64), 1.0
    dataset = _dataset(file, "coords")
    shape = dataset.shape[1:] if len(dataset.shape) == 3 else dataset.shape
    if shape != (num_tiles, 2) or dataset.size != 2 * num_tiles or dataset.dtype.kind not in "fiu":
        raise SetAside("has 'coords' that are not one (x, y) for every tile", _REMEDY)
    coords = np.asarray(dataset[()], np.float64).reshape(shape)
    if not (np.abs(coords) < 2**52).all():
        raise SetAside("has 'coords' that are not finite pixels", _REMEDY)
    return np.rint(coords).astype(np.int64), _tile_size0(dataset.attrs)


def _tile_size0(attributes: Mapping[str, Any]) -> float:
    """Return the side of a tile in level-0 pixels, or 1 if the file does not say.

    TRIDENT states it; CLAM states the side on its level and that level's downsample factor.
    """
    size = _number(attributes, "patch_size_level0")
    if size is None:
        size = (_number(attributes, "patch_size") or 1.0) * (
            _number(attributes, "downsample") or 1.0
        )
    return size if 0 < size < 2**31 else 1.0


def _number(attributes: Mapping[str, Any], name: str) -> float | None:
    try:
        return float(np.ravel(attributes[name])[0])
    except (KeyError, TypeError, ValueError, IndexError):  # TRIDENT writes None as a text
        return None
