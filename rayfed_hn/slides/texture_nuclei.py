"""Nuclei-like blobs of one tile: how many, how large, of what shape, how arranged.

This is no nucleus segmentation: touching nuclei count as one blob. That is a feature, too
(``blob_fill`` and ``big_share`` see it), and it costs a hundredth of the time.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

Plane = NDArray[np.float32]
Floats = NDArray[np.float64]

# The threshold is Otsu's, but a tile without nuclei must not split its background in two.
LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 0.12, 0.45
MIN_BLOB_PX = 20  # 5 square um at 0.5 um/px: smaller than a lymphocyte's section
BIG_BLOB_PX = 300  # 75 square um: larger than most benign nuclei
CELL_PX = 16  # side of the squares over which clustering is measured


class Stained(Protocol):
    """What is needed of a tile: its pixels and its stain densities, (H, W)."""

    @property
    def rgb(self) -> NDArray[np.uint8]: ...
    @property
    def h(self) -> Plane: ...
    @property
    def e(self) -> Plane: ...


def blur(plane: Plane) -> Plane:
    """Smooth with the binomial kernel 1-4-6-4-1 / 16 (about a Gaussian of 1 px), edges repeated."""
    rows, columns = plane.shape
    padded = np.empty((rows + 4, columns + 4), dtype=np.float32)
    padded[2:-2, 2:-2] = plane
    padded[:2, 2:-2], padded[-2:, 2:-2] = plane[0], plane[-1]
    padded[:, :2], padded[:, -2:] = padded[:, 2:3], padded[:, -3:-2]
    tall = _binomial([padded[k : k + rows] for k in range(5)])
    return _binomial([tall[:, k : k + columns] for k in range(5)])


def _binomial(shifted: list[Plane]) -> Plane:
    """Weigh five shifted planes 1-4-6-4-1 / 16, in place where it can: it is called 200 times."""
    ends, inner = shifted[0] + shifted[4], shifted[1] + shifted[3]
    inner *= np.float32(4)
    inner += ends
    inner += shifted[2] * np.float32(6)
    inner *= np.float32(1 / 16)
    return inner


def otsu(values: Plane, low: float, high: float) -> float:
    """Otsu's threshold (1979) over 64 bins, held between ``low`` and ``high``."""
    bins = np.clip((values + np.float32(0.2)) * np.float32(40), 0, 63).astype(np.intp)
    share = np.bincount(bins.ravel(), minlength=64) / bins.size
    centres = (np.arange(64) + 0.5) / 40 - 0.2
    below, moment = np.cumsum(share), np.cumsum(share * centres)
    spread = (moment[-1] * below - moment) ** 2 / np.maximum(below * (1 - below), 1e-9)
    return float(np.clip(centres[int(np.argmax(spread))] + 0.0125, low, high))


def find_blobs(h: Plane, threshold: float) -> tuple[NDArray[np.int32], int]:
    """Label connected areas (4-neighbours) of smoothed ``h`` above ``threshold``, specks dropped.

    Returns:
        Labels (H, W), 0 for background, and the number of blobs.
    """
    labels = np.empty(h.shape, dtype=np.int32)
    ndimage.label(h > threshold, output=labels)
    sizes = np.bincount(labels.ravel())
    keep = sizes >= MIN_BLOB_PX
    keep[0] = False
    renumber = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return renumber[labels], int(keep.sum())


def blob_table(labels: NDArray[np.int32], count: int, h: Plane) -> dict[str, Floats]:
    """Area, centre, shape and chromatin of each blob; arrays of length ``count``."""
    y, x = np.nonzero(labels)
    index = labels[y, x] - 1
    density = h[y, x].astype(np.float64)

    def mean(values: NDArray) -> Floats:
        return np.bincount(index, weights=values, minlength=count) / area

    area = np.bincount(index, minlength=count).astype(np.float64)
    cy, cx = mean(y), mean(x)
    dy, dx = y - cy[index], x - cx[index]
    yy, xx, xy = mean(dy * dy) + 1 / 12, mean(dx * dx) + 1 / 12, mean(dy * dx)
    root = np.hypot(xx - yy, 2 * xy)
    minor, major = (xx + yy - root) / 2, (xx + yy + root) / 2
    level = mean(density)
    return {
        "area": area,
        "cy": cy,
        "cx": cx,
        "elongation": 1 - np.sqrt(np.maximum(minor, 0) / major),
        "fill": area / (4 * np.pi * np.sqrt(np.maximum(xx * yy - xy * xy, 1e-6))),
        "double_cos": (xx - yy) / (root + 1e-6),
        "double_sin": 2 * xy / (root + 1e-6),
        "level": level,
        "chromatin": np.sqrt(np.maximum(mean(density * density) - level * level, 0)),
    }


