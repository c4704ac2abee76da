"""Which tissue of a synthetic slide lies where: the plan, on a grid of 4 um."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Plane = NDArray[np.float32]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

WIDTH_UM, HEIGHT_UM = 1040, 800
GRID_UM = 4.0
GRID = (int(HEIGHT_UM / GRID_UM), int(WIDTH_UM / GRID_UM))
GLAND_UM = (24.0, 42.0)  # radius of a gland


def smooth_noise(rng: np.random.Generator, cell_um: float) -> Plane:
    """Noise of unit spread on the plan's grid, smooth over ``cell_um``; opposite edges meet."""
    rows, columns = np.fft.fftfreq(GRID[0]), np.fft.rfftfreq(GRID[1])
    square = rows[:, None] ** 2 + columns[None, :] ** 2
    keep = np.exp(-square * (np.pi * cell_um / GRID_UM / 2) ** 2)
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=GRID)) * keep, s=GRID)
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


@dataclass(frozen=True)
class Plan:
    """Which tissue is where; planes on the grid of 4 um.

    Attributes:
        tissue: Tissue, not glass.
        areas: Tumour foci, benign look-alikes and lymphocyte clusters by kind of nucleus.
        direction: Direction of the stroma's fibres, radians.
        glands: Where glands stand.
        fat: Where fat cells are.
    """

    tissue: Mask
    areas: dict[str, Mask]
    direction: Plane
    glands: Mask
    fat: Mask

    def tumour(self) -> Mask:
        """All tumour foci together."""
        masks = [mask for kind, mask in self.areas.items() if kind.startswith("tumour")]
        return np.logical_or.reduce(masks) if masks else np.zeros(GRID, dtype=bool)


def draw_tissue(rng: np.random.Generator) -> Mask:
    """One or two ragged pieces that cover 48 to 60 % of the slide."""
    y, x = np.mgrid[0 : GRID[0], 0 : GRID[1]] / np.array(GRID).reshape(2, 1, 1)
    shape = np.full(GRID, -np.inf)
    pieces = int(rng.integers(1, 3))
    for k in range(pieces):
        cx = (k + 0.5 + rng.uniform(-0.05, 0.05)) / pieces
        cy = 0.5 + rng.uniform(-0.05, 0.05)
        round_ = -(((x - cx) * pieces / 0.46) ** 2) - ((y - cy) / 0.44) ** 2
        shape = np.maximum(shape, round_)
    shape = shape + 0.22 * smooth_noise(rng, 170) + 0.06 * smooth_noise(rng, 40)
    border = np.minimum(np.minimum(x, 1 - x) * WIDTH_UM, np.minimum(y, 1 - y) * HEIGHT_UM)
    shape -= np.clip(1.4 - border / (80 + 25 * smooth_noise(rng, 60).clip(-2, 2)), 0, None) ** 2
    shape[border < 8] = -np.inf
    return shape > np.quantile(shape, 1 - rng.uniform(0.48, 0.60))


def grow_area(rng: np.random.Generator, free: Mask, cells: int) -> Mask:
    """One rounded, ragged area of ``cells`` grid cells inside ``free``."""
    rows, columns = np.nonzero(free)
    k = int(rng.integers(len(rows)))
    y, x = np.mgrid[0 : GRID[0], 0 : GRID[1]]
    stretch, angle = rng.uniform(1.0, 1.7), rng.uniform(0, np.pi)
    dy, dx = y - rows[k], x - columns[k]
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / stretch
    v = dy * np.cos(angle) - dx * np.sin(angle)
    far = np.hypot(u, v) * (1 + 0.22 * smooth_noise(rng, 60))
    far[~free] = np.inf
    reach = np.partition(far.ravel(), cells)[cells]
    pieces = np.empty(GRID, dtype=np.int32)
    ndimage.label(far < reach, output=pieces)
    return (pieces == pieces[rows[k], columns[k]]) & (far < reach)


def draw_plan(rng: np.random.Generator, tumour: str | None, mimics: dict[str, float]) -> Plan:
    """Plan a slide.

    Args:
        rng: The slide's random state.
        tumour: Kind of the tumour's nuclei, or None for a slide without.
        mimics: Mean number of benign look-alike areas, by kind.
    """
    tissue = draw_tissue(rng)
    free, size = tissue.copy(), int(tissue.sum())
    areas: dict[str, Mask] = {}

    def add(kind: str, share: float) -> None:
        if free.sum() <= share * size + 10:
            return
        area = grow_area(rng, free, int(share * size))
        areas[kind] = areas.get(kind, np.zeros(GRID, dtype=bool)) | area
        free[area] = False

    if tumour:
        number = int(rng.integers(1, 4))
        shares = rng.dirichlet(np.full(number, 4.0)) * rng.uniform(0.035, 0.13)
        for share in shares:
            add(tumour, float(share))
    for kind, mean in mimics.items():
        for _ in range(rng.poisson(mean)):
            add(kind, float(rng.uniform(0.015, 0.06)))
    for _ in range(rng.poisson(2.5)):
        add("lymphocyte", float(rng.uniform(0.01, 0.04)))
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(free, 1)))[1:-1, 1:-1]
    room = depth * GRID_UM > GLAND_UM[1]
    glands = room & (smooth_noise(rng, 200) > rng.normal(0.1, 0.5))
    fat = free & ~glands & (smooth_noise(rng, 150) > rng.uniform(1.0, 2.2))
    return Plan(tissue, areas, _directions(rng), glands, fat)


def _directions(rng: np.random.Generator) -> Plane:
    """A smooth field of directions, 0 to pi, without a seam."""
    cos = smooth_noise(rng, 260) + rng.normal()
    return (np.arctan2(smooth_noise(rng, 260) + rng.normal(), cos) / 2 % np.pi).astype(np.float32)


def scatter(
    rng: np.random.Generator, where: Mask, spacing_um: float, jitter: float
) -> tuple[Floats, Floats]:
    """Points in ``where``, um: a grid of ``spacing_um``, each moved by ``jitter`` of that."""
    rows, columns = int(HEIGHT_UM / spacing_um), int(WIDTH_UM / spacing_um)
    y, x = (np.mgrid[0:rows, 0:columns] + 0.5).reshape(2, -1)
    x = (x + 0.5 * (np.floor(y) % 2) + jitter * rng.uniform(-1, 1, x.size)) * spacing_um
    y = (y + jitter * rng.uniform(-1, 1, y.size)) * spacing_um
    row, column = (y / GRID_UM).astype(int), (x / GRID_UM).astype(int)
    inside = (row >= 0) & (column >= 0) & (row < GRID[0]) & (column < GRID[1])
    inside[inside] = where[row[inside], column[inside]]
    return x[inside], y[inside]


def at(plane: NDArray, x: Floats, y: Floats) -> NDArray:
    """Values of a plane on the plan's grid at points in um."""
    return plane[(y / GRID_UM).astype(int), (x / GRID_UM).astype(int)]
