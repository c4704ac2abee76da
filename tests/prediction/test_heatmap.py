"""``rayfed-hn heatmap``: it points at the tumour, in files that other programs open."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import qupath_geojson
import tifffile
from command_line import run_verb
from finished_runs import finished_run
from PIL import Image
from planted_tumours import DRAWN, QUICK, TILE_PX, Planted, planted
from tiny_federations import create, write, write_placed
from tiny_federations import federation as federation_of

from rayfed_hn.bags import store
from rayfed_hn.bags.bag import Bag
from rayfed_hn.bags.store import SiteBags
from rayfed_hn.models.attending import attention_of
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.prediction.attended import heat_of
from rayfed_hn.prediction.finished import FinishedRun
from rayfed_hn.prediction.networks import network_for
from rayfed_hn.reporting.heat_layer import COLOURS, LUMINANCE, OPACITY


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def drawn(federation: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn slide's heatmap, its pixels found by the manifest."""
    to = tmp_path_factory.mktemp("drawn") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch:
        words = ["heatmap", federation.run, f"data.manifest={federation.manifest}"]
        assert run_verb(monkeypatch, *words, "--slide", DRAWN, "--to", to) == 0
    return to


def _features(path: Path) -> list[dict[str, Any]]:
    collection = json.loads(path.read_text())
    assert collection["type"] == "FeatureCollection"
    return collection["features"]


def test_the_highest_tiles_lie_in_the_tumour(federation: Planted, drawn: Path) -> None:
    features = _features(drawn / f"{DRAWN}.heatmap.geojson")
    corners = np.array([f["geometry"]["coordinates"][0][0] for f in features])
    percentiles = np.array(
        [f["properties"]["measurements"]["attention percentile"] for f in features]
    )
    inside = federation.inside(corners)
    assert inside.mean() < 0.2  # what chance would give
    top = percentiles > 99
    assert top.sum() >= 7
    assert inside[top].mean() >= 0.8


def test_geojson_is_what_qupath_reads(federation: Planted, drawn: Path) -> None:
    objects = qupath_geojson.read(drawn / f"{DRAWN}.heatmap.geojson")
    bags = SiteBags(federation.root, "east")
    index = [entry.slide_id for entry in bags.entries].index(DRAWN)
    bag = bags.load(index)
    assert len(objects) == len(bag)
    for found, (x, y) in zip(objects, bag.coords_N2.tolist(), strict=True):
        assert found.corner == (x, y)
        assert found.ring[2] == (x + TILE_PX, y + TILE_PX)  # level-0 pixels
        assert found.object_type == "tile"
        assert set(found.measurements) == {"attention", "attention percentile"}
    assert sum(found.measurements["attention"] for found in objects) == pytest.approx(1)
    names = {found.classification for found in objects}
    assert names == {f"attention: {n}" for n in ("top 1 %", "top 10 %", "upper half", "lower half")}


