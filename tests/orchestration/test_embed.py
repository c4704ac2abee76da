from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray.cloudpickle
import tifffile
from tiny_federations import create, write

from rayfed_hn.bags import store
from rayfed_hn.bags.export import export
from rayfed_hn.config import Config, DataConfig, EmbedConfig, ResourcesConfig
from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.orchestration.embed import SlideOutcome, embed
from rayfed_hn.slides.embedding import embed_slide
from rayfed_hn.slides.manifest import read_manifest

pytestmark = pytest.mark.ray
# Workers cannot import this file.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class MeanColour:
    """Mean and spread of the colours; a slide of pure blue breaks it, one of pure red kills it."""

    name, feature_dim, digest = "mean colour", 6, "0" * 64

    def encode(self, tiles_NHW3: np.ndarray) -> np.ndarray:
        flat = tiles_NHW3.reshape(len(tiles_NHW3), -1, 3).astype(np.float32)
        mean = flat.mean(1)
        if (np.abs(mean - [0, 0, 255]) < 3).all():
            raise RuntimeError("patient Jane Doe is blue")
        if (np.abs(mean - [255, 0, 0]) < 3).all():
            os._exit(1)
        return np.concatenate([mean, flat.std(1)], axis=1)


def make_mean_colour(config: EmbedConfig, device: str) -> MeanColour:
    return MeanColour()


def _slide(path: Path, colour: tuple[int, int, int], seed: int = 0) -> None:
    noise = np.random.default_rng(seed).integers(0, 2, (512, 512, 1))
    picture = (np.array(colour) - noise).clip(0, 255).astype(np.uint8)
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", compression="adobe_deflate")


def _manifest(folder: Path, *lines: str) -> Config:
    path = folder / "manifest.csv"
    path.write_text("slide_id,path,case_id,site,label,mpp\n" + "".join(f"{x}\n" for x in lines))
    return Config(
        data=DataConfig(manifest=str(path), bags=str(folder / "bags")),
        resources=ResourcesConfig(cpus=2),
    )


def _embed(config: Config) -> dict[str, SlideOutcome]:
    seen: list[SlideOutcome] = []
    report = embed(config, lambda outcome, share: seen.append(outcome), make_mean_colour)
    by_name = {outcome.slide_id: outcome for outcome in seen}
    assert len(seen) == len(by_name) == len(report.outcomes)
    assert sorted(by_name) == sorted(o.slide_id for o in report.outcomes)
    return by_name


