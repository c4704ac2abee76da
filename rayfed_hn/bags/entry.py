"""The file format of one bag: an Arrow IPC file that is mapped, not read.

One record batch, uncompressed, with columns that are ours: ``features`` (a fixed-size list of D
float32), ``x``, ``y`` (int64), ``tissue`` and the artefacts ``blur``, ``pen``, ``black`` and
``white`` (float32, shares of the tile). The schema's metadata holds one JSON object with everything
else. No Ray type, no pickle: any Arrow reader opens it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from rayfed_hn.bags.bag import ARTEFACTS, Bag
from rayfed_hn.errors import DataError
from rayfed_hn.files import write_atomically

FORMAT_VERSION = 2
_KEY = b"rayfed_hn.bag"


@dataclass(frozen=True)
class BagEntry:
    """One entry of the store, without its features.

    Attributes:
        slide_id: Name of the slide.
        case_id: The patient or specimen.
        site: The hospital that owns it.
        label: The class, as text.
        num_tiles: N, the number of instances.
        path: The entry's file.
        feature_dim: D.
        tile_size0: Side of a tile in level-0 pixels.
        mpp: Micrometres per pixel of level 0, if known.
        recipe_sha256: Hash of the recipe that it was made by.
        source_sha256: Fingerprint of the slide's file at that time.
        reader: What read the pixels.
        time, event: Follow-up of the case; None where the manifest does not say.
    """

    slide_id: str
    case_id: str
    site: str
    label: str
    num_tiles: int
    path: Path
    feature_dim: int = 0
    tile_size0: float = 1.0
    mpp: float | None = None
    recipe_sha256: str = ""
    source_sha256: str = ""
    reader: str = ""
    time: float | None = None
    event: bool | None = None


def write_entry(path: Path, bag: Bag, recipe_sha256: str) -> None:
    """Write a bag atomically."""
    header = {
        "format": FORMAT_VERSION,
        "slide_id": bag.slide_id,
        "case_id": bag.case_id,
        "site": bag.site,
        "label": bag.label,
        "tile_size0": float(bag.tile_size0),
        "mpp": None if bag.mpp is None else float(bag.mpp),
        "recipe_sha256": recipe_sha256,
        "source_sha256": bag.source_sha256,
        "reader": bag.reader,
    }
    if bag.time is not None:
        header |= {"time": float(bag.time), "event": bool(bag.event)}
    schema = _schema(bag.feature_dim).with_metadata({_KEY: json.dumps(header, sort_keys=True)})
    flat = pa.array(np.ascontiguousarray(bag.features_ND).ravel())
    features = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("features").type)
    columns = [*bag.coords_N2.T, bag.tissue_N, *bag.artefacts_N4.T]
    batch = pa.record_batch(
        [features, *(pa.array(np.ascontiguousarray(column)) for column in columns)], schema=schema
    )

    def write(temporary: Path) -> None:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(batch)

    write_atomically(path, write)


def read_entry(path: Path) -> BagEntry:
    """Read what the entry says of itself; the features stay on disk.

    Raises:
        DataError: It is damaged, of another format, or under another name than its own.
    """
    return _open(path)[0]


def read_bag(path: Path) -> Bag:
    """Map a bag into memory; its features are a read-only view of the file.

    Raises:
        DataError: As for ``read_entry``.
    """
    entry, columns = _open(path)
    try:
        return Bag(
            entry.slide_id,
            entry.case_id,
            entry.site,
            entry.label,
            features_ND=columns["features"].reshape(entry.num_tiles, entry.feature_dim),
            coords_N2=np.stack([columns["x"], columns["y"]], axis=1),
            tissue_N=columns["tissue"],
            tile_size0=entry.tile_size0,
            mpp=entry.mpp,
            artefacts_N4=np.stack([columns[name] for name in ARTEFACTS], axis=1),
            source_sha256=entry.source_sha256,
            reader=entry.reader,
            time=entry.time,
            event=entry.event,
            verify=False,
        )
    except ValueError as error:
        raise _damaged(path, str(error)) from error


def content_digest(path: Path) -> str:
    """SHA-256 (hex) of the entry's values; it does not depend on how Arrow lays out the file."""
    bag = read_bag(path)
    header = [bag.slide_id, bag.case_id, bag.site, bag.label, bag.tile_size0, bag.mpp, len(bag)]
    header += [bag.source_sha256, bag.reader, bag.time, bag.event]
    total = hashlib.sha256(json.dumps(header).encode())
    for array in (bag.features_ND, bag.coords_N2, bag.tissue_N, bag.artefacts_N4):
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def _schema(feature_dim: int) -> pa.Schema:
    value = pa.field("item", pa.float32(), nullable=False)
    columns = {"features": pa.list_(value, feature_dim), "x": pa.int64(), "y": pa.int64()}
    columns |= dict.fromkeys(("tissue", *ARTEFACTS), pa.float32())
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


def _open(path: Path) -> tuple[BagEntry, dict[str, np.ndarray]]:
    try:
        # The arrays keep the mapping alive; the file itself is closed, so that thousands of
        # open bags do not exhaust file descriptors.
        with pa.memory_map(str(path)) as source:
            batch = _only_batch(pa.ipc.open_file(source))
        entry = _entry(path, batch)
        columns = {name: batch.column(name) for name in ("x", "y", "tissue", *ARTEFACTS)}
        columns["features"] = batch.column("features").flatten()
        return entry, {k: v.to_numpy(zero_copy_only=True) for k, v in columns.items()}
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(path, type(error).__name__) from error


def _only_batch(reader: Any) -> pa.RecordBatch:
    if reader.num_record_batches != 1:
        raise ValueError("not one record batch")
    batch = reader.get_batch(0)
    batch.validate()
    return batch


def _entry(path: Path, batch: pa.RecordBatch) -> BagEntry:
    header = json.loads((batch.schema.metadata or {})[_KEY])
    if header["format"] != FORMAT_VERSION:
        raise DataError(
            f"{path}: written in format {header['format']} of the bag store, this version reads "
            f"format {FORMAT_VERSION}; embed into a new data.bags"
        )
    features = batch.schema.field("features").type
    if not pa.types.is_fixed_size_list(features):
        raise TypeError("features")
    if not batch.schema.equals(_schema(features.list_size)) or batch.num_rows < 1:
        raise TypeError("schema")
    if (path.stem, path.parent.name) != (header["slide_id"], f"site={header['site']}"):
        raise DataError(
            f"{path}: holds slide {header['slide_id']!r} of site {header['site']!r}; entries "
            "cannot be renamed or moved: delete it and run rayfed-hn embed again"
        )
    names = ("slide_id", "case_id", "site", "label", "tile_size0", "mpp", "recipe_sha256")
    names += ("source_sha256", "reader")
    return BagEntry(
        num_tiles=batch.num_rows,
        path=path,
        feature_dim=features.list_size,
        **{name: header[name] for name in names},
        **{name: header.get(name) for name in ("time", "event")},
    )


def _damaged(path: Path, detail: str) -> DataError:
    return DataError(
        f"{path}: the entry is damaged ({detail}); delete it and run rayfed-hn embed again"
    )
