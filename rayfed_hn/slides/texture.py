"""Hand-made tile features for H&E: no weights, deterministic, one tile at a time.

=========  =====================================================================  ==============
prefix     what                                                                   source
=========  =====================================================================  ==============
colour_    moments and percentiles of haematoxylin (h), eosin (e) and residual    Ruifrok &
           (r) density, RGB, saturation, Lab; correlations; share of glass        Johnston 2001
nuclei_    blobs of high haematoxylin density: share, number, size, shape,        Otsu 1979;
           orientation, chromatin, spacing, clustering, colour                    Ruifrok 2001
scale_     Laplacian pyramid of h and e: energy, gradient, skewness and           Burt & Adelson
           peakedness per octave; coherence of the structure tensor               1983; Bigun 1987
lbp_       uniform local binary patterns on h and grey, radius 1 and 2            Ojala et al.
                                                                                  2002
glcm_      co-occurrence of 16 grey levels of h and grey at distance 1 and 4      Haralick 1973
=========  =====================================================================  ==============

Every tile is worked on by itself, so that neither the size nor the make-up of a batch can change a
bit of its features. Lengths are in pixels: the features mean the same at the same ``embed.mpp``
only (0.5 um/px is what they were made for). The last step subtracts a centre and divides by a
scale that are constants of this package (``texture_scale.py``): nothing is fitted at a site.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.color import hed_from_rgb, rgb2lab

from rayfed_hn.slides import texture_nuclei, texture_patterns, texture_scale
from rayfed_hn.slides.encoder_card import EncoderCard
from rayfed_hn.slides.texture_nuclei import blur
from rayfed_hn.slides.texture_patterns import histogram

Plane = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Raise it with every change that moves a feature: bags of other versions are then made anew. A test
# holds features of a known tile against stored values, so that it cannot be forgotten.
VERSION = 1
CLIP = 10.0  # standard deviations; a constant tile must not dominate a bag
MIN_SIDE = 32  # pixels; below it the coarsest octave has no interior
# Optical density of a byte (Beer-Lambert). The 1 keeps black finite.
_DENSITY = (-np.log10((np.arange(256) + 1.0) / 256.0)).astype(np.float32)
# Bytes of a density plane: -0.2 ... 1.4, which holds nearly every H&E pixel.
_LOW, _STEPS = -0.2, 160.0


@dataclass(frozen=True)
class Planes:
    """One tile taken apart. All planes are (H, W).

    Attributes:
        rgb: The tile, uint8 (H, W, 3).
        h: Haematoxylin density, float32.
        e: Eosin density, float32.
        r: Density that neither explains, float32.
        h_bytes: ``h`` in 256 steps.
        grey_bytes: Mean density of red, green and blue in 256 steps.
    """

    rgb: Bytes
    h: Plane
    e: Plane
    r: Plane
    h_bytes: Bytes
    grey_bytes: Bytes


def separate(tile: Bytes) -> Planes:
    """Deconvolve a tile (H, W, 3) with the stain vectors of Ruifrok & Johnston (2001)."""
    red, green, blue = (np.take(_DENSITY, tile[:, :, c]) for c in range(3))
    inverse = hed_from_rgb.astype(np.float32)
    # Written out rather than as a matrix product: the sum has one order on every machine.
    h, e, r = (red * inverse[0, s] + green * inverse[1, s] + blue * inverse[2, s] for s in range(3))
    grey = (red + green + blue) / np.float32(3)
    return Planes(tile, h, e, r, to_bytes(h), to_bytes(grey))


def to_bytes(density: Plane) -> Bytes:
    """Quantise a density plane to 256 steps between -0.2 and 1.4."""
    return np.clip((density - _LOW) * _STEPS, 0, 255).astype(np.uint8)


def skewness(values: Plane, mean: float, std: float) -> float:
    """Third standardised moment, bounded, 0 for a constant."""
    centred = values - np.float32(mean)
    third = float(np.mean(centred * centred * centred))
    return float(np.cbrt(third)) / (std + 1e-3)


def correlation(a: Plane, b: Plane) -> float:
    """Pearson correlation of two planes; 0 where one is constant."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).mean()) / (float(a.std() * b.std()) + 1e-4)


def colour_features(planes: Planes) -> dict[str, float]:
    """Statistics of single pixels."""
    out: dict[str, float] = {}
    bytes_of = {"h": planes.h_bytes, "e": to_bytes(planes.e), "r": to_bytes(planes.r)}
    for name, plane in (("h", planes.h), ("e", planes.e), ("r", planes.r)):
        mean, std = float(plane.mean()), float(plane.std())
        out[f"{name}_mean"], out[f"{name}_std"] = mean, std
        out[f"{name}_skew"] = skewness(plane, mean, std)
        below = np.cumsum(histogram(bytes_of[name], 256))
        for percent in (10, 50, 90):
            step = int(np.searchsorted(below, percent / 100))
            out[f"{name}_p{percent}"] = step / _STEPS + _LOW
    rgb = [planes.rgb[:, :, c].astype(np.float32) / np.float32(255) for c in range(3)]
    for name, plane in zip("RGB", rgb, strict=True):
        out[f"{name}_mean"], out[f"{name}_std"] = float(plane.mean()), float(plane.std())
    high, low = np.maximum.reduce(rgb), np.minimum.reduce(rgb)
    saturation = (high - low) / np.maximum(high, np.float32(1 / 255))
    out["saturation_mean"], out["saturation_std"] = (
        float(saturation.mean()),
        float(saturation.std()),
    )
    out["glass"] = float((low > 0.86).mean())
    out |= _lab_features(planes.rgb)
    pairs = {"RG": (rgb[0], rgb[1]), "RB": (rgb[0], rgb[2]), "HE": (planes.h, planes.e)}
    return out | {f"corr_{name}": correlation(*pair) for name, pair in pairs.items()}


