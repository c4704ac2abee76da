"""Local binary patterns and co-occurrence of one plane of bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

LEVELS = 16  # grey levels of the co-occurrence matrix


def histogram(values: NDArray[np.integer], bins: int) -> NDArray[np.float64]:
    """Relative frequency of the integers 0 ... bins - 1."""
    counts = np.bincount(values.ravel().astype(np.intp), minlength=bins)
    return counts / counts.sum()


def _uniform_patterns() -> NDArray[np.uint8]:
    """Table from an 8-bit pattern to its rotation-invariant uniform bin, 0 to 9."""
    table = np.full(256, 9, dtype=np.uint8)
    for pattern in range(256):
        bits = [(pattern >> k) & 1 for k in range(8)]
        if sum(bits[k] != bits[k - 1] for k in range(8)) <= 2:
            table[pattern] = sum(bits)
    return table


_UNIFORM = _uniform_patterns()
# Neighbours in order round the circle, on whole pixels: no interpolation, so no rounding.
_RINGS = {
    1: ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)),
    2: ((0, 2), (-1, 1), (-2, 0), (-1, -1), (0, -2), (1, -1), (2, 0), (1, 1)),
}
_OFFSETS = {"0": (0, 1), "45": (-1, 1), "90": (-1, 0), "135": (-1, -1)}


def local_binary_patterns(plane: Bytes, radius: int) -> NDArray[np.float64]:
    """Histogram of the ten uniform patterns (Ojala et al. 2002, LBP^riu2 with P = 8)."""
    height, width = plane.shape
    centre = plane[radius:-radius, radius:-radius]
    pattern = np.zeros(centre.shape, dtype=np.uint8)
    for bit, (dy, dx) in enumerate(_RINGS[radius]):
        rows, columns = (
            slice(radius + dy, height - radius + dy),
            slice(radius + dx, width - radius + dx),
        )
        pattern |= (plane[rows, columns] >= centre).view(np.uint8) << np.uint8(bit)
    return histogram(np.take(_UNIFORM, pattern), 10)


def cooccurrence(levels: Bytes, distance: int, angle: str) -> NDArray[np.float64]:
    """Symmetric co-occurrence matrix (16, 16) of one direction, summing to 1."""
    dy, dx = (distance * step for step in _OFFSETS[angle])
    height, width = levels.shape
    here = levels[-dy:, max(0, -dx) : width - max(0, dx)]
    there = levels[: height + dy, max(0, dx) : width - max(0, -dx)]
    joint = histogram(here * np.uint8(LEVELS) + there, LEVELS * LEVELS).reshape(LEVELS, LEVELS)
    return (joint + joint.T) / 2


_I, _J = np.indices((LEVELS, LEVELS))


def haralick(joint: NDArray[np.float64]) -> dict[str, float]:
    """Five of the features of Haralick et al. (1973), the skewed ones as logarithms."""
    mean = float((joint * _I).sum())
    variance = float((joint * (_I - mean) ** 2).sum())
    covariance = float((joint * (_I - mean) * (_J - mean)).sum())
    filled = joint[joint > 0]
    return {
        "contrast": np.log10(float((joint * (_I - _J) ** 2).sum()) + 1e-2),
        "homogeneity": float((joint / (1 + (_I - _J) ** 2)).sum()),
        "energy": np.log10(float((joint * joint).sum())),
        "entropy": -float((filled * np.log2(filled)).sum()),
        "correlation": covariance / (variance + 1e-3),
    }


def pattern_features(name: str, plane: Bytes) -> dict[str, float]:
    """Local binary patterns and co-occurrence of one plane, called ``name``."""
    out: dict[str, float] = {}
    for radius in _RINGS:
        bins = local_binary_patterns(plane, radius)
        out |= {f"lbp_{name}_r{radius}_{k}": float(v) for k, v in enumerate(bins)}
    levels = plane // np.uint8(256 // LEVELS)
    for distance in (1, 4):
        joints = [cooccurrence(levels, distance, angle) for angle in _OFFSETS]
        key = f"glcm_{name}_d{distance}"
        contrasts = [float((joint * (_I - _J) ** 2).sum()) for joint in joints]
        out |= {f"{key}_{k}": v for k, v in haralick(np.mean(joints, axis=0)).items()}
        out[f"{key}_anisotropy"] = float(np.std(contrasts) / (np.mean(contrasts) + 1e-2))
    return out
