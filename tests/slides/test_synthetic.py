"""Synthetic slides: what a reader finds, what is known about them, and that they repeat."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rayfed_hn.slides import synthetic
from rayfed_hn.slides.synthetic_hospitals import HOSPITALS, colour_table
from rayfed_hn.slides.synthetic_nuclei import KINDS, Nuclei, put_nuclei, stamps
from rayfed_hn.slides.synthetic_plan import GRID, GRID_UM, HEIGHT_UM, WIDTH_UM, draw_plan, scatter
from rayfed_hn.slides.texture import TextureEncoder


@pytest.fixture(scope="module")
def federation(tmp_path_factory) -> Path:
    """Two slides a hospital, drawn in this process."""
    root = tmp_path_factory.mktemp("federation")
    seen: list[tuple[int, int]] = []
    synthetic.make_federation(root, 2, 7, lambda *done: seen.append(done), processes=1)
    assert seen == [(k, 8) for k in range(1, 9)]
    return root


def rows_of(root: Path) -> list[dict[str, str]]:
    with (root / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_manifest_names_files_sites_and_labels(federation: Path):
    rows = rows_of(federation)
    assert list(rows[0]) == ["slide_id", "path", "case_id", "site", "label"]
    assert len({row["slide_id"] for row in rows}) == len(rows) == 8
    assert {row["site"] for row in rows} == {h.name for h in HOSPITALS}
    for row in rows:
        assert row["label"] in ("normal", "tumour")
        assert (federation / row["path"]).is_file()
        truth = np.asarray(Image.open(federation / "truth" / f"{row['slide_id']}.png"))
        assert set(np.unique(truth)) <= {0, 255}
        assert (truth > 0).any() == (row["label"] == "tumour")


def test_openslide_reads_scale_and_three_levels(federation: Path):
    for row in rows_of(federation):
        hospital = next(h for h in HOSPITALS if h.name == row["site"])
        with openslide.OpenSlide(federation / row["path"]) as slide:
            for axis in "xy":
                found = float(slide.properties[f"openslide.mpp-{axis}"])
                assert found == pytest.approx(hospital.mpp, rel=1e-4)
            assert slide.level_downsamples == pytest.approx((1, 2, 8), rel=0.01)
            width, height = slide.dimensions
            assert width * hospital.mpp == pytest.approx(WIDTH_UM, abs=1)
            assert height * hospital.mpp == pytest.approx(HEIGHT_UM, abs=1)
            corner = np.asarray(slide.read_region((0, 0), 0, (9, 9)))[..., :3]
            glass = np.median(corner, axis=(0, 1))
            assert np.abs(glass - hospital.white).max() < 8  # in true colour
        with tifffile.TiffFile(federation / row["path"]) as tiff:
            levels = [level.keyframe for level in tiff.series[0].levels]
            assert {page.compression for page in levels} == {tifffile.COMPRESSION.JPEG}
            assert all(page.is_tiled for page in levels)
        assert (federation / row["path"]).stat().st_size < 1_500_000


def test_slides_do_not_depend_on_processes_or_number(federation: Path, tmp_path: Path):
    synthetic.make_federation(tmp_path, 1, 7, processes=2)
    alone = {s.slide_id: s for s in synthetic.plan_slides(1, 7)}
    before = {s.slide_id: s for s in synthetic.plan_slides(2, 7)}
    same = [k for k in alone if alone[k].has_tumour == before[k].has_tumour]
    assert same
    for slide_id in same:
        name = f"slides/{slide_id}.tiff"
        assert digest(tmp_path / name) == digest(federation / name)


def test_another_seed_gives_other_slides():
    one, other = (
        synthetic.draw_slide(HOSPITALS[1], True, seed)[0].resize((104, 80)) for seed in (1, 2)
    )
    assert np.abs(np.asarray(one, float) - np.asarray(other, float)).mean() > 5


@settings(max_examples=30, deadline=None)
@given(st.integers(6, 40), st.integers(0, 2**40))
def test_cases_have_one_label_and_are_enough_for_five_folds(slides_per_site: int, seed: int):
    planned = list(synthetic.plan_slides(slides_per_site, seed))
    assert Counter(s.hospital.name for s in planned) == {h.name: slides_per_site for h in HOSPITALS}
    assert len({s.seed for s in planned}) == len(planned)  # not the same slides at every site
    labels: dict[str, set[bool]] = defaultdict(set)
    for slide in planned:
        labels[slide.case_id].add(slide.has_tumour)
    assert all(len(found) == 1 for found in labels.values())
    assert max(Counter(s.case_id for s in planned).values()) <= 2
    for hospital in HOSPITALS:
        own = [s for s in planned if s.hospital is hospital]
        for has_tumour in (True, False):
            slides = [s for s in own if s.has_tumour == has_tumour]
            assert len({s.case_id for s in slides}) >= min(5, len(slides))


@pytest.mark.parametrize("seed", range(12))
def test_tumour_covers_a_few_per_cent_of_the_tissue(seed: int):
    rng = np.random.default_rng(seed)
    kind = ("tumour-dark", "tumour-pale")[seed % 2]
    plan = draw_plan(rng, kind, HOSPITALS[seed % 4].mimics)
    share = plan.tumour().sum() / plan.tissue.sum()
    assert 0.02 <= share <= 0.15
    assert not (plan.tumour() & ~plan.tissue).any()
    assert not (plan.tumour() & (plan.glands | plan.fat)).any()
    total = np.sum(list(plan.areas.values()), axis=0)
    assert total.max() == 1  # areas do not overlap
    assert not draw_plan(rng, None, {}).tumour().any()


def test_tumour_areas_hold_tumour_nuclei_only_there():
    where = np.zeros(GRID, dtype=bool)
    where[50:100, 60:120] = True
    x, y = scatter(np.random.default_rng(0), where, 10, 0.4)
    assert where[(y / GRID_UM).astype(int), (x / GRID_UM).astype(int)].all()
    assert len(x) == pytest.approx(50 * 60 * GRID_UM**2 / 10**2, rel=0.1)


def test_stamps_have_the_size_their_kind_says_at_every_scale():
    for name, kind in KINDS.items():
        for mpp in (0.25, 0.5):
            areas = [s.cover.sum() * mpp**2 for bank in stamps(name, mpp) for s in bank]
            middle = np.pi * kind.length**2 * np.mean(kind.roundness)
            assert np.mean(areas) == pytest.approx(middle, rel=0.45)  # ten outlines
    spread = {
        name: np.std([np.sqrt(s.cover.sum()) for s in stamps(name, 0.5)[0]]) for name in KINDS
    }
    assert min(spread["tumour-dark"], spread["tumour-pale"]) > max(
        spread["reactive"], spread["histiocyte"], spread["lymphocyte"]
    )


def test_a_nucleus_lands_where_it_should_and_the_edge_is_safe():
    h, e = np.zeros((80, 100), np.float32), np.ones((80, 100), np.float32)
    places = np.array([25.0, 0.2, 49.9])
    nuclei = Nuclei("lymphocyte", places, np.array([15.0, 0.2, 39.9]), np.zeros(3))
    put_nuclei(h, e, nuclei, 0.5, np.random.default_rng(0))
    rows, columns = np.nonzero(h > 0.3)
    assert (rows.mean(), columns.mean()) == pytest.approx((30, 50), abs=1)
    assert np.pi * 2.8**2 / 0.25 == pytest.approx(len(rows), rel=0.4)
    assert e[30, 50] < 0.5
    assert e[0, 0] == 1


def test_more_stain_is_darker():
    for hospital in HOSPITALS:
        table = colour_table(hospital, np.random.default_rng(0)).reshape(256, 256, 3).astype(int)
        assert (np.diff(table, axis=0) <= 0).all()
        assert (np.diff(table, axis=1) <= 0).all()
        assert tuple(table[0, 0]) == hospital.white


def test_tumour_tiles_differ_from_the_rest_in_several_features_but_in_none_alone(federation: Path):
    """The claim of the demo in small: pooled over hospitals, no feature tells tumour by itself."""
    features, tumour = [], []
    encoder = TextureEncoder()
    for row in rows_of(federation):
        found, share = tissue_tiles(federation, row)
        features.append(encoder.encode(found))
        tumour.append(share > 0.5)
    x, y = np.concatenate(features), np.concatenate(tumour)
    assert y.sum() >= 15
    best = max(average_precision(sign * column, y) for column in x.T for sign in (1, -1))
    assert 0.1 < best < 0.5
    gap = (x[y].mean(0) - x[~y].mean(0)) / (x.std(0) + 1e-6)
    assert (np.abs(gap) > 1).sum() >= 5


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    hits = positive[np.argsort(-score, kind="stable")]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def tissue_tiles(root: Path, row: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Tiles of 128 px at 0.5 um/px that are mostly tissue, and the share of tumour in each."""
    size = (int(WIDTH_UM * 2), int(HEIGHT_UM * 2))
    picture = np.asarray(Image.fromarray(tifffile.imread(root / row["path"])).resize(size))
    truth = np.asarray(Image.open(root / "truth" / f"{row['slide_id']}.png")) > 0
    tiles, shares = [], []
    for y in range(0, size[1] - 127, 128):
        for x in range(0, size[0] - 127, 128):
            tile = picture[y : y + 128, x : x + 128]
            if (np.ptp(tile, axis=2) > 20).mean() > 0.5:
                tiles.append(tile)
                shares.append(truth[y // 8 : y // 8 + 16, x // 8 : x // 8 + 16].mean())
    return np.stack(tiles), np.array(shares)
