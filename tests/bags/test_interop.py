from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from rayfed_hn.bags.bag import Bag
from rayfed_hn.bags.interop import is_feature_file, read_features, read_width, stated_recipe
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
    return read_features(path, **NAMES)


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
    assert read_width(path) == 3


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
            read_width(path)


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


def _save(path: Path, value: Any, **options: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(value, path, **options)
    return path


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensor_files_are_the_same_bag_as_hdf5(
    tmp_path: Path, dtype: torch.dtype, batched: bool, old: bool
) -> None:
    tensor = torch.from_numpy(FEATURES).to(dtype)
    value = tensor[None] if batched else tensor
    path = _save(tmp_path / "a.pt", value, _use_new_zipfile_serialization=not old)
    bag = _read(path)
    np.testing.assert_array_equal(bag.features_ND, FEATURES)
    assert bag.features_ND.dtype == np.float32
    assert bag.features_ND.flags.writeable
    assert (bag.coords_N2 == 0).all()
    assert read_width(path) == 3
    assert stated_recipe(path) == {}


def test_a_slice_of_a_tensor_is_read(tmp_path: Path) -> None:
    wide = torch.arange(24.0).reshape(4, 6)
    path = _save(tmp_path / "a.pt", torch.nn.Parameter(wide[:, 1:4]))
    np.testing.assert_array_equal(_read(path).features_ND, wide[:, 1:4])


def test_tiles_of_a_tensor_file_lie_where_its_sibling_says(tmp_path: Path) -> None:
    path = _save(tmp_path / "pt_files" / "a.pt", torch.from_numpy(FEATURES))
    (tmp_path / "h5_files").mkdir()
    sibling = tmp_path / "h5_files" / "a.h5"
    _write(sibling, {"patch_size_level0": 512}, features=FEATURES, coords=COORDS)
    np.testing.assert_array_equal(_read(path).coords_N2, COORDS)
    assert _read(path).tile_size0 == 512
    _write(sibling, features=FEATURES[1:], coords=COORDS[1:])
    assert (_read(path).coords_N2 == 0).all()
    sibling.write_bytes(b"damaged")
    assert (_read(path).coords_N2 == 0).all()
    elsewhere = _write(tmp_path / "b.h5", features=FEATURES, coords=COORDS)
    sibling.unlink()
    sibling.symlink_to(elsewhere)
    assert (_read(path).coords_N2 == 0).all()


class _Malicious:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("stolen"),)


_STRANGE = [
    (_Malicious(), "holds code"),
    ({"features": torch.zeros(2, 2)}, "other than one tensor"),
    ([torch.zeros(2, 2)], "other than one tensor"),
    (np.zeros((2, 2)), "holds code"),
    (torch.zeros(2, 2, dtype=torch.int64), "other than one tensor"),
    (torch.zeros(2, 2, dtype=torch.complex64), "other than one tensor"),
    (torch.zeros(2, 2).to_sparse(), "other than one tensor"),
    (torch.zeros(10**6, 1000, device="meta"), "other than one tensor"),
    (torch.zeros(1).expand(10**6, 1000), "other than one tensor"),
    (torch.zeros(0, 3), "no tiles"),
    (torch.zeros(3), "no table"),
    (torch.zeros(2, 2, 2), "no table"),
    (torch.zeros(1, 70_000), "too large"),
    (torch.full((2, 2), torch.nan), "finite"),
    (torch.full((2, 2), 1e300, dtype=torch.float64), "finite"),
]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(("value", "words"), _STRANGE)
def test_tensor_files_that_hold_anything_else_are_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, words: str, old: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _save(tmp_path / "a.pt", value, _use_new_zipfile_serialization=not old)
    with pytest.raises(SetAside, match=words):
        _read(path)
    assert not Path("stolen").exists()


def test_code_in_a_file_would_run_were_it_let(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.load(_save(tmp_path / "a.pt", _Malicious()), weights_only=False)
    assert Path("stolen").exists()


def test_compressed_archives_are_no_tensor_files(tmp_path: Path) -> None:
    whole = _save(tmp_path / "a.pt", torch.zeros(1000, 1000))
    with zipfile.ZipFile(whole) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(SetAside, match="compressed archive"):
        _read(tmp_path / "b.pt")


@pytest.mark.parametrize("old", [False, True])
def test_damaged_tensor_files_are_set_aside_or_read(tmp_path: Path, old: bool) -> None:
    tensor = torch.arange(600.0).reshape(20, 30)
    path = _save(tmp_path / "a.pt", tensor, _use_new_zipfile_serialization=not old)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for share in (0.0, 0.01, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(SetAside):
            _read(path)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=3):
            damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with contextlib.suppress(SetAside):
            assert _read(path).features_ND.dtype == np.float32
    with pytest.raises(SetAside, match="missing"):
        _read(tmp_path / "none.pt")
    with pytest.raises(SetAside, match="no file"):
        _read(_folder(tmp_path / "folder.pt"))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_which_files_are_features() -> None:
    yes = ("a.h5", "a.HDF5", "b.c.pt", "x/y.PT")
    assert all(is_feature_file(Path(name)) for name in yes)
    assert not any(is_feature_file(Path(name)) for name in ("a.svs", "pt", "a.pth", "a.h5.svs"))


def test_real_features(real_data: Path) -> None:
    path = real_data / "heart_sounds" / "features" / "a0001.h5"
    assert _read(path).features_ND.shape == (23, 72)
    assert read_width(path) == 72


@pytest.mark.parametrize("value", ["256", np.bytes_(b"256"), np.array(["256"], object)])
def test_texts_are_not_taken_for_numbers(tmp_path: Path, value: Any) -> None:
    path = _write(tmp_path / "a.h5", {"patch_size_level0": value}, features=FEATURES, coords=COORDS)
    assert _read(path).tile_size0 == 1


def test_bits_that_flip_in_hdf5_cost_the_file_and_nothing_else(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.h5", {"patch_size": 2.0}, features=FEATURES, coords=COORDS)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=3):
            damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with contextlib.suppress(SetAside):
            assert np.isfinite(_read(path).features_ND).all()
