from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rayfed_hn.bags.bag import Bag
from rayfed_hn.bags.interop import read_h5_features, read_h5_width
from rayfed_hn.errors import SetAside

NAMES: dict[str, Any] = {"slide_id": "s", "case_id": "c", "site": "n", "label": "x"}
FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)
COORDS = np.arange(8).reshape(4, 2)


def _write(path: Path, attrs: dict[str, Any] | None = None, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value
        for name, value in (attrs or {}).items():
            file["coords"].attrs[name] = value
    return path


def _read(path: Path) -> Bag:
    return read_h5_features(path, **NAMES)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("batched", [False, True])
def test_layouts_of_clam_and_trident_are_the_same_bag(
    tmp_path: Path, dtype: type, batched: bool
) -> None:
    lead = (None,) if batched else ()
    path = _write(
        tmp_path / "a.h5",
        {"patch_size_level0": 512},
        features=FEATURES.astype(dtype)[lead or ...],
        coords=COORDS.astype(np.int32)[lead or ...],
    )
    bag = _read(path)
    np.testing.assert_array_equal(bag.features_ND, FEATURES)
    np.testing.assert_array_equal(bag.coords_N2, COORDS)
    assert (bag.tile_size0, bag.slide_id, bag.label) == (512, "s", "x")
    assert read_h5_width(path) == 3


@pytest.mark.parametrize(
    ("attrs", "size"),
    [
        ({"patch_size": 256, "downsample": np.array([2.0, 2.0])}, 512),  # CLAM
        ({"patch_size": 256, "patch_size_level0": "None"}, 256),  # TRIDENT's None
        ({}, 1),
        ({"patch_size_level0": -4}, 1),
        ({"patch_size_level0": float("nan")}, 1),
    ],
)
def test_side_of_a_tile(tmp_path: Path, attrs: dict[str, Any], size: float) -> None:
    path = _write(tmp_path / "a.h5", attrs, features=FEATURES, coords=COORDS)
    assert _read(path).tile_size0 == size


def test_coordinates_are_optional(tmp_path: Path) -> None:
    bag = _read(_write(tmp_path / "a.h5", features=FEATURES))
    assert (bag.coords_N2 == 0).all()
    assert (bag.tissue_N == 1).all()


@pytest.mark.parametrize(
    ("datasets", "words"),
    [
        ({"feats": FEATURES}, "no dataset 'features'"),
        ({"features": np.zeros((0, 3), np.float32)}, "no tiles"),
        ({"features": np.zeros(3)}, "table of numbers"),
        ({"features": np.zeros((2, 4, 3))}, "table of numbers"),
        ({"features": b"text"}, "table of numbers"),
        ({"features": np.full((4, 3), np.inf)}, "finite"),
        ({"features": np.full((4, 3), 1e300)}, "finite"),
        ({"features": np.zeros((1, 70_000), np.int8)}, "too large"),
        ({"features": FEATURES, "coords": COORDS[:3]}, "one .x, y. for every tile"),
        ({"features": FEATURES, "coords": COORDS * np.nan}, "finite pixels"),
        ({"features": h5py.ExternalLink("secret.h5", "features")}, "no dataset"),
        ({"features": h5py.SoftLink("/coords"), "coords": FEATURES}, "no dataset"),
    ],
)
def test_unusable_features_are_set_aside(
    tmp_path: Path, datasets: dict[str, Any], words: str
) -> None:
    _write(tmp_path / "secret.h5", features=FEATURES)
    with pytest.raises(SetAside, match=words):
        _read(_write(tmp_path / "a.h5", **datasets))


@pytest.mark.parametrize("name", ["features", "coords"])
def test_virtual_datasets_read_no_other_file(tmp_path: Path, name: str) -> None:
    values: dict[str, Any] = {"features": FEATURES, "coords": COORDS.astype(np.float32)}
    secret = _write(tmp_path / "secret.h5", **values)
    whole = values.pop(name)
    path = _write(tmp_path / "a.h5", **values)
    layout = h5py.VirtualLayout(whole.shape, whole.dtype)
    layout[...] = h5py.VirtualSource(secret, name, whole.shape)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset(name, layout)
        assert (file[name][()] == whole).all()  # type: ignore[index]
    with pytest.raises(SetAside, match=f"no dataset '{name}'"):
        _read(path)
    if name == "features":
        with pytest.raises(SetAside, match="no dataset"):
            read_h5_width(path)


def test_damaged_files_are_set_aside(tmp_path: Path) -> None:
    whole = _write(tmp_path / "a.h5", features=np.ones((1000, 30))).read_bytes()
    for share in (0.0, 0.01, 0.5, 0.99):
        path = tmp_path / "cut.h5"
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(SetAside) as error:
            _read(path)
        assert "cut.h5" not in str(error.value)
    with pytest.raises(SetAside, match="missing"):
        _read(tmp_path / "none.h5")


def test_real_features(real_data: Path) -> None:
    path = real_data / "heart_sounds" / "features" / "a0001.h5"
    assert _read(path).features_ND.shape == (23, 72)