@pytest.mark.usefixtures("ray_session")
def test_bad_slides_are_set_aside_each_with_its_reason(tmp_path: Path, real_data: Path) -> None:
    cmu = (real_data / "slides" / "cmu-1-small-region.svs").read_bytes()
    (tmp_path / "good.svs").write_bytes(cmu)
    (tmp_path / "cut.svs").write_bytes(cmu[: len(cmu) // 2])
    (tmp_path / "text.svs").write_text("no slide")
    shutil.copy(real_data / "slides" / "tcga-cr-7395-no-mpp.svs", tmp_path / "noscale.svs")
    _slide(tmp_path / "white.tiff", (255, 255, 255))
    _slide(tmp_path / "blue.tiff", (0, 0, 255))
    _slide(tmp_path / "red.tiff", (255, 0, 0))
    names = ["red.tiff", "good.svs", "cut.svs", "text.svs", "noscale.svs", "none.svs"]
    lines = [f"{n[:-4]},{n},c-{n},north,x," for n in names]
    lines[0] = "red,red.tiff,c-red,south,x,0.5"
    lines += [f"{n},{n}.tiff,c-{n},south,x,0.5" for n in ("white", "blue")]
    config = _manifest(tmp_path, *lines)
    outcomes = _embed(config)
    expected = {
        "cut": "is truncated",
        "text": "is no slide that OpenSlide can read",
        "noscale": "states no scale",
        "none": "the file is missing",
        "white": "no tissue found",
        "blue": "unexpected error RuntimeError",
        "red": "the worker that encoded it died",
    }
    assert outcomes["good"].status == "embedded"
    assert outcomes["good"].num_tiles > 20
    for name, reason in expected.items():
        assert outcomes[name].status == "set_aside"
        assert outcomes[name].reason.startswith(reason)
        assert outcomes[name].remedy
    root = tmp_path / "bags"
    table = (root / "set_aside.csv").read_text()
    assert table.count("\n") == 1 + len(expected)
    assert "Jane" not in table
    assert str(tmp_path) not in table
    assert not list(root.glob(".attempts*"))

    # A slide that is mended is taken in, the others are not touched, the table shrinks.
    before = (root / "site=north" / "good.arrow").stat().st_mtime_ns
    _slide(tmp_path / "white.tiff", (200, 100, 150))
    _slide(tmp_path / "red.tiff", (200, 100, 150))
    outcomes = _embed(config)
    assert outcomes["white"].status == outcomes["red"].status == "embedded"
    assert outcomes["good"].status == "skipped"
    assert (root / "site=north" / "good.arrow").stat().st_mtime_ns == before
    assert (root / "set_aside.csv").read_text().count("\n") == len(expected) - 1


@pytest.mark.usefixtures("ray_session")
def test_workers_do_not_change_the_bags(tmp_path: Path) -> None:
    for i in range(6):
        _slide(tmp_path / f"{i}.tiff", (200, 100 + 10 * i, 150), seed=i)
    lines = [f"s{i},{i}.tiff,c{i},{'north' if i % 2 else 'south'},x,0.5" for i in range(6)]
    config = _manifest(tmp_path, *lines)
    digests = set()
    for cpus in (1, 2):
        bags = str(tmp_path / f"bags{cpus}")
        data = replace(config.data, bags=bags)
        _embed(replace(config, data=data, resources=ResourcesConfig(cpus=cpus)))
        digests.add(store.digest(Path(bags)))
    alone = tmp_path / "alone"  # the same without Ray
    store.create(alone, store.read_recipe(tmp_path / "bags1"))
    for record in read_manifest(str(config.data.manifest)):
        store.write(alone, embed_slide(record, MeanColour(), config.embed))
    assert digests == {store.digest(alone)}


@pytest.mark.usefixtures("ray_session")
def test_the_manifest_may_change(tmp_path: Path) -> None:
    _slide(tmp_path / "a.tiff", (200, 100, 150))
    _embed(_manifest(tmp_path, "a,a.tiff,c,north,x,0.5"))
    outcomes = _embed(_manifest(tmp_path, "a,a.tiff,d,north,y,0.5"))
    assert outcomes["a"].status == "skipped"
    entry = store.SiteBags(tmp_path / "bags", "north").entries[0]
    assert (entry.case_id, entry.label) == ("d", "y")
    outcomes = _embed(_manifest(tmp_path, "a,a.tiff,d,north,y,0.25"))
    assert outcomes["a"].status == "embedded"  # another scale makes other tiles
    with pytest.raises(DataError, match="'south' in the manifest"):
        _embed(_manifest(tmp_path, "a,a.tiff,d,south,y,0.25"))
    other = _manifest(tmp_path, "a,a.tiff,d,north,y,0.25")
    with pytest.raises(DataError, match="tile_px: 256 there, 128 asked for"):
        _embed(replace(other, embed=EmbedConfig(tile_px=128)))
    with pytest.raises(ConfigError, match="gpus_per_encoder"):
        _embed(
            replace(
                _manifest(tmp_path, "a,a.tiff,d,north,y,1"),
                resources=ResourcesConfig(gpus_per_encoder=0.5),
            )
        )


@pytest.mark.usefixtures("ray_session")
def test_features_are_imported(tmp_path: Path, real_data: Path) -> None:
    source = real_data / "heart_sounds"
    lines = (source / "manifest.csv").read_text().splitlines()
    lines = [lines[0], *lines[1::81]]
    shutil.copytree(source / "features", tmp_path / "features")
    (tmp_path / "features" / "bad.h5").write_bytes(b"bad")
    (tmp_path / "manifest.csv").write_text(
        "\n".join([*lines, "bad,features/bad.h5,b,site-a,normal"])
    )
    data = DataConfig(manifest=str(tmp_path / "manifest.csv"), bags=str(tmp_path / "bags"))
    report = embed(Config(data=data))
    assert (report.count("embedded"), report.count("set_aside")) == (40, 1)
    assert store.read_recipe(tmp_path / "bags") == {
        "kind": "imported features", "feature_dim": 72, "patch_size": 1,
    }  # fmt: skip
    assert sum(report.bags_per_site.values()) == 40
    with pytest.raises(DataError, match="mixes slides"):
        _embed(_manifest(tmp_path, "a,a.tiff,c,n,x,", "b,features/a0001.h5,d,n,x,"))


@pytest.mark.usefixtures("ray_session")
def test_times_go_through_workers_and_come_back_from_an_export(tmp_path: Path) -> None:
    root = create(tmp_path / "before")
    for i, follow_up in enumerate(
        ({"time": 0.1 + 0.2, "event": True}, {"time": 7.0, "event": False}, {})
    ):
        write(root, "north", f"s{i}", "" if follow_up else "x", **follow_up)
    done = export(root, tmp_path / "out", "trident")
    data = DataConfig(manifest=str(done.manifest), bags=str(tmp_path / "bags"))
    outcomes = _embed(Config(data=data, resources=ResourcesConfig(cpus=2)))
    assert {outcome.status for outcome in outcomes.values()} == {"embedded"}
    before, after = (
        [(e.slide_id, e.label, e.time, e.event) for e in store.SiteBags(place, "north").entries]
        for place in (root, tmp_path / "bags")
    )
    assert after == before
    assert [time for _, _, time, _ in after] == [0.30000000000000004, 7.0, None]
