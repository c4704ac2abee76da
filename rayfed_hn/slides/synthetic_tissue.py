"""What a synthetic slide is made of before it is stained: ground and the places of its nuclei.

The ground (fibres, glands, fat) lives on a canvas of 0.5 um; nuclei are drawn later, at the
scanner's own scale.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.draw import disk, polygon

from rayfed_hn.seeds import derive
from rayfed_hn.slides.synthetic_nuclei import Nuclei
from rayfed_hn.slides.synthetic_plan import (
    GLAND_UM,
    GRID,
    HEIGHT_UM,
    WIDTH_UM,
    Plan,
    at,
    scatter,
    smooth_noise,
)

Plane = NDArray[np.float32]

CANVAS_UM = 0.5
CANVAS = (int(HEIGHT_UM / CANVAS_UM), int(WIDTH_UM / CANVAS_UM))
DIRECTIONS = 6  # of the fibre textures that the stroma is blended from
FIBRE_PX = 512


def resize(plane: NDArray, shape: tuple[int, int]) -> Plane:
    """Bilinear interpolation of a plane to (H, W)."""
    picture = Image.fromarray(np.asarray(plane, dtype=np.float32))
    return np.array(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


@cache
def fibre_textures() -> Plane:
    """Fibres in six directions, periodic, unit spread, (6, 512, 512); the same for every slide."""
    rng = np.random.default_rng(derive(0, "fibre textures"))
    fy, fx = np.meshgrid(np.fft.fftfreq(FIBRE_PX), np.fft.fftfreq(FIBRE_PX), indexing="ij")
    textures = np.empty((DIRECTIONS, FIBRE_PX, FIBRE_PX), dtype=np.float32)
    for k in range(DIRECTIONS):
        angle = np.pi * k / DIRECTIONS
        along, across = (
            fx * np.cos(angle) + fy * np.sin(angle),
            fy * np.cos(angle) - fx * np.sin(angle),
        )
        keep = (
            np.exp(-((along / 0.008) ** 2))
            * np.abs(across) ** 0.3
            * np.exp(-((across / 0.07) ** 2))
        )
        noise = np.fft.fft2(rng.normal(size=(FIBRE_PX, FIBRE_PX)))
        texture = np.real(np.fft.ifft2(noise * keep))
        textures[k] = texture / texture.std()
    return textures


@cache
def cell_texture() -> Plane:
    """Cytoplasm: blotches of the size of cells, periodic, unit spread, (512, 512)."""
    rng = np.random.default_rng(derive(0, "cytoplasm texture"))
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(FIBRE_PX), np.fft.fftfreq(FIBRE_PX), indexing="ij"))
    noise = np.fft.fft2(rng.normal(size=(FIBRE_PX, FIBRE_PX)))
    texture = np.real(np.fft.ifft2(noise * np.exp(-((f / 0.05) ** 2))))
    return (texture / texture.std()).astype(np.float32)


def spread(texture: Plane, rng: np.random.Generator) -> Plane:
    """Cover the canvas with a periodic texture from a random corner."""
    rolled = np.roll(texture, tuple(rng.integers(FIBRE_PX, size=2)), axis=(0, 1))
    repeats = [-(-n // FIBRE_PX) for n in CANVAS]
    return np.tile(rolled, repeats)[: CANVAS[0], : CANVAS[1]]


def stroma_fibres(plan: Plan, rng: np.random.Generator) -> Plane:
    """Fibres on the canvas that follow ``plan.direction``."""
    out = np.zeros(CANVAS, dtype=np.float32)
    for k, texture in enumerate(fibre_textures()):
        near = np.cos(2 * (plan.direction - np.pi * k / DIRECTIONS))
        weight = np.clip(near, 0, None) ** 6
        out += resize(weight, CANVAS) * spread(texture, rng)
    return out


@dataclass
class Ground:
    """What is under the nuclei: haematoxylin and eosin on the canvas, and where glands stand."""

    h: Plane
    e: Plane
    nuclei: list[Nuclei] = field(default_factory=list)


def draw_ground(plan: Plan, rng: np.random.Generator) -> Ground:
    """Stroma, cell-rich areas, fat, glands; the latter come with their nuclei."""
    fibres, cells = stroma_fibres(plan, rng), spread(cell_texture(), rng)
    blotches = resize(smooth_noise(rng, 120), CANVAS)
    e = np.clip(0.46 + 0.13 * fibres + 0.05 * blotches, 0.04, 1.2)
    h = np.clip(0.05 + 0.02 * fibres, 0, None)
    # Tumours and their look-alikes stand on the same ground: it gives nothing away.
    for kind, area in plan.areas.items():
        strands = resize(smooth_noise(rng, 45), CANVAS) > 1.1
        share = resize(area, CANVAS) * (0.6 if kind == "lymphocyte" else 0.9) * ~strands
        e += share * (0.36 + 0.06 * cells - e)
        h += share * (0.15 + 0.03 * cells - h)
    ground = Ground(h.astype(np.float32), e.astype(np.float32))
    _draw_fat(ground, plan, rng)
    _draw_glands(ground, plan, rng)
    soft = ndimage.gaussian_filter(plan.tissue.astype(np.float32), 1.2)
    inside = np.clip(6 * (resize(soft, CANVAS) - 0.5) + 0.5 + 0.3 * cells, 0, 1)
    ground.h *= inside
    ground.e *= inside
    return ground


def _draw_fat(ground: Ground, plan: Plan, rng: np.random.Generator) -> None:
    for x, y in zip(*scatter(rng, plan.fat, 46, 0.12), strict=True):
        cells = disk((y / CANVAS_UM, x / CANVAS_UM), rng.uniform(17, 22) / CANVAS_UM, shape=CANVAS)
        ground.e[cells], ground.h[cells] = 0.02, 0.0


def _draw_glands(ground: Ground, plan: Plan, rng: np.random.Generator) -> None:
    """Rings of columnar epithelium round a lumen, nuclei at the base, standing on end."""
    xs, ys, angles = [], [], []
    crowded = rng.uniform(0, 0.5)
    for x, y in zip(*scatter(rng, plan.glands, 92, 0.16), strict=True):
        turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        harmonics = [
            rng.normal(0, 0.09) * np.cos(k * turn + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4)
        ]
        radius = rng.uniform(*GLAND_UM) * (1 + np.sum(harmonics, axis=0))
        for share, h, e in ((1.0, 0.14, 0.4), (rng.uniform(0.3, 0.55), 0.0, 0.03)):
            ring = polygon(
                (y + share * radius * np.sin(turn)) / CANVAS_UM,
                (x + share * radius * np.cos(turn)) / CANVAS_UM,
                shape=CANVAS,
            )
            ground.h[ring], ground.e[ring] = h, e
        for depth in (0.84, 0.62) if rng.random() < crowded else (0.84,):
            number = max(6, int(2 * np.pi * depth * radius.mean() / 6.6))
            place = np.linspace(0, 2 * np.pi, number, endpoint=False) + rng.uniform(0, 0.3)
            place = place + rng.normal(0, 0.03, number)
            out = np.interp(place % (2 * np.pi), turn, radius) * (
                depth + rng.normal(0, 0.02, number)
            )
            xs.append(x + out * np.cos(place))
            ys.append(y + out * np.sin(place))
            angles.append(place % np.pi)
    if xs:
        found = (np.concatenate(part) for part in (xs, ys, angles))
        ground.nuclei.append(Nuclei("epithelium", *found))


# Spacing (um) and disorder of the nuclei in each kind of area.
_PACKING = {
    "lymphocyte": (7.4, 0.34),
    "epithelium": (8.6, 0.25),
    "reactive": (11.2, 0.27),
    "histiocyte": (11.6, 0.27),
    "tumour-dark": (11.8, 0.42),
    "tumour-pale": (12.2, 0.42),
}


def scatter_nuclei(plan: Plan, ground: Ground, rng: np.random.Generator) -> list[Nuclei]:
    """Nuclei of the stroma and of every area; look-alikes lie along the fibres, tumours do not."""
    stroma = plan.tissue.copy()
    for area in plan.areas.values():
        stroma &= ~area
    x, y = scatter(rng, stroma, 20, 0.5)
    found = [Nuclei("spindle", x, y, at(plan.direction, x, y) + rng.normal(0, 0.15, len(x)))]
    x, y = scatter(rng, plan.tissue & (rng.random(GRID) < 0.12), 14, 0.5)
    found.append(Nuclei("lymphocyte", x, y, rng.uniform(0, np.pi, len(x))))
    for kind, area in plan.areas.items():
        x, y = scatter(rng, area, *_PACKING[kind])
        if kind in ("reactive", "epithelium"):
            angle = at(plan.direction, x, y) + rng.normal(0, 0.2, len(x))
        else:
            angle = rng.uniform(0, np.pi, len(x))
        found.append(Nuclei(kind, x, y, angle))
    return [_on_tissue(nuclei, ground) for nuclei in found]


def _on_tissue(nuclei: Nuclei, ground: Ground) -> Nuclei:
    """Leave out nuclei that would float on glass, in a lumen or in a fat cell."""
    rows, columns = (nuclei.y / CANVAS_UM).astype(int), (nuclei.x / CANVAS_UM).astype(int)
    keep = ground.e[rows, columns] > 0.12
    return Nuclei(nuclei.kind, nuclei.x[keep], nuclei.y[keep], nuclei.angle[keep])
