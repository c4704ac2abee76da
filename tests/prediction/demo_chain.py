"""The whole way in this process, without a cluster: slides, bags, training. Some 50 s of one core.

Two of the demo's hospitals, scanned at 1 um a pixel in place of .25 and .35, which draws and embeds
several times as fast; 16 slides each, since with 8 the shipped classifier does not find the tumour.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import numpy as np
from finished_runs import finished_run
from PIL import Image

from rayfed_hn.bags import store
from rayfed_hn.bags.splits import split
from rayfed_hn.loading import load
from rayfed_hn.prediction.finished import FinishedRun
from rayfed_hn.slides import synthetic
from rayfed_hn.slides.embedding import embed_slide, recipe
from rayfed_hn.slides.manifest import SlideRecord, read_manifest
from rayfed_hn.slides.synthetic_hospitals import HOSPITALS
from rayfed_hn.slides.texture import TextureEncoder

MPP, SLIDES_PER_SITE, SEED, PROCESSES = 1.0, 16, 0, 2
SITES = tuple(replace(HOSPITALS[place], mpp=MPP, prevalence=0.5) for place in (0, 2))
EMBED = load(None, [f"embed.mpp={MPP}", "embed.tile_px=64"]).embed  # 64 um, as in the demo


def draw_and_embed(root: Path) -> Path:
    """Slides, truth masks and the bag store, which is returned."""
    with mock.patch.object(synthetic, "HOSPITALS", SITES):
        manifest = synthetic.make_federation(root, SLIDES_PER_SITE, SEED, processes=PROCESSES)
    bags = root / "bags"
    store.create(bags, recipe(EMBED, TextureEncoder()))
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(_embed, bags), read_manifest(manifest, None)))
    return bags


def _embed(bags: Path, record: SlideRecord) -> None:
    store.write(bags, embed_slide(record, TextureEncoder(), EMBED))


def train(folder: Path, bags: Path, fold: int) -> FinishedRun:
    """With all settings as they ship."""
    return FinishedRun.read(finished_run(folder, bags, f"data.fold={fold}", short=()))


def held_out_tumours(run: FinishedRun, bags: Path) -> list[tuple[str, str]]:
    """Site and slide_id of the run's test slides that have tumour."""
    found = []
    for site in run.sites:
        entries = store.SiteBags(bags, site).entries
        data = run.config.data
        test = split(entries, data.folds, data.fold, run.config.run.seed).test
        mine = [entries[index] for index in test]
        found += [(site, entry.slide_id) for entry in mine if entry.label == "tumour"]
    return found


def truth(root: Path, slide: str) -> np.ndarray:
    """Where its tumour is, on a grid of 4 um."""
    with Image.open(root / "truth" / f"{slide}.png") as mask:
        return np.asarray(mask) > 127