def _lab_features(rgb: Bytes) -> dict[str, float]:
    """Means and spreads in CIE Lab, from every ninth pixel (the cube roots are slow)."""
    lab = rgb2lab(rgb[1::3, 1::3])
    out: dict[str, float] = {}
    for i, name in enumerate(("lightness", "lab_a", "lab_b")):
        out[f"{name}_mean"], out[f"{name}_std"] = (
            float(lab[:, :, i].mean()),
            float(lab[:, :, i].std()),
        )
    return out


def scale_features(planes: Planes) -> dict[str, float]:
    """Energy and direction per octave of ``h`` and ``e`` (0.5, 1, 2 and 4 um at 0.5 um/px)."""
    out: dict[str, float] = {}
    for name, plane in (("h", planes.h), ("e", planes.e)):
        for octave in range(4):
            smooth = blur(plane)
            band = plane - smooth
            size, energy = float(np.abs(band).mean()), float(np.square(band).mean())
            key = f"{name}{octave}"
            out[f"{key}_energy"] = np.log10(size + 1e-3)
            out[f"{key}_peaked"] = np.log10((energy + 1e-6) / (size * size + 1e-6))
            out[f"{key}_skew"] = skewness(band, float(band.mean()), float(np.sqrt(energy)))
            out |= {f"{key}_{k}": v for k, v in _direction(smooth, octave > 0).items()}
            plane = smooth[::2, ::2]
    return out


def _direction(plane: Plane, coherence: bool) -> dict[str, float]:
    """Gradient size and, where the octave is not mostly noise, coherence of the structure tensor.

    ``coherence`` is the mean over spots of some 10 px, ``aligned`` that of the tile as a whole.
    """
    down = plane[2:, 1:-1] - plane[:-2, 1:-1]
    right = plane[1:-1, 2:] - plane[1:-1, :-2]
    xx, yy = right * right, down * down
    trace = xx + yy
    out = {"gradient": float(np.log10(float(np.sqrt(trace).mean()) + 1e-3))}
    if not coherence:
        return out
    double, cross = xx - yy, right * down * np.float32(2)
    near = [blur(blur(np.asarray(part, np.float32))) for part in (double, cross, trace)]
    spot = np.sqrt(near[0] ** 2 + near[1] ** 2) / (near[2] + np.float32(1e-4))
    whole = np.hypot(double.mean(), cross.mean()) / (trace.mean() + 1e-5)
    return out | {"coherence": float(spot.mean()), "aligned": float(whole)}


def describe(tile: Bytes) -> dict[str, float]:
    """All features of one tile by name, before centring and scaling.

    Args:
        tile: uint8 (H, W, 3), both sides at least 32 px.
    """
    planes = separate(tile)
    out = {f"colour_{k}": v for k, v in colour_features(planes).items()}
    out |= {f"nuclei_{k}": v for k, v in texture_nuclei.nuclei_features(planes).items()}
    out |= {f"scale_{k}": v for k, v in scale_features(planes).items()}
    for name, plane in (("h", planes.h_bytes), ("grey", planes.grey_bytes)):
        out |= texture_patterns.pattern_features(name, plane)
    return out


class TextureEncoder:
    """The ``texture`` encoder: see the table at the top of this file.

    Attributes:
        feature_names: Name of every feature, in the order of the columns.
        card: What it states about itself.
        digest: SHA-256 over ``VERSION`` and the names, centres and scales of the features.
    """

    name = "texture"

    def __init__(self) -> None:
        self.feature_names = tuple(texture_scale.CENTRE_AND_SCALE)
        self.feature_dim = len(self.feature_names)
        table = np.array(list(texture_scale.CENTRE_AND_SCALE.values()), dtype=np.float64)
        self._centre_D, self._scale_D = table[:, 0], table[:, 1]
        recipe = repr((self.name, VERSION, CLIP, texture_scale.CENTRE_AND_SCALE))
        self.digest = hashlib.sha256(recipe.encode()).hexdigest()
        self.card = EncoderCard(
            name=self.name,
            feature_dim=self.feature_dim,
            input_px=None,
            mpp=0.5,
            mean=None,
            std=None,
            licence="Apache-2.0, like rayfed_hn; it has no weights",
            source="rayfed_hn; the sources of its features stand in rayfed_hn/slides/texture.py",
        )

    def encode(self, tiles_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn tiles into features (N, D), float32, roughly of mean 0 and spread 1, within +-10.

        Raises:
            ValueError: The tiles are not uint8 (N, H, W, 3) with sides of 32 px or more.
        """
        shape = tiles_NHW3.shape
        fits = len(shape) == 4 and shape[3] == 3 and min(shape[1:3]) >= MIN_SIDE
        if not fits or tiles_NHW3.dtype != np.uint8:
            raise ValueError(f"tiles must be uint8 (N, H, W, 3), H, W >= {MIN_SIDE}, not {shape}")
        features_ND = np.empty((len(tiles_NHW3), self.feature_dim), dtype=np.float32)
        for row, tile in zip(features_ND, tiles_NHW3, strict=True):
            found = describe(tile)
            values = np.array([found[name] for name in self.feature_names])
            row[:] = np.clip((values - self._centre_D) / self._scale_D, -CLIP, CLIP)
        return features_ND
