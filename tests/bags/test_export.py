"""What goes out in the layouts of CLAM and TRIDENT comes back as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rayfed_hn.bags.bag import Bag
from rayfed_hn.bags.clam_tables import read_clam_table
from rayfed_hn.bags.export import export
from rayfed_hn.bags.interop import read_features, read_width, stated_recipe
from rayfed_hn.bags.interop_write import statement, write_clam, write_trident
from rayfed_hn.bags.store import SiteBags, create, list_sites, write
from rayfed_hn.errors import DataError
from rayfed_hn.slides.manifest import SlideRecord, read_manifest
from rayfed_hn.slides.manifest_builders import clam

NAMES: dict[str, Any] = {"slide_id": "s", "case_id": "c", "site": "n", "label": "x"}
FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)
COORDS = np.arange(8).reshape(4, 2)

_STATEMENTS = st.fixed_dictionaries(
    {},
    optional={
        "encoder": st.text("abcXYZ_0-9µ", min_size=1, max_size=12),
        "patch_size": st.integers(1, 4096),
        "target_magnification": st.integers(1, 80) | st.floats(0.5, 80).filter(lambda x: x % 1),
        "overlap": st.integers(0, 512),
    },
)
_FINITE = {"allow_nan": False, "allow_infinity": False}
_BAGS = st.builds(
    lambda features, corner, size, mpp: Bag(
        *("s", "c", "n", "x", features),
        np.add.outer(np.arange(len(features)), np.array([0, corner], np.int64)).astype(np.int64),
        np.ones(len(features), np.float32),
        *(size, mpp),
    ),
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(width=32, **_FINITE),
    ),
    st.integers(0, 2**40),
    st.floats(0.1, 1e6) | st.integers(1, 4096).map(float),
    st.none() | st.floats(0.05, 10),
)


def _assert_equal(found: Bag, bag: Bag) -> None:
    assert found.features_ND.tobytes() == bag.features_ND.tobytes()
    np.testing.assert_array_equal(found.coords_N2, bag.coords_N2)
    assert (found.tile_size0, found.mpp) == (bag.tile_size0, bag.mpp)
    assert (found.slide_id, found.case_id) == (bag.slide_id, bag.case_id)
    assert (found.site, found.label) == (bag.site, bag.label)


@settings(max_examples=40)  # three files on the disk each
@given(_BAGS, _STATEMENTS)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, bag: Bag, stated: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "written"
    write_trident(bag, folder / "features_x" / "s.h5", stated)
    write_clam(bag, folder)
    for path in ("features_x/s.h5", "h5_files/s.h5", "pt_files/s.pt"):
        _assert_equal(read_features(folder / path, **NAMES, mpp=bag.mpp), bag)
        assert read_width(folder / path) == bag.feature_dim
    assert stated_recipe(folder / "features_x" / "s.h5") == stated
    assert statement({"kind": "imported features", "feature_dim": 3, **stated}) == stated


def test_attributes_are_those_of_trident(tmp_path: Path) -> None:
    recipe = {"encoder": "resnet50", "tile_px": 256, "stride_px": 192, "mpp": 0.5}
    bag = Bag("s", "c", "n", "x", FEATURES, COORDS, np.ones(4, np.float32), 512.0, 0.25)
    path = tmp_path / "s.h5"
    write_trident(bag, path, statement(recipe))
    with h5py.File(path) as file:
        features: Any = file["features"]
        coords: Any = file["coords"]
        assert dict(features.attrs) == {"encoder": "resnet50", "name": "s"}
        assert dict(coords.attrs) == {
            "patch_size": 256,
            "patch_size_level0": 512,
            "target_magnification": 20,
            "level0_magnification": 40,
            "overlap": 64,
            "name": "s",
        }
        whole = [v for k, v in coords.attrs.items() if k != "name"]
        assert all(isinstance(value, np.integer) for value in whole)
        assert (features.dtype, coords.dtype) == (np.float32, np.int64)
        assert features.chunks is None
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("layout", ["trident", "clam"])
def test_a_store_goes_out_and_comes_back(bag_root: Path, tmp_path: Path, layout: Any) -> None:
    done = export(bag_root, tmp_path / "out", layout)
    assert (done.num_bags, done.unusable) == (30, ())
    records = read_manifest(done.manifest)
    _compare(bag_root, records)
    for path in (tmp_path / "out").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
    if layout == "clam":
        table = tmp_path / "out" / "dataset.csv"
        assert {r.slide_id for r in read_clam_table(table)} == {r.slide_id for r in records}
        for folder in ("h5_files", "pt_files", "."):
            draft = clam(table, tmp_path / "out" / folder)
            assert not draft.left_out
            _compare(bag_root, [replace(r, mpp=0.5) for r in draft.records])
    with pytest.raises(DataError, match="not empty"):
        export(bag_root, tmp_path / "out", layout)


def _names(record: SlideRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in NAMES}


def _compare(root: Path, records: Sequence[SlideRecord]) -> None:
    bags = [SiteBags(root, site) for site in list_sites(root)]
    expected = {
        entry.slide_id: site.load(i) for site in bags for i, entry in enumerate(site.entries)
    }
    found = {r.slide_id: read_features(r.path, **_names(r), mpp=r.mpp) for r in records}
    assert found.keys() == expected.keys()
    for name, bag in expected.items():
        _assert_equal(found[name], bag)


def test_the_folder_of_an_export_names_scale_and_encoder(tmp_path: Path) -> None:
    recipe = {"encoder": "module:a/b.pt2", "tile_px": 256, "stride_px": 256, "mpp": 0.5}
    create(tmp_path / "bags", {**recipe, "feature_dim": 3})
    bag = Bag("s", "c", "n", "x", FEATURES, COORDS, np.ones(4, np.float32), 512.0, 0.25)
    write(tmp_path / "bags", bag)
    done = export(tmp_path / "bags", tmp_path / "out", "trident")
    path = tmp_path / "out" / "20x_256px_0px_overlap" / "features_module_a_b.pt2" / "s.h5"
    assert [r.path for r in read_manifest(done.manifest)] == [path.resolve()]
    assert stated_recipe(path)["encoder"] == "module:a/b.pt2"


def test_damaged_and_clashing_entries_of_a_store(tmp_path: Path) -> None:
    root = tmp_path / "bags"
    create(root, {"feature_dim": 3})
    bag = Bag("s", "c", "n", "x", FEATURES, COORDS, np.ones(4, np.float32), 512.0)
    write(root, bag)
    write(root, replace(bag, slide_id="t")).write_bytes(b"damaged")
    done = export(root, tmp_path / "out", "trident")
    assert (done.num_bags, len(done.unusable)) == (1, 1)
    write(root, replace(bag, slide_id="S", site="m", case_id="d"))
    with pytest.raises(DataError, match=r"1 slide_id\(s\) occur more than once"):
        export(root, tmp_path / "out2", "trident")
    assert not (tmp_path / "out2").exists()
    with pytest.raises(DataError, match="no bag store"):
        export(tmp_path, tmp_path / "out2", "trident")


def test_real_features_go_out_and_come_back(real_data: Path, tmp_path: Path) -> None:
    records = read_manifest(real_data / "heart_sounds" / "manifest.csv")[::400]
    root = tmp_path / "bags"
    create(root, {"kind": "imported features", "feature_dim": 72})
    for r in records:
        write(root, read_features(r.path, **_names(r)))
    for layout in ("trident", "clam"):
        done = export(root, tmp_path / layout, layout)
        assert done.num_bags == len(records) > 5
        _compare(root, read_manifest(done.manifest))
