"""H&E-like slides of four hospitals, with known tumour: what the demo and the tests train on.

Nothing here is a picture of a patient. Half of the slides hold one to three tumour foci on a few
per cent of their tissue; every slide holds look-alikes (lymphocytes, crowded glands, areas of
large but orderly nuclei), so that a tile has to be judged by several features at once.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from rayfed_hn.seeds import derive
from rayfed_hn.slides import synthetic_plan, synthetic_tissue
from rayfed_hn.slides.synthetic_hospitals import (
    HOSPITALS,
    STEPS_PER_UNIT,
    Hospital,
    colour_table,
)
from rayfed_hn.slides.synthetic_nuclei import Plane, put_nuclei

DOWNSAMPLES = (2, 8)  # of the second and third level of the pyramid
COLUMNS = ("slide_id", "path", "case_id", "site", "label")
LABELS = {False: "normal", True: "tumour"}
PEN_INKS = ((40, 60, 160), (30, 110, 70), (40, 40, 45))


@dataclass(frozen=True)
class PlannedSlide:
    """One slide before it is drawn; picklable, for the workers."""

    slide_id: str
    case_id: str
    hospital: Hospital
    has_tumour: bool
    seed: int


def make_federation(
    root: Path,
    slides_per_site: int,
    seed: int,
    on_slide: Callable[[int, int], None] | None = None,
    processes: int | None = None,
) -> Path:
    """Write slides, truth masks and ``manifest.csv`` of four hospitals.

    ``root/slides/<slide_id>.tiff`` is a JPEG-tiled pyramid of three levels that carries its own
    scale. ``root/truth/<slide_id>.png`` shows tumour as 255 at 4 um per pixel; it
    covers the same area as the slide.

    Args:
        root: Folder to write into; made if absent.
        slides_per_site: Slides of each hospital.
        seed: Every slide is drawn from (seed, slide id), whoever draws it.
        on_slide: Called with (slides done, slides in all) after every slide.
        processes: Workers (default: one per core); 1 draws in this process.

    Returns:
        Path of the manifest.
    """
    planned = list(plan_slides(slides_per_site, seed))
    for folder in ("slides", "truth"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for done, _ in enumerate(_draw_all(root, planned, processes), start=1):
        if on_slide is not None:
            on_slide(done, len(planned))
    manifest = root / "manifest.csv"
    with manifest.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for s in planned:
            where = f"slides/{s.slide_id}.tiff"
            rows.writerow([s.slide_id, where, s.case_id, s.hospital.name, LABELS[s.has_tumour]])
    return manifest


def _draw_all(root: Path, planned: list[PlannedSlide], processes: int | None) -> Iterator[None]:
    if processes == 1:
        for slide in planned:
            yield write_slide(root, slide)
        return
    # Spawned, not forked: the caller may hold threads (Ray, torch), which a fork would tear.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for job in as_completed([pool.submit(write_slide, root, slide) for slide in planned]):
            yield job.result()


def plan_slides(slides_per_site: int, seed: int) -> Iterator[PlannedSlide]:
    """Decide labels and cases: one or two slides a case, and at least five cases a class if it can.

    Both slides of a case have the same label.
    """
    for hospital in HOSPITALS:
        rng = np.random.default_rng(derive(seed, "synthetic cases", hospital.name))
        tumours = round(slides_per_site * hospital.prevalence)
        cases: list[tuple[bool, int]] = []
        for has_tumour, number in ((True, tumours), (False, slides_per_site - tumours)):
            pairs = max(0, min(number // 3, number - 5))
            cases += [(has_tumour, 2)] * pairs + [(has_tumour, 1)] * (number - 2 * pairs)
        slide = 0
        for case, k in enumerate(rng.permutation(len(cases))):
            has_tumour, number = cases[k]
            for _ in range(number):
                slide_id = f"{hospital.name}-{slide:03d}"
                own = derive(seed, "synthetic slide", slide_id)
                yield PlannedSlide(
                    slide_id, f"{hospital.name}-case-{case:03d}", hospital, has_tumour, own
                )
                slide += 1


def write_slide(root: Path, slide: PlannedSlide) -> None:
    """Draw one slide and write its picture and its truth mask."""
    picture, truth = draw_slide(slide.hospital, slide.has_tumour, slide.seed)
    write_pyramid(root / "slides" / f"{slide.slide_id}.tiff", picture, slide.hospital)
    mask = Image.fromarray(np.where(truth, 255, 0).astype(np.uint8))
    mask.save(root / "truth" / f"{slide.slide_id}.png")


def draw_slide(
    hospital: Hospital, has_tumour: bool, seed: int
) -> tuple[Image.Image, NDArray[np.bool_]]:
    """Draw a slide at the hospital's scale.

    Returns:
        The picture, and the mask of tumour on a grid of 4 um.
    """
    rng = np.random.default_rng(seed)
    kinds = list(hospital.tumours)
    chosen = kinds[int(rng.choice(len(kinds), p=list(hospital.tumours.values())))]
    plan = synthetic_plan.draw_plan(rng, chosen if has_tumour else None, hospital.mimics)
    ground = synthetic_tissue.draw_ground(plan, rng)
    shape = (
        round(synthetic_plan.HEIGHT_UM / hospital.mpp),
        round(synthetic_plan.WIDTH_UM / hospital.mpp),
    )
    h, e = synthetic_tissue.resize(ground.h, shape), synthetic_tissue.resize(ground.e, shape)
    for nuclei in [*ground.nuclei, *synthetic_tissue.scatter_nuclei(plan, ground, rng)]:
        put_nuclei(h, e, nuclei, hospital.mpp, rng)
    if rng.random() < 0.12:
        _fold(h, e, hospital, rng)
    picture = _scan(h, e, hospital, rng)
    if rng.random() < 0.1:
        _pen_mark(picture, rng)
    return picture, plan.tumour()


def _fold(h: Plane, e: Plane, hospital: Hospital, rng: np.random.Generator) -> None:
    """Lay the tissue double along a curved band, in place."""
    height, width = h.shape
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(hospital.mpp)
    x = np.arange(width, dtype=np.float32)[None, :] * np.float32(hospital.mpp)
    bend, slope = rng.uniform(15, 40), rng.uniform(-0.4, 0.4)
    middle = rng.uniform(0.25, 0.75) * synthetic_plan.WIDTH_UM
    off = np.abs(x - np.float32(middle) - np.float32(slope) * y - np.float32(bend) * np.sin(y / 90))
    more = 1 + np.float32(0.8) * np.clip(1.5 - off / np.float32(rng.uniform(5, 10)), 0, 1)
    h *= more
    e *= more


def _scan(h: Plane, e: Plane, hospital: Hospital, rng: np.random.Generator) -> Image.Image:
    """Turn stain into colour, with the scanner's noise and blur."""
    grain = rng.normal(0, hospital.grain, size=(2, 256, 256)).astype(np.float32)
    repeats = [-(-n // 256) for n in h.shape]
    row = np.zeros(h.shape, dtype=np.uint16)
    for stain, noise, unit in ((h, grain[0], 256), (e, grain[1], 1)):
        stain += np.tile(noise, repeats)[: h.shape[0], : h.shape[1]]
        stain *= np.float32(STEPS_PER_UNIT)
        row += np.clip(stain, 0, 255).astype(np.uint16) * np.uint16(unit)
    picture = Image.fromarray(np.take(colour_table(hospital, rng), row, axis=0))
    if hospital.blur_um > 0:
        picture = picture.filter(ImageFilter.GaussianBlur(hospital.blur_um / hospital.mpp))
    return picture


def _pen_mark(picture: Image.Image, rng: np.random.Generator) -> None:
    """A stroke of a felt pen near one corner, as pathologists leave them."""
    width, height = picture.size
    x, y = rng.uniform(0.01, 0.1) * width, rng.uniform(0.05, 0.3) * height
    steps = np.cumsum(rng.normal([0.012, 0.02], 0.01, size=(6, 2)), axis=0) * [width, height]
    points = [(float(x + dx), float(y + dy)) for dx, dy in steps]
    ink = PEN_INKS[int(rng.integers(len(PEN_INKS)))]
    ImageDraw.Draw(picture).line(points, fill=ink, width=max(3, width // 90), joint="curve")


def write_pyramid(path: Path, picture: Image.Image, hospital: Hospital) -> None:
    """Write a picture as a JPEG-tiled pyramidal TIFF that says its own scale."""
    levels = [picture, *(picture.reduce(factor) for factor in DOWNSAMPLES)]
    with tifffile.TiffWriter(path) as tiff:
        for k, level in enumerate(levels):
            per_cm = 1e4 / hospital.mpp * level.width / picture.width
            tiff.write(
                np.asarray(level),
                tile=(256, 256),
                compression="jpeg",
                compressionargs={"level": hospital.quality},
                photometric="rgb",  # stored as YCbCr
                subsampling=(2, 2),
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int(k > 0),
                metadata=None,
                software="rayfed_hn",
            )
