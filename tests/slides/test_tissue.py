from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayfed_hn.config import EmbedConfig, TissueConfig
from rayfed_hn.slides.manifest import read_manifest
from rayfed_hn.slides.reading import find_tiles
from rayfed_hn.slides.slide import open_slide
from rayfed_hn.slides.tissue import tissue_fraction, tissue_mask

CONFIG = TissueConfig()
PINK, PURPLE, PALE = (226, 150, 190), (120, 70, 150), (240, 205, 225)


def _glass(height: int = 100, width: int = 120) -> np.ndarray:
    noise = np.random.default_rng(1).integers(-3, 4, (height, width, 1))
    return (np.array([240, 240, 238]) + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("value", [255, 240, 128, 0])
def test_an_even_slide_has_no_tissue(value: int) -> None:
    assert not tissue_mask(np.full((64, 64, 3), value, np.uint8), 8.0, CONFIG).any()


def test_glass_with_noise_has_no_tissue() -> None:
    assert not tissue_mask(_glass(), 8.0, CONFIG).any()


def test_finds_tissue_on_glass() -> None:
    picture = _glass()
    picture[30:70, 40:90] = PINK
    picture[40:50, 50:60] = PURPLE
    mask = tissue_mask(picture, 8.0, CONFIG)
    assert mask[31:69, 41:89].all()
    outside = mask.copy()
    outside[28:72, 38:92] = False
    assert not outside.any()


def test_sensor_noise_is_no_tissue() -> None:
    noise = np.random.default_rng(2).integers(-2, 3, (100, 120, 3))
    assert not tissue_mask((noise + 240).astype(np.uint8), 8.0, CONFIG).any()


def test_a_picture_full_of_tissue_is_not_divided() -> None:
    picture = np.empty((100, 120, 3), np.uint8)
    picture[:, :60], picture[:, 60:] = PALE, PURPLE
    assert tissue_mask(picture, 8.0, CONFIG).all()


def test_specks_go_and_holes_close_by_area_not_pixels() -> None:
    picture = _glass(200, 200)
    picture[20:120, 20:120] = PINK
    picture[60:68, 60:68] = 240  # hole
    picture[150:158, 150:158] = PINK  # speck
    small = tissue_mask(picture, 8.0, CONFIG)  # 64 pixels are 4,096 um2
    assert small[60:68, 60:68].all()
    assert not small[140:, 140:].any()
    large = tissue_mask(picture, 20.0, CONFIG)  # and here 25,600 um2
    assert not large[62:66, 62:66].any()
    assert large[152:156, 152:156].all()


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1, 60), st.floats(1.0, 7.3))
def test_fraction_equals_counting_fine_pixels(seed: int, side: float, down: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((20, 30)) < 0.5
    extent = int(30 * down), int(20 * down)
    side = min(side, *extent)
    coords = np.stack([rng.integers(0, int(e - side) + 1, 5) for e in extent], axis=1)
    found = tissue_fraction(mask, extent, coords, side)
    offsets = (np.arange(400) + 0.5) / 400 * side
    for (x, y), share in zip(coords, found, strict=True):
        columns = ((x + offsets) * 30 / extent[0]).astype(int).clip(0, 29)
        rows = ((y + offsets) * 20 / extent[1]).astype(int).clip(0, 19)
        assert share == pytest.approx(mask[np.ix_(rows, columns)].mean(), abs=0.02)


def test_nearly_all_tiles_of_real_tissue_survive(real_data: Path) -> None:
    records = read_manifest(real_data / "histology" / "manifest.csv")
    # Colon: every picture is tissue from edge to edge.
    kept = total = 0
    for record in [r for r in records if r.site.startswith("warwick")][::5]:
        with open_slide(record.path, record.mpp) as slide:
            kept += len(find_tiles(slide, EmbedConfig()).coords_N2)
            total += len(find_tiles(slide, EmbedConfig(min_tissue=0)).coords_N2)
    assert kept / total > 0.97
