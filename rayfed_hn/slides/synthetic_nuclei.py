"""Nuclei of the synthetic slides: kinds, stamps, and how they are put on the picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rayfed_hn.seeds import derive

Plane = NDArray[np.float32]
Floats = NDArray[np.float64]

ANGLES, SHAPES = 12, 10  # stamps of each kind: directions x outlines


@dataclass(frozen=True)
class Kind:
    """What the nuclei of one sort of cell look like. Lengths in um, stain 1 = very dark.

    Attributes:
        length: Mean semi-axis along the nucleus.
        roundness: Second semi-axis as a share of the first, lowest and highest.
        size_spread: Coefficient of variation of ``length`` (pleomorphism).
        stain: Mean haematoxylin.
        stain_spread: Coefficient of variation of the haematoxylin between nuclei.
        clumps: Contrast of the chromatin.
        rim: How much paler the middle is than the membrane (vesicular nuclei).
        nucleolus: Extra stain of one or two nucleoli.
        dents: Irregularity of the outline.
    """

    length: float
    roundness: tuple[float, float]
    size_spread: float
    stain: float
    stain_spread: float = 0.12
    clumps: float = 0.12
    rim: float = 0.1
    nucleolus: float = 0.0
    dents: float = 0.04


KINDS = {
    "spindle": Kind(5.4, (0.2, 0.35), 0.15, 0.72),
    "epithelium": Kind(4.1, (0.55, 0.75), 0.1, 0.74, 0.15, rim=0.3),
    "lymphocyte": Kind(2.8, (0.85, 1.0), 0.1, 1.0, clumps=0.2),
    # The benign mimics: as large and as dark as a tumour's nuclei, but alike and in order.
    "reactive": Kind(5.0, (0.6, 0.85), 0.1, 0.95, 0.18, clumps=0.22, rim=0.15),
    "histiocyte": Kind(5.1, (0.65, 0.95), 0.1, 0.64, 0.18, clumps=0.18, rim=0.38, nucleolus=0.35),
    "tumour-dark": Kind(4.7, (0.5, 0.95), 0.27, 0.92, 0.22, clumps=0.22, rim=0.15, dents=0.13),
    "tumour-pale": Kind(
        4.8, (0.55, 0.95), 0.27, 0.64, 0.22, clumps=0.18, rim=0.38, nucleolus=0.45, dents=0.1
    ),
}


@dataclass(frozen=True)
class Nuclei:
    """Nuclei of one kind: centres (um), directions (radians), each of shape (n,)."""

    kind: str
    x: Floats
    y: Floats
    angle: Floats


@dataclass(frozen=True)
class Stamp:
    """One nucleus in pixels: how much it covers, 0 to 1, and its haematoxylin, both (h, w)."""

    cover: Plane
    stain: Plane


@cache
def stamps(kind: str, mpp: float) -> tuple[tuple[Stamp, ...], ...]:
    """All stamps of a kind at a scale, by direction and outline; the same in every process."""
    rng = np.random.default_rng(derive(0, "nucleus stamps", kind))
    outlines = [_Outline.draw(KINDS[kind], rng) for _ in range(SHAPES)]
    return tuple(
        tuple(outline.stamp(np.pi * k / ANGLES, mpp) for outline in outlines) for k in range(ANGLES)
    )


@dataclass(frozen=True)
class _Outline:
    kind: Kind
    long: float
    short: float
    waves: Floats  # amplitude and phase of the outline's 2nd to 4th harmonic, (3, 2)
    spots: Floats  # place, width and stain of clumps, (n, 4)

    @classmethod
    def draw(cls, kind: Kind, rng: np.random.Generator) -> _Outline:
        long = kind.length * float(np.clip(1 + kind.size_spread * rng.normal(), 0.5, 1.8))
        short = long * float(rng.uniform(*kind.roundness))
        waves = np.column_stack([kind.dents * rng.normal(size=3), rng.uniform(0, 2 * np.pi, 3)])
        spots = np.column_stack(
            [
                rng.uniform(-0.7, 0.7, (9, 2)),
                rng.uniform(0.15, 0.35, 9),
                kind.clumps * rng.choice([-1.0, 1.0], 9),
            ]
        )
        spots[0] = [0.3 * rng.normal(), 0.3 * rng.normal(), 0.22, kind.nucleolus]
        return cls(kind, long, short, waves, spots)

    def stamp(self, angle: float, mpp: float) -> Stamp:
        reach = int(np.ceil((self.long * 1.25 + 1) / mpp))
        dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1] * mpp
        u = (dx * np.cos(angle) + dy * np.sin(angle)) / self.long
        v = (dy * np.cos(angle) - dx * np.sin(angle)) / self.short
        turn, radius = np.arctan2(v, u), np.hypot(u, v)
        edge = 1 + sum(a * np.cos(k * turn + p) for k, (a, p) in enumerate(self.waves, 2))
        inside = (edge - radius) * self.short  # um from the membrane, roughly
        cover = np.clip(inside / 0.7 + 0.5, 0, 1)
        stain = 1 - self.kind.rim * np.clip(inside / (0.6 * self.short), 0, 1)
        for x, y, width, extra in self.spots:
            stain += extra * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * width**2))
        return Stamp(cover.astype(np.float32), (cover * stain).astype(np.float32))


def put_nuclei(h: Plane, e: Plane, nuclei: Nuclei, mpp: float, rng: np.random.Generator) -> None:
    """Draw nuclei over the haematoxylin and eosin planes, both (H, W), in place."""
    kind, bank = KINDS[nuclei.kind], stamps(nuclei.kind, mpp)
    number = len(nuclei.x)
    directions = np.rint(nuclei.angle / np.pi * ANGLES).astype(int) % ANGLES
    outlines = rng.integers(SHAPES, size=number)
    levels = kind.stain * np.clip(1 + kind.stain_spread * rng.normal(size=number), 0.5, 1.5)
    columns, rows = np.rint(nuclei.x / mpp).astype(int), np.rint(nuclei.y / mpp).astype(int)
    height, width = h.shape
    for row, column, k, s, level in zip(rows, columns, directions, outlines, levels, strict=True):
        stamp = bank[k][s]
        reach = stamp.cover.shape[0] // 2
        top, left = row - reach, column - reach
        if top < 0 or left < 0 or row + reach >= height or column + reach >= width:
            continue  # cut by the edge of the slide, where there is glass
        here = np.s_[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
        h[here] *= 1 - np.float32(0.85) * stamp.cover
        h[here] += np.float32(level) * stamp.stain
        e[here] *= 1 - np.float32(0.6) * stamp.cover
