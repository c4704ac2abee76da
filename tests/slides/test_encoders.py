"""The texture encoder against formulas, properties and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from skimage.color import rgb2hed
from skimage.feature import graycomatrix, graycoprops
from skimage.filters import threshold_otsu

from rayfed_hn.slides import texture, texture_nuclei, texture_patterns

TILES = arrays(np.uint8, (40, 48, 3))


def smooth_tiles(number: int, side: int = 64, seed: int = 0) -> np.ndarray:
    """Blotchy tiles in the colours of H&E, uint8 (N, side, side, 3)."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(number, 2, 5, 5))
    fine = np.kron(waves, np.ones((side // 4, side // 4)))[:, :, :side, :side]
    h, e = np.clip(0.3 + 0.3 * fine, 0, 1.5).transpose(1, 0, 2, 3)
    density = h[..., None] * [0.65, 0.70, 0.29] + e[..., None] * [0.07, 0.99, 0.2]
    noise = rng.normal(0, 3, size=(number, side, side, 3))
    return np.clip(240 * 10**-density + noise, 0, 255).astype(np.uint8)


def test_texture_names_shape_and_finiteness():
    encoder = texture.TextureEncoder()
    features = encoder.encode(smooth_tiles(3))
    assert features.shape == (3, encoder.feature_dim)
    assert features.dtype == np.float32
    assert 100 <= encoder.feature_dim <= 200
    assert len(set(encoder.feature_names)) == encoder.feature_dim
    assert list(encoder.feature_names) == list(texture.describe(smooth_tiles(1)[0]))
    assert np.isfinite(features).all()
    assert len(encoder.digest) == 64


def test_texture_of_a_tile_does_not_depend_on_its_batch():
    tiles = smooth_tiles(7)
    encoder = texture.TextureEncoder()
    together = encoder.encode(tiles)
    alone = np.concatenate([encoder.encode(tile[None]) for tile in tiles])
    turned = encoder.encode(tiles[::-1])[::-1]
    assert np.array_equal(together, alone)
    assert np.array_equal(together, turned)


def test_texture_does_not_depend_on_memory_layout():
    tiles = smooth_tiles(2)
    wide = np.zeros((2, 64, 128, 3), np.uint8)
    wide[:, :, ::2] = tiles
    tiles.flags.writeable = False
    encoder = texture.TextureEncoder()
    assert np.array_equal(encoder.encode(wide[:, :, ::2]), encoder.encode(tiles))


@pytest.mark.parametrize("side", [32, 128])
def test_constant_tiles_are_finite_and_bounded(side: int):
    shades = np.array([[0, 0, 0], [255, 255, 255], [1, 255, 0], [200, 120, 170]], np.uint8)
    tiles = np.broadcast_to(shades[:, None, None], (4, side, side, 3)).copy()
    features = texture.TextureEncoder().encode(tiles)
    assert np.isfinite(features).all()
    assert np.abs(features).max() <= texture.CLIP


@settings(max_examples=25, deadline=None)
@given(TILES)
def test_any_pixels_give_finite_bounded_features(tile: np.ndarray):
    features = texture.TextureEncoder().encode(tile[None])
    assert np.isfinite(features).all()
    assert np.abs(features).max() <= texture.CLIP


def test_empty_batch_keeps_its_width():
    encoder = texture.TextureEncoder()
    assert encoder.encode(np.empty((0, 64, 64, 3), np.uint8)).shape == (0, encoder.feature_dim)


@pytest.mark.parametrize(
    "tiles",
    [
        np.zeros((2, 64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 64, 64, 4), np.uint8),
        np.zeros((1, 16, 64, 3), np.uint8),
    ],
)
def test_texture_refuses_what_is_no_tile(tiles: np.ndarray):
    with pytest.raises(ValueError, match="uint8"):
        texture.TextureEncoder().encode(tiles)


def test_mirrored_tiles_keep_what_has_no_direction():
    tile = smooth_tiles(1)[0]
    one, other = texture.describe(tile), texture.describe(tile[:, ::-1])
    for name in ("colour_h_mean", "colour_R_std", "colour_h_p90", "lbp_h_r1_0", "nuclei_share"):
        assert one[name] == pytest.approx(other[name], abs=1e-5)
    # Co-occurrence sums over directions that a mirror maps onto one another.
    assert one["glcm_h_d1_contrast"] == pytest.approx(other["glcm_h_d1_contrast"], abs=1e-6)


def test_deconvolution_is_proportional_to_scikit_image():
    tile = smooth_tiles(1)[0]
    ours, theirs = texture.separate(tile), rgb2hed(tile)
    # scikit-image scales densities by 1 / log(1e-6), we use log10; residual is its third stain.
    for plane, stain in ((ours.h, 0), (ours.e, 1), (ours.r, 2)):
        assert np.corrcoef(plane.ravel(), theirs[:, :, stain].ravel())[0, 1] > 0.999


def test_otsu_agrees_with_scikit_image():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(0.1, 0.03, 3000), rng.normal(0.5, 0.05, 1000)])
    ours = texture_nuclei.otsu(values.astype(np.float32), -1, 2)
    assert ours == pytest.approx(threshold_otsu(values), abs=0.05)
    assert texture_nuclei.otsu(values.astype(np.float32), 0.4, 0.45) == pytest.approx(0.4)


def test_blobs_of_known_size_shape_and_place():
    y, x = np.mgrid[0:128, 0:128]
    h = np.zeros((128, 128), np.float32)
    h[(x - 30) ** 2 + (y - 40) ** 2 <= 10**2] = 0.6
    h[((x - 90) / 20) ** 2 + ((y - 80) / 5) ** 2 <= 1] = 0.8
    h[5:8, 5:8] = 0.9  # a speck
    labels, count = texture_nuclei.find_blobs(h, 0.3)
    assert count == 2
    blobs = texture_nuclei.blob_table(labels, count, h)
    disc, ellipse = np.argsort(blobs["elongation"])
    assert blobs["area"][disc] == pytest.approx(np.pi * 100, rel=0.03)
    assert (blobs["cx"][disc], blobs["cy"][disc]) == pytest.approx((30, 40))
    assert blobs["elongation"][disc] == pytest.approx(0, abs=0.02)
    assert blobs["elongation"][ellipse] == pytest.approx(0.75, abs=0.03)
    assert blobs["fill"] == pytest.approx([1, 1], abs=0.04)
    assert blobs["double_cos"][ellipse] == pytest.approx(1, abs=0.01)
    assert blobs["level"][ellipse] == pytest.approx(0.8, abs=1e-6)
    assert blobs["chromatin"] == pytest.approx([0, 0], abs=1e-3)
    near, variation = texture_nuclei.spacing(blobs["cy"], blobs["cx"])
    assert near == pytest.approx(np.hypot(60, 40))
    assert variation == pytest.approx(0)


def test_local_binary_patterns_of_known_planes():
    flat = np.full((20, 20), 7, np.uint8)
    assert texture_patterns.local_binary_patterns(flat, 1)[8] == 1  # every neighbour >= centre
    dot = np.zeros((21, 21), np.uint8)
    dot[10, 10] = 9
    bins = texture_patterns.local_binary_patterns(dot, 1) * 19 * 19
    assert bins[0] == pytest.approx(1)  # the dot itself: a spot
    assert bins[8] == pytest.approx(19 * 19 - 1)  # the rest, the dot's neighbours included
    edge = np.zeros((20, 20), np.uint8)
    edge[:, 10:] = 200
    assert texture_patterns.local_binary_patterns(edge, 1)[5] == pytest.approx(1 / 18)


@pytest.mark.parametrize("radius", [1, 2])
def test_local_binary_patterns_equal_the_definition(radius: int):
    plane = np.random.default_rng(0).integers(6, size=(12, 14)).astype(np.uint8)
    turns = 2 * np.pi * np.arange(8) / 8
    # Whole pixels nearest to the circle, a little inside on the diagonals of radius 2.
    ring = [
        (round(np.sin(a) * radius * 0.9 + 1e-9), round(np.cos(a) * radius * 0.9)) for a in turns
    ]
    expected = np.zeros(10)
    for y in range(radius, 12 - radius):
        for x in range(radius, 14 - radius):
            bits = [int(plane[y + dy, x + dx] >= plane[y, x]) for dy, dx in ring]
            changes = sum(bits[k] != bits[k - 1] for k in range(8))
            expected[sum(bits) if changes <= 2 else 9] += 1
    found = texture_patterns.local_binary_patterns(plane, radius)
    assert found == pytest.approx(expected / expected.sum())


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 150])
def test_direction_of_a_blob(angle: float):
    y, x = np.mgrid[0:64, 0:64] - 32
    turn = np.deg2rad(angle)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    h = ((u / 20) ** 2 + (v / 6) ** 2 <= 1).astype(np.float32)
    labels, count = texture_nuclei.find_blobs(h, 0.5)
    blobs = texture_nuclei.blob_table(labels, count, h)
    found = (blobs["double_cos"][0], blobs["double_sin"][0])
    assert found == pytest.approx((np.cos(2 * turn), np.sin(2 * turn)), abs=0.02)


