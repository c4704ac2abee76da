"""What the commands of a page take for granted: slides, tables, bags, runs. All of it is small."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from fences import ROOT
from finished_runs import SHORT, finished_run
from tiny_federations import create, write

from rayfed_hn.bags import store
from rayfed_hn.bags.clam_tables import read_table
from rayfed_hn.bags.splits import split
from rayfed_hn.bags.store import SiteBags, list_sites
from rayfed_hn.loading import load
from rayfed_hn.slides.embedding import embed_slide, recipe
from rayfed_hn.slides.manifest import read_manifest
from rayfed_hn.slides.texture import TextureEncoder
from rayfed_hn.verbs.tables import export

MPP, SIDE = 0.5, 768  # of a slide, px
PINK, VIOLET = (205, 120, 170), (90, 50, 120)
CASES = 6  # of a site
LABELS = ("normal", "tumour")


def draw(path: Path, *, tumour: bool, seed: int) -> Path:
    """A disc of something pink on glass; tumour is many dark dots. TIFF, whatever its name."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    slide = rng.normal(244, 2, (SIDE, SIDE, 3))
    inside = np.hypot(x - SIDE / 2, y - SIDE / 2) < 0.48 * SIDE
    slide[inside] = rng.normal(0, 12, (int(inside.sum()), 1)) + PINK
    nuclei = rng.random((SIDE // 8, SIDE // 8)) < (0.5 if tumour else 0.1)
    dark = np.kron(nuclei, np.ones((8, 8), bool)) & inside
    slide[dark] = rng.normal(0, 10, (int(dark.sum()), 3)) + VIOLET
    pixels = slide.clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for step in (1, 4):
            file.write(
                pixels[::step, ::step],
                tile=(256, 256),
                subfiletype=int(step > 1),
                resolution=(1e4 / MPP / step, 1e4 / MPP / step),
                resolutionunit="CENTIMETER",
                compression="jpeg",
                photometric="rgb",
                metadata=None,
            )
    return path


def slides(folder: Path, sites: Sequence[str], first: str = "") -> Path:
    """Slides of these sites, ``CASES`` each, half of them with tumour; returns the manifest.

    Args:
        folder: For the manifest; slides go to ``slides/`` in it.
        sites: Their names.
        first: slide_id of the first one; others are ``<site>-<number>``.
    """
    rows = ["slide_id,path,case_id,site,label"]
    for number in range(CASES * len(sites)):
        site, label = sites[number // CASES], LABELS[number % 2]
        name = f"{site}-{number:03}" if number or not first else first
        path = draw(folder / "slides" / f"{name}.svs", tumour=label == "tumour", seed=number)
        rows.append(f"{name},{path.relative_to(folder)},patient-{number},{site},{label}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


def embedded(manifest: Path, bags: Path, *words: str) -> Path:
    """Bags as ``rayfed-hn embed`` makes them, without a cluster."""
    config, encoder = load(None, words).embed, TextureEncoder()
    store.create(bags, recipe(config, encoder))
    for record in read_manifest(manifest, None):
        store.write(bags, embed_slide(record, encoder, config))
    return bags


def drawn_bags(folder: Path, bags: str, *sites: str) -> Path:
    """Bags of slides that lie elsewhere in the folder."""
    return embedded(slides(folder / f"slides-of-{bags}", sites), folder / bags)


def random_bags(root: Path, sites: Sequence[str], labels: Sequence[str] = LABELS) -> Path:
    """Bags of features that are noise."""
    create(root)
    for site in sites:
        for number in range(CASES):
            write(root, site, f"{site}-{number}", labels[number % 2])
    return root


def features(folder: Path, sites: Sequence[str]) -> Path:
    """Files of features with CLAM's table and our manifest, as ``export`` writes them."""
    bags = random_bags(folder.parent / f"bags-of-{folder.name}", sites)
    assert export(bags, folder, "clam") == 0
    shutil.rmtree(bags)
    return folder


def clam_table(path: Path, manifest: Path) -> Path:
    """A table of CLAM's, with HistoFL's column for the site."""
    rows = ["case_id,slide_id,label,institute"]
    for row in read_table(manifest).rows:
        rows.append(",".join(row[name] for name in ("case_id", "slide_id", "label", "site")))
    path.write_text("\n".join(rows) + "\n")
    return path


def clam_splits(folder: Path, manifest: Path, num_folds: int = 3) -> Path:
    """Tables ``splits_0.csv``, ... that divide the slides of a manifest by case."""
    folder.mkdir()
    bags = random_bags(
        folder.parent / "of-splits", sorted({r.site for r in read_manifest(manifest, None)})
    )
    for fold in range(num_folds):
        parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        for site in list_sites(bags):
            entries = SiteBags(bags, site).entries
            given = split(entries, num_folds, fold, 0)
            for name, own in parts.items():
                own += [entries[i].slide_id for i in getattr(given, name)]
        longest = max(map(len, parts.values()))
        columns = [own + [""] * (longest - len(own)) for own in parts.values()]
        rows = [f"{i},{','.join(row)}" for i, row in enumerate(zip(*columns, strict=True))]
        (folder / f"splits_{fold}.csv").write_text("\n".join([",train,val,test", *rows]) + "\n")
    shutil.rmtree(bags)
    return folder


def barcoded(folder: Path, labels: Path, first: str) -> None:
    """Slides of TCGA from three tissue source sites, and the labels of their cases."""
    rows = ["case_id,label"]
    for number in range(3 * CASES):
        site, label = ("A2", "BH", "E9")[number // CASES], LABELS[number % 2]
        case = f"TCGA-{site}-A{number:03}"
        name = f"{case}-01Z-00-DX1.9D6C1B2E-0000-4000-8000-{number:012}"
        if number == 0:
            name, case = first, first[:12]
        draw(folder / f"{number:08}" / f"{name}.svs", tumour=label == "tumour", seed=number)
        rows.append(f"{case},{label}")
    labels.write_text("\n".join(rows) + "\n")


def camelyon(folder: Path, stages: Path) -> None:
    """Slides of Camelyon17 from two centres, which nobody opens."""
    rows = ["patient,stage"]
    folder.mkdir()
    for patient in (0, 1, 20, 21):
        (folder / f"patient_{patient:03}_node_0.tif").touch()
        rows.append(f"patient_{patient:03}_node_0.tif,{('negative', 'macro')[patient % 2]}")
    stages.write_text("\n".join(rows) + "\n")


def finished(folder: Path, bags: Path, **methods: str) -> None:
    """Finished runs, ``runs/<name>`` for every name with its method."""
    for name, method in methods.items():
        finished_run(
            folder / "runs" / name, bags, f"method.name={method}", short=(*SHORT, "run.seed=0")
        )


def our_files(folder: Path) -> None:
    """What of the checkout commands name: they are given in its root."""
    for name in ("conf", "cluster", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
