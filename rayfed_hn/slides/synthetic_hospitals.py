"""The four hospitals of the synthetic federation: stain, scanner, and what they see of disease."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS_PER_UNIT = 127  # a stain plane is looked up in bytes: 0 ... 2 of stain


@dataclass(frozen=True)
class Hospital:
    """One site.

    Attributes:
        name: Site in the manifest.
        mpp: Scanner scale in um per pixel.
        haematoxylin: Optical density (natural log) of red, green, blue at stain 1.
        eosin: The same for eosin.
        white: Glass as the scanner sees it, bytes.
        quality: JPEG quality.
        blur_um: Standard deviation of the scanner's blur.
        grain: Noise, as stain.
        prevalence: Share of slides with tumour.
        tumours: Share of slides, by kind of tumour.
        mimics: Mean number of benign look-alike areas per slide, by kind.
    """

    name: str
    mpp: float
    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    white: tuple[int, int, int]
    quality: int
    blur_um: float
    grain: float
    prevalence: float
    tumours: dict[str, float]
    mimics: dict[str, float]


# Dark tumours among pale look-alikes at a and c, pale tumours among dark look-alikes at b and d:
# the same tile speaks for tumour at one site and less so at another, and two sites can share.
HOSPITALS = (
    Hospital(
        name="hospital-a", mpp=0.25, haematoxylin=(0.92, 1.02, 0.48), eosin=(0.12, 0.95, 0.42),
        white=(243, 241, 243), quality=60, blur_um=0.0, grain=0.012, prevalence=0.5,
        tumours={"tumour-dark": 1.0},
        mimics={"histiocyte": 1.6, "reactive": 0.5, "epithelium": 1.2},
    ),
    Hospital(
        name="hospital-b", mpp=0.5, haematoxylin=(1.15, 0.95, 0.38), eosin=(0.06, 1.15, 0.62),
        white=(246, 244, 236), quality=85, blur_um=0.25, grain=0.03, prevalence=0.375,
        tumours={"tumour-pale": 0.85, "tumour-dark": 0.15},
        mimics={"reactive": 1.6, "histiocyte": 0.4, "epithelium": 1.0},
    ),
    Hospital(
        name="hospital-c", mpp=0.35, haematoxylin=(0.70, 0.86, 0.42), eosin=(0.14, 0.62, 0.30),
        white=(238, 238, 242), quality=78, blur_um=0.2, grain=0.025, prevalence=0.625,
        tumours={"tumour-dark": 0.85, "tumour-pale": 0.15},
        mimics={"histiocyte": 1.5, "reactive": 0.5, "epithelium": 1.2},
    ),
    Hospital(
        name="hospital-d", mpp=0.46, haematoxylin=(1.00, 1.22, 0.62), eosin=(0.22, 0.88, 0.34),
        white=(240, 236, 240), quality=80, blur_um=0.45, grain=0.02, prevalence=0.5,
        tumours={"tumour-pale": 0.7, "tumour-dark": 0.3},
        mimics={"reactive": 1.5, "histiocyte": 0.5, "epithelium": 1.0},
    ),
)  # fmt: skip


def colour_table(hospital: Hospital, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bytes of red, green and blue for every pair of stain bytes, (65536, 3) (Beer-Lambert).

    The row is ``256 * haematoxylin + eosin``. A slide's stain differs a little from its hospital's.
    """
    strength = rng.normal(1, 0.08, size=2)
    hue = rng.normal(1, 0.03, size=(2, 3))
    h, e = np.array(hospital.haematoxylin), np.array(hospital.eosin)
    stain = np.arange(256) / STEPS_PER_UNIT
    density = (
        stain[:, None, None] * (h * strength[0] * hue[0])
        + stain[None, :, None] * (e * strength[1] * hue[1])
    )  # fmt: skip
    return np.rint(np.array(hospital.white) * np.exp(-density)).astype(np.uint8).reshape(-1, 3)