def spacing(cy: Floats, cx: Floats) -> tuple[float, float]:
    """Mean distance (px) to the nearest other blob and its coefficient of variation."""
    points = np.column_stack([cy, cx])
    nearest = KDTree(points).query(points, k=2)[0][:, 1]
    return float(nearest.mean()), float(nearest.std() / (nearest.mean() + 1e-6))


def clustering(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Spread and maximum of the share of blobs over squares of ``CELL_PX``."""
    rows, columns = (n // CELL_PX * CELL_PX for n in mask.shape)
    cells = mask[:rows, :columns].reshape(rows // CELL_PX, CELL_PX, columns // CELL_PX, CELL_PX)
    share = cells.mean(axis=(1, 3))
    return float(share.std()), float(share.max())


def contrast_features(planes: Stained, mask: NDArray[np.bool_]) -> dict[str, float]:
    """Colour and density inside the blobs and outside them (0 for what is empty)."""
    out: dict[str, float] = {}
    sides = {"in": mask, "out": ~mask}
    for side, where in sides.items():
        filled = bool(where.any())
        out[f"h_{side}"] = float(planes.h[where].mean()) if filled else 0.0
        out[f"e_{side}"] = float(planes.e[where].mean()) if filled else 0.0
        out[f"e_std_{side}"] = float(planes.e[where].std()) if filled else 0.0
    rgb = planes.rgb[mask].mean(axis=0) / 255 if mask.any() else np.full(3, 0.5)
    return out | {f"{name}_in": float(value) for name, value in zip("RGB", rgb, strict=True)}


def arrangement_features(blobs: dict[str, Floats]) -> dict[str, float]:
    """Statistics over the blobs of a tile; at least two of them."""
    size = np.log10(blobs["area"])
    share = blobs["area"] / blobs["area"].sum()
    near, near_variation = spacing(blobs["cy"], blobs["cx"])
    lean = blobs["elongation"] * share
    aligned = np.hypot((lean * blobs["double_cos"]).sum(), (lean * blobs["double_sin"]).sum())
    return {
        "size_mean": float(size.mean()),
        "size_std": float(size.std()),
        "size_weighted": float((size * share).sum()),
        "size_p90": float(np.percentile(size, 90)),
        "big_share": float(share[blobs["area"] > BIG_BLOB_PX].sum()),
        "elongation_mean": float(blobs["elongation"].mean()),
        "elongation_std": float(blobs["elongation"].std()),
        "blob_fill": float((blobs["fill"] * share).sum()),
        "aligned": float(aligned / (lean.sum() + 1e-6)),
        "level_std": float(blobs["level"].std()),
        "chromatin_mean": float(blobs["chromatin"].mean()),
        "chromatin_std": float(blobs["chromatin"].std()),
        "round_size": float((size * (1 - blobs["elongation"])).mean()),
        "near_mean": float(np.log10(near + 1)),
        "near_variation": near_variation,
    }


# What a tile with fewer than two blobs is given: the middle of the range, not an extreme.
_NO_BLOBS = {
    "size_mean": 1.6, "size_std": 0.3, "size_weighted": 2.0, "size_p90": 2.0, "big_share": 0.2,
    "elongation_mean": 0.35, "elongation_std": 0.17, "blob_fill": 0.9, "aligned": 0.3,
    "level_std": 0.05, "chromatin_mean": 0.08, "chromatin_std": 0.03, "round_size": 1.0,
    "near_mean": 1.3, "near_variation": 0.4,
}  # fmt: skip


def nuclei_features(planes: Stained) -> dict[str, float]:
    """Features of the nuclei-like blobs of one tile."""
    smooth = blur(blur(planes.h))
    threshold = otsu(smooth, LOWEST_THRESHOLD, HIGHEST_THRESHOLD)
    labels, count = find_blobs(smooth, threshold)
    mask = labels > 0
    per_megapixel = count / mask.size * 1e6
    spread, densest = clustering(mask)
    depth = np.asarray(ndimage.distance_transform_cdt(mask, metric="chessboard"))[mask]
    out = {
        "threshold": threshold,
        "share": float(mask.mean()),
        "dark_share": float((smooth > HIGHEST_THRESHOLD).mean()),
        "number": float(np.log10(per_megapixel + 100)),
        "cell_std": spread,
        "cell_max": densest,
        "depth_mean": float(depth.mean()) if count else 0.0,
        "depth_p95": float(np.percentile(depth, 95)) if count else 0.0,
    }
    enough = count >= 2
    shapes = arrangement_features(blob_table(labels, count, planes.h)) if enough else _NO_BLOBS
    return out | contrast_features(planes, mask) | shapes
