"""Features in HDF5, as CLAM (``h5_files``) and TRIDENT write them.

CLAM: ``features`` (N, D) float32 and ``coords`` (N, 2) int32, no attributes. TRIDENT: the same with
int64 coordinates; ``features`` names its encoder, ``coords`` its scale. Both in level-0 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from rayfed_hn.bags.limits import REMEDY, as_float32, check_size
from rayfed_hn.errors import SetAside

# What TRIDENT and CLAM state once for all slides of a run; what differs from slide to slide
# (patch_size_level0, level0_magnification) says nothing of whether two files go together.
STATED = ("patch_size", "patch_level", "target_magnification", "overlap")
MAX_TEXT = 200


@dataclass(frozen=True)
class TileCoords:
    """Where the tiles of a feature file lie.

    Attributes:
        coords_N2: int64 top left corners in level-0 pixels.
        tile_size0: Side of a tile in level-0 pixels, 1 if the file does not say.
    """

    coords_N2: NDArray[np.int64]
    tile_size0: float

    @classmethod
    def unknown(cls, num_tiles: int) -> TileCoords:
        """All tiles at the origin."""
        return cls(np.zeros((num_tiles, 2), np.int64), 1.0)


def read_h5(path: Path) -> tuple[NDArray[np.float32], TileCoords]:
    """Read features (N, D) and the tiles' places; without ``coords`` these are unknown.

    Raises:
        SetAside: Missing, damaged, of another layout, empty, absurdly large, or not finite.
    """
    with _opened(path) as file:
        features = _features(file)
        place = _coords(file, len(features)) if "coords" in file else None
        return features, place or TileCoords.unknown(len(features))


def read_h5_coords(path: Path, num_tiles: int) -> TileCoords | None:
    """Read only the tiles' places; None if the file has none for exactly this many tiles."""
    try:
        with _opened(path) as file:
            return _coords(file, num_tiles)
    except SetAside:
        return None


def read_h5_width(path: Path) -> int:
    """Return D without reading features.

    Raises:
        SetAside: As for ``read_h5``.
    """
    with _opened(path) as file:
        return _table(_dataset(file, "features"))[1]


def read_h5_statement(path: Path) -> dict[str, Any]:
    """Return what the file states of its making: ``encoder`` and those of ``STATED`` it has.

    Only for a process that may be lost: on the texts of a damaged file HDF5 2.0 can crash or never
    come back. Everything else here reads numbers alone.

    Raises:
        SetAside: As for ``read_h5``.
    """
    with _opened(path) as file:
        encoder = _text(_dataset(file, "features").attrs, "encoder")
        found: dict[str, Any] = {"encoder": encoder or None}
        if "coords" in file:
            coords = _dataset(file, "coords").attrs
            found |= {name: _plain(_number(coords, name)) for name in STATED}
        return {name: value for name, value in found.items() if value is not None}


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError as error:
        raise SetAside("the file is missing", "correct its path in the manifest") from error
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise SetAside("is no readable HDF5 file, or damaged", REMEDY) from error


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    # Only what lies in this very file: a link to another one, external storage or a virtual
    # dataset could read what the user may not have meant to give.
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise SetAside(f"has no dataset {name!r}", "give features as CLAM or TRIDENT write them")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise SetAside(f"has no dataset {name!r}", "give features as CLAM or TRIDENT write them")
    return dataset


def _table(dataset: h5py.Dataset) -> tuple[int, int]:
    shape = dataset.shape[1:] if len(dataset.shape) == 3 else dataset.shape
    if len(shape) != 2 or dataset.size != shape[0] * shape[1] or dataset.dtype.kind not in "fiu":
        raise SetAside("has 'features' that are not a table of numbers (N, D)", REMEDY)
    return shape[0], shape[1]


def _features(file: h5py.File) -> NDArray[np.float32]:
    dataset = _dataset(file, "features")
    shape = _table(dataset)
    check_size(*shape)
    return as_float32(np.asarray(dataset[()]).reshape(shape))


def _coords(file: h5py.File, num_tiles: int) -> TileCoords:
    dataset = _dataset(file, "coords")
    shape = dataset.shape[1:] if len(dataset.shape) == 3 else dataset.shape
    if shape != (num_tiles, 2) or dataset.size != 2 * num_tiles or dataset.dtype.kind not in "fiu":
        raise SetAside("has 'coords' that are not one (x, y) for every tile", REMEDY)
    coords = np.asarray(dataset[()], np.float64).reshape(shape)
    if not (np.abs(coords) < 2**52).all():
        raise SetAside("has 'coords' that are not finite pixels", REMEDY)
    return TileCoords(np.rint(coords).astype(np.int64), _tile_size0(dataset.attrs))


def _tile_size0(attributes: h5py.AttributeManager) -> float:
    """Return the side of a tile in level-0 pixels, or 1 if the file does not say.

    TRIDENT states it; CLAM states the side on its level and that level's downsample factor.
    """
    size = _number(attributes, "patch_size_level0")
    if size is None:
        size = (_number(attributes, "patch_size") or 1.0) * (
            _number(attributes, "downsample") or 1.0
        )
    return size if 0 < size < 2**31 else 1.0


def _number(attributes: h5py.AttributeManager, name: str) -> float | None:
    try:
        # A text (TRIDENT writes None as one) is not even read: see read_h5_statement.
        if attributes.get_id(name).dtype.kind not in "fiu":
            return None
        value: Any = attributes[name]
        return float(np.ravel(value)[0])
    except (KeyError, TypeError, ValueError, IndexError, OSError, RuntimeError):
        return None


def _plain(value: float | None) -> float | int | None:
    if value is None or not np.isfinite(value):
        return None
    return int(value) if value.is_integer() else value


def _text(attributes: h5py.AttributeManager, name: str) -> str:
    value = attributes.get(name)
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return text[:MAX_TEXT] if isinstance(text, str) and text != "None" else ""
