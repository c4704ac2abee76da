"""Opening a bag and summing its features: our store against HDF5 in (1, D) chunks.

CLAM and TRIDENT append tile by tile, which leaves one chunk a tile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rayfed_hn.bags import store
from rayfed_hn.bags.bag import Bag

TILES, FEATURES, REPEATS = 15_000, 1_024, 7


def measure_bags(work: Path) -> Iterator[dict[str, Any]]:
    """Yield one record per layout, then the ratio; the files are in the page cache for all."""
    features_ND = np.random.default_rng(0).random((TILES, FEATURES), np.float32)
    root = work / "bags"
    store.create(root, {"feature_dim": FEATURES})
    coords, tissue = np.zeros((TILES, 2), np.int64), np.ones(TILES, np.float32)
    store.write(root, Bag("a", "c", "north", "x", features_ND, coords, tissue, 256.0))
    files = {chunk: work / f"chunks-{chunk}.h5" for chunk in (1, 256)}
    for chunk, path in files.items():
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=features_ND, chunks=(chunk, FEATURES))

    def ours() -> float:
        return float(store.SiteBags(root, "north").load(0).features_ND.sum())

    def hdf5(path: Path) -> Callable[[], float]:
        def read() -> float:
            with h5py.File(path, "r") as file:
                dataset: Any = file["features"]
                return float(dataset[()].sum())

        return read

    expected = float(features_ND.sum())
    ways = {
        "rayfed_hn store": ours,
        "HDF5, chunks of (1, D)": hdf5(files[1]),
        "HDF5, chunks of (256, D)": hdf5(files[256]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):  # in turn, so that a busy moment of the machine meets all
        for name, read in ways.items():
            started = time.perf_counter()
            total = read()
            seconds[name].append(time.perf_counter() - started)
            if total != expected:
                raise RuntimeError(f"{name} gives another sum")
    best = {name: min(times) for name, times in seconds.items()}
    for name, value in best.items():
        yield {"what": "open a bag and sum it", "layout": name, "seconds": round(value, 5)}
    ratio = best["HDF5, chunks of (1, D)"] / best["rayfed_hn store"]
    yield {"what": "bag opening, ratio to HDF5 in (1, D) chunks", "ratio": round(ratio, 2)}
