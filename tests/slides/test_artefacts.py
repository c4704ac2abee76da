from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from rayfed_hn.bags.bag import ARTEFACTS
from rayfed_hn.config import ArtefactsConfig
from rayfed_hn.slides.artefacts import measure
from rayfed_hn.slides.manifest import read_manifest
from rayfed_hn.slides.slide import open_slide

CONFIG = ArtefactsConfig()
CMU = "slides/cmu-1-small-region.svs"
INKS = {
    "blue": (40, 60, 150),
    "light blue": (90, 130, 205),
    "green": (40, 130, 90),
    "black": (35, 35, 40),
    "red": (205, 30, 45),
}


def _shares(tiles: np.ndarray, mpp: float = 0.5, config: ArtefactsConfig = CONFIG) -> dict:
    return dict(zip(ARTEFACTS, measure(tiles, mpp, config).T, strict=True))


def _glass(side: int = 256) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 2, (1, side, side, 3))
    return (236 + noise).clip(0, 255).astype(np.uint8)


def _nuclei(seed: int = 0) -> np.ndarray:
    """A sharp tile of haematoxylin-blue discs on eosin with fibres, (1, 256, 256, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:256, :256]
    fibres = rng.normal(0, 14, (256, 256, 1)) + 6 * np.sin(x / 3 + y / 5)[..., None]
    tile = np.array([228, 150, 190]) + fibres
    for cx, cy, radius in rng.uniform((0, 0, 5), (256, 256, 11), (90, 3)):
        disc = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        tile[disc] = np.array([84, 62, 140]) + rng.normal(0, 12, (disc.sum(), 1))
    return tile.clip(0, 255).astype(np.uint8)[None]


def _real(real_data: Path, mpp: float = 0.5, every: int = 20) -> np.ndarray:
    """Tiles of real sharp tissue: one image in ``every``, and the CMU slide, without its glass."""
    records = read_manifest(real_data / "histology" / "manifest.csv")[::every]
    places = [(r.path, r.mpp) for r in records] + [(real_data / CMU, None)]
    tiles = []
    for path, own_mpp in places:
        with open_slide(path, own_mpp) as slide:
            span = 256 * mpp / slide.mpp
            right, bottom = (extent - span for extent in slide.extent_px)
            for x, y in ((0, 0), (0, bottom), (right, 0), (right, bottom)):
                tiles.append(slide.read(x, y, (256, 256), mpp))
    found = np.stack(tiles)
    return found[(found.max(-1) < 215).mean((1, 2)) > 0.3]


def _blurred(tiles: np.ndarray, sigma: float) -> np.ndarray:
    """Out of focus as a scanner delivers it: blur, then sensor noise, then JPEG."""
    rng = np.random.default_rng(5)
    soft = gaussian_filter(tiles.astype(np.float32), (0, sigma, sigma, 0))
    noisy = (soft + rng.normal(0, 1.5, soft.shape)).clip(0, 255).astype(np.uint8)
    return np.stack([_jpeg(tile) for tile in noisy])


def _jpeg(tile: np.ndarray, quality: int = 80) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _stroke(tiles: np.ndarray, ink: tuple[int, int, int], columns: int) -> np.ndarray:
    """Draw over the left ``columns``: ink is a filter that lies on what is below it."""
    drawn = tiles.astype(np.float64)
    drawn[:, :, :columns] *= np.array(ink) / 255
    return np.stack([_jpeg(tile, 90) for tile in drawn.astype(np.uint8)])


def test_result_is_one_row_per_tile_and_tiles_do_not_touch_each_other() -> None:
    tiles = np.concatenate([_glass(), _nuclei(), np.zeros((1, 256, 256, 3), np.uint8)])
    found = measure(tiles, 0.5, CONFIG)
    assert found.shape == (3, len(ARTEFACTS))
    assert found.dtype == np.float32
    alone = [measure(tile[None], 0.5, CONFIG)[0] for tile in tiles]
    np.testing.assert_array_equal(found, np.stack(alone))
    assert measure(tiles[:0], 0.5, CONFIG).shape == (0, len(ARTEFACTS))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(32, 130), st.integers(32, 130), st.floats(0.05, 20))
def test_every_share_lies_between_0_and_1(seed: int, height: int, width: int, mpp: float) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (2, height // 8 + 1, width // 8 + 1, 3), np.uint8)
    tiles = coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]
    found = measure(tiles, mpp, CONFIG)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= 1).all()


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("columns", [0, 64, 192, 256])
def test_black_and_white_are_shares_of_the_area(columns: int, mpp: float) -> None:
    tile = np.full((1, 256, 256, 3), 255, np.uint8)
    tile[:, :, :columns] = 10
    found = _shares(tile, mpp)
    assert found["black"] == pytest.approx(columns / 256)
    assert found["white"] == pytest.approx(1 - columns / 256)


def test_black_and_white_obey_the_config() -> None:
    tile = np.full((1, 64, 64, 3), 100, np.uint8)
    assert _shares(tile) | {"pen": 0} == {"blur": 0, "pen": 0, "black": 0, "white": 0}
    assert _shares(tile, config=ArtefactsConfig(black_level=101))["black"] == 1
    assert _shares(tile, config=ArtefactsConfig(white_level=99))["white"] == 1
    coloured = np.full((1, 64, 64, 3), (255, 255, 90), np.uint8)  # one channel is not enough
    assert _shares(coloured)["white"] == 0


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("value", [255, 240, 128, 0])
def test_what_has_no_contrast_is_not_blurred(value: int, mpp: float) -> None:
    even = np.full((1, 256, 256, 3), value, np.uint8)
    assert _shares(even, mpp)["blur"] == 0
    assert _shares(_glass(), mpp)["blur"] == 0
    assert _shares(np.stack([_jpeg(_glass()[0], 60)]), mpp)["blur"] == 0


def test_blur_of_a_drawn_tile_grows_from_0_to_1() -> None:
    sigmas = (0, 1, 1.5, 2, 3, 5, 8)
    found = [_shares(_blurred(_nuclei(), sigma))["blur"][0] for sigma in sigmas]
    assert found[0] == 0
    assert found == sorted(found)
    assert found[4] > 0.9


def test_half_a_blurred_tile_is_half_blurred() -> None:
    tile = _nuclei()
    tile[:, :, :128] = _blurred(tile, 4)[:, :, :128]
    assert _shares(tile)["blur"] == pytest.approx(0.5, abs=0.07)


def test_glass_beside_blurred_tissue_does_not_make_it_sharper() -> None:
    tile = _nuclei()
    tile[:, :, 128:] = 236
    assert _shares(_blurred(tile, 4))["blur"] > 0.9


def test_blur_of_real_tissue(real_data: Path) -> None:
    tiles = _real(real_data)
    found = np.stack([_shares(_blurred(tiles, s))["blur"] for s in (1, 2, 3, 5, 8)])
    sharp = _shares(tiles)["blur"]
    assert len(tiles) >= 30
    assert sharp.mean() < 0.03
    assert np.quantile(sharp, 0.9) < 0.1
    assert found[2].min() > 0.8
    assert (np.diff(np.vstack([sharp, found]), axis=0) > -0.03).all()
    assert found[-1].min() > 0.95


@pytest.mark.parametrize("mpp", [0.25, 1.0, 2.0])
def test_real_tissue_is_sharp_at_other_scales(real_data: Path, mpp: float) -> None:
    # A slide with more pixels than it is read at; enlarged ones have no detail to find.
    with open_slide(real_data / "slides" / "tcga-cr-7395-no-mpp.svs", 0.25) as slide:
        corner = 400.0, 400.0
        tiles = slide.read(*corner, (256, 256), mpp)[None]
    assert _shares(tiles, mpp)["blur"] < 0.1


def test_stained_tissue_is_not_pen(real_data: Path) -> None:
    pen = _shares(_real(real_data, every=6))["pen"]
    assert np.median(pen) == 0
    assert np.quantile(pen, 0.99) < 0.03
    assert _shares(_nuclei())["pen"] == 0


@pytest.mark.parametrize("colour", [(70, 50, 120), (226, 130, 175), (175, 60, 75), (120, 70, 50)])
def test_haematoxylin_eosin_blood_and_melanin_are_not_pen(colour: tuple[int, int, int]) -> None:
    assert _shares(np.full((1, 256, 256, 3), colour, np.uint8))["pen"] == 0


@pytest.mark.parametrize("columns", [0, 64, 192, 256])
@pytest.mark.parametrize("ink", INKS)
def test_pen_on_glass_is_found_by_its_area(ink: str, columns: int) -> None:
    found = _shares(_stroke(_glass(), INKS[ink], columns))
    assert found["pen"] == pytest.approx(columns / 256, abs=0.01)


@pytest.mark.parametrize("ink", ["green", "black", "red"])
def test_pen_over_real_tissue_is_mostly_found(real_data: Path, ink: str) -> None:
    tiles = _real(real_data, every=25)
    # The tissue's own colour remains below; where it makes black ink less neutral, it is black.
    found = _shares(_stroke(tiles, INKS[ink], 256))
    assert np.maximum(found["pen"], found["black"]).mean() > 0.6


def test_thresholds_of_the_config_are_obeyed() -> None:
    inked, soft = _stroke(_glass(), INKS["blue"], 256), _blurred(_nuclei(), 4)
    assert _shares(inked, config=ArtefactsConfig(pen_excess=1.0))["pen"] == 0
    assert _shares(soft, config=ArtefactsConfig(min_detail=0.0))["blur"] < 0.2