def test_the_pyramid_opens_and_lies_on_the_slide(federation: Planted, drawn: Path) -> None:
    path = drawn / f"{DRAWN}.heatmap.tiff"
    with openslide.OpenSlide(federation.slide) as slide, openslide.OpenSlide(path) as heat:
        assert heat.dimensions == slide.dimensions
        width, height = slide.dimensions
        pixels_per_cm = 1e4 / float(slide.properties["openslide.mpp-x"])
        assert heat.level_count >= 3
        for axis in "xy":
            stated = [s.properties[f"openslide.mpp-{axis}"] for s in (slide, heat)]
            assert float(stated[0]) == pytest.approx(float(stated[1]))
        plain, coloured = (
            np.asarray(s.read_region((0, 0), 0, slide.dimensions).convert("RGB"), float)
            for s in (slide, heat)
        )
    with tifffile.TiffFile(path) as file:
        pages = [page.aspage() for page in file.pages]
        assert all(page.is_tiled for page in pages)
        assert [page.is_reduced for page in pages] == [False, *[True] * (len(pages) - 1)]
        for page in pages:  # every level says its own scale, so that all cover the same area
            x, y = (page.tags[f"{axis}Resolution"].value for axis in "XY")
            assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
            assert page.shape[1] / (x[0] / x[1]) == pytest.approx(width / pixels_per_cm, rel=1e-3)
            assert page.shape[0] / (y[0] / y[1]) == pytest.approx(height / pixels_per_cm, rel=1e-3)
    features = _features(drawn / f"{DRAWN}.heatmap.geojson")
    by_rank = sorted(features, key=lambda f: f["properties"]["measurements"]["attention"])
    for feature in (by_rank[0], by_rank[-1]):
        x, y = feature["geometry"]["coordinates"][0][0]
        area = slice(y + 8, y + TILE_PX - 8), slice(x + 8, x + TILE_PX - 8)
        percentile = feature["properties"]["measurements"]["attention percentile"]
        grey = plain[area].mean(axis=(0, 1)) @ np.array(LUMINANCE)
        expected = OPACITY * 255 * np.array(COLOURS(percentile / 100)[:3]) + (1 - OPACITY) * grey
        np.testing.assert_allclose(coloured[area].mean(axis=(0, 1)), expected, atol=6)
    # The extent is no multiple of a tile: the last columns have none, and are as they were.
    beyond = int(max(f["geometry"]["coordinates"][0][1][0] for f in features)) + 16
    assert beyond < plain.shape[1]
    assert np.abs(coloured[:, beyond:] - plain[:, beyond:]).mean() < 4


def test_pictures_open(drawn: Path) -> None:
    for name, least in ((f"{DRAWN}.heatmap.png", 1200), (f"{DRAWN}.tiles.png", 600)):
        with Image.open(drawn / name) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert picture.width >= least
            assert np.asarray(picture.convert("L")).std() > 20


