"""Writes bags as feature files that CLAM, HistoFL and TRIDENT's tools read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rayfed_hn.bags.bag import Bag
from rayfed_hn.bags.interop_h5 import STATED
from rayfed_hn.files import write_atomically

# TRIDENT's scale: 1 micrometre per pixel is 10x.
UM_PER_PIXEL_AT_1X = 10.0


def statement(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a store's recipe in the words of ``stated_recipe``.

    Args:
        recipe: Of bags that were made from tiles, or of imported features; of the latter, what
            their files stated is passed on.

    Returns:
        ``encoder``, ``patch_size`` (pixels at the target scale), ``target_magnification`` (10 over
        micrometres per pixel) and ``overlap`` (pixels), as far as they are known.
    """
    if "tile_px" not in recipe:
        return {k: recipe[k] for k in ("encoder", *STATED) if recipe.get(k) is not None}
    return {
        "encoder": recipe["encoder"],
        "patch_size": recipe["tile_px"],
        "target_magnification": _whole(UM_PER_PIXEL_AT_1X / recipe["mpp"]),
        "overlap": recipe["tile_px"] - recipe["stride_px"],
    }


def write_trident(bag: Bag, path: Path, stated: Mapping[str, Any]) -> None:
    """Write TRIDENT's file of features, atomically and readable by its owner only.

    ``features`` (N, D) float32 and ``coords`` (N, 2) int64 in level-0 pixels. They are stored in
    one piece: TRIDENT's own chunks of one row make reading several times slower.

    Args:
        bag: The bag. Tissue and artefact shares have no place in this layout.
        path: The file, by convention ``features_<encoder>/<slide_id>.h5``.
        stated: What ``statement`` or ``stated_recipe`` returns.
    """
    coords = {k: v for k, v in stated.items() if k != "encoder"}
    coords |= {"patch_size_level0": _whole(bag.tile_size0), "name": bag.slide_id}
    if bag.mpp is not None:
        coords["level0_magnification"] = _whole(UM_PER_PIXEL_AT_1X / bag.mpp)
    encoder = stated.get("encoder", "None")  # TRIDENT's own word for it
    _write_h5(bag, path, {"encoder": encoder, "name": bag.slide_id}, coords, np.int64)


def write_clam(bag: Bag, folder: Path) -> None:
    """Write CLAM's pair of files, ``h5_files/<slide_id>.h5`` and ``pt_files/<slide_id>.pt``.

    Like CLAM's own they do not name the encoder; ``coords`` has the side of a tile in addition.
    """
    attributes = {"patch_size_level0": _whole(bag.tile_size0), "name": bag.slide_id}
    path = folder / "h5_files" / f"{bag.slide_id}.h5"
    small = np.abs(bag.coords_N2).max() < 2**31  # CLAM's own type
    _write_h5(bag, path, {}, attributes, np.int32 if small else np.int64)
    write_pt(bag, folder / "pt_files" / f"{bag.slide_id}.pt")


def write_pt(bag: Bag, path: Path) -> None:
    """Write the features alone as a tensor (N, D), atomically."""
    import torch

    tensor = torch.from_numpy(np.array(bag.features_ND))  # a copy: the bag's may be read-only

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # not its name, which torch would write into it
            torch.save(tensor, file)

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, write)


def _write_h5(
    bag: Bag, path: Path, features: dict[str, Any], coords: dict[str, Any], coords_type: type
) -> None:
    def write(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            file.create_dataset("features", data=bag.features_ND).attrs.update(features)
            places = bag.coords_N2.astype(coords_type)
            file.create_dataset("coords", data=places).attrs.update(coords)

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, write)


def _whole(value: float) -> float | int:
    """TRIDENT's numbers are whole where they can be."""
    return int(value) if float(value).is_integer() else value
