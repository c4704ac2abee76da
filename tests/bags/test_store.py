from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest

from rayfed_hn.bags import store
from rayfed_hn.bags.bag import Bag
from rayfed_hn.errors import DataError

RECIPE = {"encoder": "texture", "feature_dim": 4, "tissue": {"mpp": 8.0}}


def _bag(slide_id: str = "s1", site: str = "north", num_tiles: int = 5, dim: int = 4) -> Bag:
    rng = np.random.default_rng(len(slide_id))
    return Bag(
        slide_id, "case-1", site, "tumour",
        rng.normal(size=(num_tiles, dim)).astype(np.float32),
        rng.integers(0, 2**40, (num_tiles, 2)),
        rng.random(num_tiles, np.float32),
        tile_size0=513.03, mpp=0.2495,
    )  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "deep" / "bags"
    store.create(root, RECIPE)
    return root


def test_what_is_written_is_read(root: Path) -> None:
    for slide_id in ("b", "a.arrow", ".c"):
        store.write(root, _bag(slide_id))
    site = store.SiteBags(root, "north")
    assert [entry.slide_id for entry in site.entries] == [".c", "a.arrow", "b"]
    assert (len(site), site.feature_dim) == (3, 4)
    found, bag = site.load(2), _bag("b")
    for name in ("features_ND", "coords_N2", "tissue_N"):
        np.testing.assert_array_equal(getattr(found, name), getattr(bag, name))
        assert getattr(found, name).dtype == getattr(bag, name).dtype
    assert (found.case_id, found.label, found.tile_size0, found.mpp) == (
        bag.case_id, bag.label, bag.tile_size0, bag.mpp,
    )  # fmt: skip
    assert site.load(2) is found
    assert not found.features_ND.flags.owndata  # a view of the file
    assert not found.features_ND.flags.writeable


def test_only_the_owner_can_read(root: Path) -> None:
    path = store.write(root, _bag())
    assert root.stat().st_mode & 0o077 == path.parent.stat().st_mode & 0o077 == 0
    assert path.stat().st_mode & 0o077 == 0
    store.SiteBags(root, "north").salt  # noqa: B018
    assert (path.parent / "salt").stat().st_mode & 0o777 == 0o600


def test_any_arrow_reader_opens_it(root: Path) -> None:
    with pa.memory_map(str(store.write(root, _bag()))) as source:
        table = pa.ipc.open_file(source).read_all()
    assert table.schema.types == [
        pa.list_(pa.field("item", pa.float32(), nullable=False), 4),
        pa.int64(), pa.int64(), *[pa.float32()] * 5,
    ]  # fmt: skip


def test_recipes_are_not_mixed(root: Path) -> None:
    store.create(root, RECIPE)
    assert store.read_recipe(root) == RECIPE
    other = RECIPE | {"tissue": {"mpp": 4.0}, "mpp": 0.5}
    with pytest.raises(DataError, match=r"mpp: None there, 0\.5 .*tissue\.mpp: 8\.0 there, 4\.0"):
        store.create(root, other)
    with pytest.raises(DataError, match="5 features"):
        store.write(root, _bag(dim=5))
    elsewhere = root.parent / "other"
    store.create(elsewhere, other)
    foreign = store.write(elsewhere, _bag())
    (root / "site=north").mkdir()
    (root / "site=north" / "s1.arrow").write_bytes(foreign.read_bytes())
    assert store.find_entry(root, "north", "s1") is None
    with pytest.raises(DataError, match="another recipe"):
        store.SiteBags(root, "north")


def test_what_is_no_store_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DataError, match="run rayfed-hn embed"):
        store.list_sites(tmp_path / "none")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        store.create(tmp_path / "full", RECIPE)
    recipe = root / "recipe.json"
    recipe.write_text(recipe.read_text().replace("texture", "resnet"))
    with pytest.raises(DataError, match="changed by hand"):
        store.read_recipe(root)
    with pytest.raises(DataError, match="changed by hand"):
        store.create(root, RECIPE)


@pytest.mark.parametrize("keep", [0, 1, 100, -1, -20])
def test_damaged_entries_are_named_and_written_again(root: Path, keep: int) -> None:
    path = store.write(root, _bag())
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    assert store.find_entry(root, "north", "s1") is None
    with pytest.raises(DataError, match=r"s1\.arrow.*damaged.*embed again"):
        store.SiteBags(root, "north")
    store.write(root, _bag())
    assert path.read_bytes() == data
    assert store.find_entry(root, "north", "s1")


def test_renamed_and_foreign_files_are_refused(root: Path) -> None:
    path = store.write(root, _bag())
    path.rename(path.with_name("s2.arrow"))
    with pytest.raises(DataError, match="cannot be renamed"):
        store.SiteBags(root, "north")
    table = pa.table({"features": [1.0]})
    target = str(path.with_name("s2.arrow"))
    with pa.OSFile(target, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="damaged"):
        store.SiteBags(root, "north")


def test_digest_depends_on_content_alone(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    store.create(other, RECIPE)
    for slide_id, site in (("a", "north"), ("b", "south"), ("cc", "north")):
        store.write(root, _bag(slide_id, site))
    for slide_id, site in (("cc", "north"), ("b", "south"), ("a", "north")):
        store.write(other, _bag(slide_id, site))
    assert store.list_sites(root) == ["north", "south"]
    assert store.SiteBags(root, "north").salt != store.SiteBags(other, "north").salt
    assert store.digest(root) == store.digest(other)
    store.write(other, _bag("b", "south", num_tiles=6))
    assert store.digest(root) != store.digest(other)


def test_salt_stays(root: Path) -> None:
    store.write(root, _bag())
    salt = store.SiteBags(root, "north").salt
    assert len(salt) == 16
    assert store.SiteBags(root, "north").salt == salt
    assert [p.name for p in (root / "site=north").iterdir() if p.name.startswith(".")] == []


def test_no_partial_file_is_taken_for_an_entry(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        store.write(root, _bag())
    assert store.find_entry(root, "north", "s1") is None
    assert list((root / "site=north").iterdir()) == []


def test_large_bags_open_at_once_and_hold_no_descriptors(tmp_path: Path) -> None:
    store.create(tmp_path / "large", {})
    rows = np.zeros((15_000, 1024), np.float32)
    coords, tissue = np.zeros((15_000, 2), np.int64), np.ones(15_000, np.float32)
    bag = Bag("s", "c", "north", "x", rows, coords, tissue, 512.0, None)
    store.write(tmp_path / "large", bag)
    started = time.perf_counter()
    site = store.SiteBags(tmp_path / "large", "north")
    descriptors = len(os.listdir("/proc/self/fd"))
    assert site.load(0).features_ND.shape == (15_000, 1024)
    assert time.perf_counter() - started < 0.5
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features_ND": np.zeros((0, 4), np.float32)}, "N, D >= 1"),
        ({"features_ND": np.zeros((5, 4))}, "float32"),
        ({"features_ND": np.full((5, 4), np.nan, np.float32)}, "finite"),
        ({"coords_N2": np.zeros((4, 2), np.int64)}, "coords"),
        ({"tissue_N": np.zeros((5, 1), np.float32)}, "tissue"),
        ({"tile_size0": 0.0}, "tile_size0"),
        ({"mpp": float("inf")}, "mpp"),
    ],
)
def test_bags_are_checked(changes: dict[str, Any], words: str) -> None:
    fields: dict[str, Any] = {
        f: getattr(_bag(), f) for f in Bag.__dataclass_fields__ if f != "verify"
    }
    with pytest.raises(ValueError, match=words):
        Bag(**(fields | changes))