@pytest.mark.parametrize(("angle", "radians"), [("0", 0), ("45", 3 * np.pi / 4), ("90", np.pi / 2)])
@pytest.mark.parametrize("distance", [1, 4])
def test_cooccurrence_agrees_with_scikit_image(angle: str, radians: float, distance: int):
    levels = np.random.default_rng(0).integers(16, size=(40, 33)).astype(np.uint8)
    levels[10:, :20] //= 3
    # scikit-image counts angles clockwise, and rounds a diagonal of length d to whole steps.
    reach = distance * np.sqrt(2) if angle == "45" else distance
    theirs = graycomatrix(levels, [reach], [radians], 16, symmetric=True, normed=True)
    ours = texture_patterns.cooccurrence(levels, distance, angle)
    assert ours == pytest.approx(theirs[:, :, 0, 0])
    found = texture_patterns.haralick(ours)
    assert found["homogeneity"] == pytest.approx(graycoprops(theirs, "homogeneity").item())
    assert 10 ** found["contrast"] - 1e-2 == pytest.approx(graycoprops(theirs, "contrast").item())
    assert found["correlation"] == pytest.approx(
        graycoprops(theirs, "correlation").item(), abs=1e-3
    )


def test_blur_is_the_binomial_kernel_and_keeps_constants():
    plane = np.zeros((9, 9), np.float32)
    plane[4, 4] = 256
    kernel = np.array([1, 4, 6, 4, 1])
    assert np.array_equal(texture_nuclei.blur(plane)[2:7, 2:7], np.outer(kernel, kernel))
    flat = np.full((8, 11), 3, np.float32)
    assert np.array_equal(texture_nuclei.blur(flat), flat)