def test_two_runs_side_by_side_on_blank_ground(
    federation: Planted,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    other = finished_run(tmp_path / "fedavg", federation.root, *QUICK, "method.name=fedavg")
    words = ["heatmap", federation.run, "--slide", DRAWN, "--against", other]
    assert run_verb(monkeypatch, *words, "--site", "east", "--to", tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert "blank ground" in told
    assert "fedavg, personal, last: says" in told
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        f"{DRAWN}.{end}"
        for end in (
            *("heatmap.png", "heatmap.geojson", "heatmap.tiff", "against.geojson", "against.tiff"),
        )
    }
    one, two = (
        [f["properties"]["measurements"]["attention"] for f in _features(tmp_path / "out" / name)]
        for name in (f"{DRAWN}.heatmap.geojson", f"{DRAWN}.against.geojson")
    )
    assert one != two
    assert np.corrcoef(one, two)[0, 1] > 0.5


@pytest.mark.parametrize("kind", ["broken", "small"])
def test_without_usable_pixels_the_rest_is_written(
    kind: str,
    federation: Planted,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    path = tmp_path / "slide.png"
    path.write_bytes(b"no slide")
    if kind == "small":
        Image.new("RGB", (300, 300)).save(path)
    words = ["heatmap", federation.run, "--slide", DRAWN, "--slide-file", path]
    assert run_verb(monkeypatch, *words, "--to", tmp_path / "out") == 3
    told = capsys.readouterr().out
    assert f"set aside: {path}: " in told
    assert ("the bag has tiles as far" in told) == (kind == "small")
    assert len(_features(tmp_path / "out" / f"{DRAWN}.heatmap.geojson")) > 100
    assert (tmp_path / "out" / f"{DRAWN}.heatmap.png").exists()


def test_refusals(
    federation: Planted,
    drawn: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
) -> None:
    flat = finished_run(tmp_path / "flat", federation.root, *QUICK, "model.name=mean")
    nowhere = finished_run(tmp_path / "nowhere", tasks_root, "task.classes=0,1")
    unlisted = tmp_path / "manifest.csv"
    unlisted.write_text("slide_id,path,case_id,site,label\nx,x.tiff,c,east,tumour\n")
    run = federation.run
    for words, why in {
        (flat, "--slide", DRAWN): "model.name=mean, which has no attention",
        (run, "--slide", DRAWN, "--against", flat): "model.name=mean, which has no attention",
        (nowhere, "--slide", "a-0"): "does not say where its tiles lie",
        (run, "--slide", "no-such"): "has no bag of 'no-such' at any site",
        (run, "--slide", "../east-1"): "has no bag of '../east-1'",
        (run, "--slide", DRAWN, "--site", "west"): "it is a slide of east",
        (run, "--slide", DRAWN, "--site", "north"): "has no bags of north",
        (run, "--slide", DRAWN, "--bags", tasks_root): "another recipe",
        (run, "--slide", DRAWN, "--against", nowhere): "another recipe",
        (run, "--slide", DRAWN, "--against", tmp_path): f"--against: {tmp_path} has no summary",
        (run, "--slide", DRAWN, f"data.manifest={unlisted}"): f"has no slide '{DRAWN}'",
        (run, "--slide", DRAWN, "data.fold=1"): "can be given",
        (run, "--slide", DRAWN, "--to", drawn): "exists; delete it",
    }.items():
        to = () if "--to" in words else ("--to", tmp_path / "out")
        assert run_verb(monkeypatch, "heatmap", *words, *to) == 2, why
        assert why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    ["../east-0", "/etc/x", "../../x", "site=east/../east-0", "ä", "x" * 300, "..", "", "a\0b"],
)
def test_a_name_cannot_lead_out_of_the_folder(
    name: str,
    federation: Planted,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    before = sorted(federation.root.parent.rglob("*"))
    words = ("--slide", name, "--to", tmp_path / "deep" / "out")
    assert run_verb(monkeypatch, "heatmap", federation.run, *words) == 2
    assert "has no bag of" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert sorted(federation.root.parent.rglob("*")) == before


def test_one_tile(monkeypatch: pytest.MonkeyPatch, federation: Planted, tmp_path: Path) -> None:
    features_ND = np.zeros((1, 6), np.float32)
    coords_N2, tissue_N = np.array([[64, 64]]), np.ones(1, np.float32)
    about = (features_ND, coords_N2, tissue_N, 64.0, 0.5)
    shutil.copytree(federation.root, tmp_path / "bags")
    store.write(tmp_path / "bags", Bag("lone", "case-lone", "east", "normal", *about))
    Image.new("RGB", (150, 130), (200, 120, 180)).save(tmp_path / "lone.png")
    words = ["heatmap", federation.run, "--bags", tmp_path / "bags", "--slide", "lone"]
    words += ["--slide-file", tmp_path / "lone.png", "--to", tmp_path / "out"]
    assert run_verb(monkeypatch, *words) == 0
    (found,) = qupath_geojson.read(tmp_path / "out" / "lone.heatmap.geojson")
    assert found.measurements == {"attention": 1.0, "attention percentile": 100.0}
    with tifffile.TiffFile(tmp_path / "out" / "lone.heatmap.tiff") as file:
        assert file.pages[0].shape == (130, 150, 3)
    with Image.open(tmp_path / "out" / "lone.tiles.png") as picture:
        assert picture.width >= 800  # its words are not cut off


def test_another_hospitals_slide_of_the_same_name_is_not_drawn_on(
    federation: Planted,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(federation.manifest.read_text().replace(",east,", ",west,"))
    words = (f"data.manifest={manifest}", "--slide", DRAWN, "--to", tmp_path / "out")
    assert run_verb(monkeypatch, "heatmap", federation.run, *words) == 2
    assert "is a slide of west, and the bag is one of east" in capsys.readouterr().err


def test_of_a_case_a_slide_has_its_part_of_the_attention(tmp_path: Path) -> None:
    root = create(tmp_path / "bags")
    rng = np.random.default_rng(0)
    for site in "ab":
        for case in range(6):
            for slide, size in (("x", 3), ("y", 5)):
                name = f"{site}-{case}{slide}"
                bag = Bag(
                    slide_id=name,
                    case_id=f"{site}-{case}",
                    site=site,
                    label=str(case % 2),
                    features_ND=rng.normal(size=(size, 6)).astype(np.float32),
                    coords_N2=np.arange(2 * size).reshape(size, 2) * 100,
                    tissue_N=np.ones(size, np.float32),
                    tile_size0=100.0,
                )
                store.write(root, bag)
    run = FinishedRun.read(finished_run(tmp_path / "run", root, "task.unit=case"))
    one, _ = heat_of(run, root, "a", "a-2x")
    other, bag = heat_of(run, root, "a", "a-2y")
    assert (len(one), len(other)) == (3, 5)
    assert one.attention_N.sum() + other.attention_N.sum() == pytest.approx(1)
    # By hand: the mean of the candidates' attention on all tiles of the case.
    network = network_for(run, "a", list)
    bags = SiteBags(root, "a")
    names = [entry.slide_id for entry in bags.entries]
    both = [bags.load(names.index(f"a-2{end}")).features_ND for end in "xy"]
    whole = LabelledBag(np.concatenate(both), 0)
    expected = [attention_of(network.model, p, whole) for p in network.candidates]
    mixed = network.share_C @ np.stack(expected) / network.share_C.sum()
    assert len(expected) > 1
    np.testing.assert_allclose(one.attention_N, mixed[:3], rtol=1e-6)
    np.testing.assert_allclose(other.attention_N, mixed[3:], rtol=1e-6)
    np.testing.assert_array_equal(other.coords_N2, bag.coords_N2)


def test_a_name_at_two_sites_needs_a_site(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
) -> None:
    run = finished_run(tmp_path / "run", tasks_root, "task.classes=0,1")
    root = create(tmp_path / "bags")
    for site in "ab":
        write(root, site, "same", "")
    assert run_verb(monkeypatch, "heatmap", run, "--bags", root, "--slide", "same") == 2
    assert "is a slide of a, b; name one" in capsys.readouterr().err


def test_other_bags_that_are_damaged_do_not_stand_in_the_way(tmp_path: Path) -> None:
    """Where a stranger's scale is measured over its bags, it is over those that predict takes."""
    labels = {site: tuple("01" * 6) for site in "ab"}
    root = federation_of(tmp_path / "bags", labels)
    run = FinishedRun.read(finished_run(tmp_path / "run", root, "model.standardise=site"))
    for number in range(3):
        write_placed(root, "far", f"far-{number}", "")
    alone, _ = heat_of(run, root, "far", "far-1")
    write(root, "far", "far-nan", "", features_ND=np.full((3, 6), 1.0))
    path = root / "site=far" / "far-nan.arrow"
    one, nan = np.full(18, 1, "<f4").tobytes(), np.full(18, np.nan, "<f4").tobytes()
    path.write_bytes(path.read_bytes().replace(one, nan))
    beside, _ = heat_of(run, root, "far", "far-1")
    np.testing.assert_array_equal(beside.attention_N, alone.attention_N)


def test_the_picture_that_says_all_is_there_is_last(
    federation: Planted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rayfed_hn.reporting.heat_pictures.write_tiles", full)
    words = ("heatmap", federation.run, f"data.manifest={federation.manifest}", "--slide", DRAWN)
    assert run_verb(monkeypatch, *words, "--to", tmp_path / "out") == 1
    assert not (tmp_path / "out" / f"{DRAWN}.heatmap.png").exists()
    monkeypatch.undo()
    with pytest.MonkeyPatch.context() as again:
        assert run_verb(again, *words, "--to", tmp_path / "out") == 0
