"""Bags of synthetic slides whose features tell tumour, so that a short training finds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from finished_runs import finished_run
from PIL import Image

from rayfed_hn.bags import store
from rayfed_hn.bags.bag import Bag
from rayfed_hn.slides.synthetic import PlannedSlide, write_slide
from rayfed_hn.slides.synthetic_hospitals import HOSPITALS
from rayfed_hn.slides.synthetic_plan import GRID_UM, HEIGHT_UM, WIDTH_UM, draw_plan
from rayfed_hn.slides.tiling import grid, tile_size0
from rayfed_hn.slides.truth import tumour_shares

HOSPITAL = HOSPITALS[1]  # .5 um a pixel
TILE_PX, DIM, PER_SITE = 64, 6, 8
DRAWN = "east-drawn"  # the slide that has pixels
QUICK = (
    *("rounds.num_versions=12", "training.steps=20", "model.hidden_dim=8"),
    *("hypernetwork.embedding_dim=3", "evaluation.readout=last"),
)


@dataclass(frozen=True)
class Planted:
    """A bag store, a run on it, and one slide with its truth."""

    root: Path
    run: Path
    slide: Path
    truth: np.ndarray
    manifest: Path

    def inside(self, coords_N2: np.ndarray) -> np.ndarray:
        """Which tiles are tumour, bool (N,)."""
        return _shares(self.truth, coords_N2) >= 0.5


def planted(root: Path) -> Planted:
    """Two sites; every other slide has tumour. One slide is drawn."""
    bags = root / "bags"
    store.create(bags, {"encoder": "planted", "feature_dim": DIM})
    for folder in ("slides", "truth"):
        (root / folder).mkdir()
    write_slide(root, PlannedSlide(DRAWN, "case-drawn", HOSPITAL, True, 5))
    with Image.open(root / "truth" / f"{DRAWN}.png") as mask:
        truth = np.asarray(mask) > 127
    rng = np.random.default_rng(3)
    for site in ("east", "west"):
        for number in range(PER_SITE):
            kind = "tumour-pale" if number % 2 else None
            mask = draw_plan(rng, kind, HOSPITAL.mimics).tumour()
            store.write(bags, _bag(site, f"{site}-{number}", mask, bool(kind), rng))
    store.write(bags, _bag("east", DRAWN, truth, True, rng))
    run = finished_run(root / "run", bags, *QUICK)
    slide, manifest = root / "slides" / f"{DRAWN}.tiff", root / "manifest.csv"
    manifest.write_text(
        f"slide_id,path,case_id,site,label\n{DRAWN},slides/{DRAWN}.tiff,case-drawn,east,tumour\n"
    )
    return Planted(bags, run, slide, truth, manifest)


def _bag(site: str, name: str, mask: np.ndarray, tumour: bool, rng: np.random.Generator) -> Bag:
    mpp = HOSPITAL.mpp
    extent = round(WIDTH_UM / mpp), round(HEIGHT_UM / mpp)
    coords_N2 = grid(extent, mpp, TILE_PX, TILE_PX, mpp)
    features_ND = rng.normal(size=(len(coords_N2), DIM))
    features_ND[_shares(mask, coords_N2) >= 0.5, :2] += 2.5
    return Bag(
        slide_id=name,
        case_id=f"case-{name.rpartition('-')[2]}-{site}",
        site=site,
        label="tumour" if tumour else "normal",
        features_ND=features_ND.astype(np.float32),
        coords_N2=coords_N2,
        tissue_N=np.ones(len(coords_N2), np.float32),
        tile_size0=tile_size0(mpp, TILE_PX, mpp),
        mpp=mpp,
    )


def _shares(mask: np.ndarray, coords_N2: np.ndarray) -> np.ndarray:
    return tumour_shares(mask, coords_N2, TILE_PX, HOSPITAL.mpp, GRID_UM)