def test_stripes_are_aligned_and_noise_is_not():
    stripes = np.tile(np.repeat([90, 220], 4), 16)[None, :, None].repeat(128, 0).repeat(3, 2)
    noise = np.random.default_rng(0).integers(90, 220, (128, 128, 1)).repeat(3, 2)
    ordered, disordered = (texture.describe(t.astype(np.uint8)) for t in (stripes, noise))
    assert ordered["scale_h1_aligned"] > 0.9 > 0.3 > disordered["scale_h1_aligned"]
    assert ordered["scale_h1_coherence"] > disordered["scale_h1_coherence"]


GOLDEN_SUM, GOLDEN_ABS = 116.944, 223.26


def test_features_of_a_known_tile_have_not_moved():
    """A change here needs a higher ``texture.VERSION``, or old bags would be mixed with new."""
    y, x = np.mgrid[0:128, 0:128]
    nuclei = (np.sin(x / 5) * np.sin(y / 6) > 0.5) * 90
    tile = np.stack([210 - nuclei, 150 - nuclei // 2 + x % 7, 190 + 0 * x], axis=-1)
    found = texture.describe(tile.astype(np.uint8))
    values = np.array(list(found.values()))
    assert texture.VERSION == 1
    assert values.sum() == pytest.approx(GOLDEN_SUM, rel=1e-4)
    assert np.abs(values).sum() == pytest.approx(GOLDEN_ABS, rel=1e-4)
