"""The verb that shows where a network looks on a slide."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rayfed_hn.errors import ConfigError, SetAside
from rayfed_hn.verbs.common import before_anything_starts, resumable

if TYPE_CHECKING:
    from rayfed_hn.bags.bag import Bag
    from rayfed_hn.prediction.finished import FinishedRun
    from rayfed_hn.prediction.heat import Heat
    from rayfed_hn.reporting.heat_layer import Ground
    from rayfed_hn.slides.overview import Overview

OVERLAY_PX = 4096  # longer side of the TIFF: a few um a pixel of a whole slide
SHOWN_TILES, SHOWN_PX = 8, 192  # of either end of the attention


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        slide: Its slide_id.
        site: Where it is filed; None: wherever it is.
        against: Another run, to be drawn beside.
        bags: The bag store; None: that of the run.
        slide_file: The slide's pixels; None: as the manifest says.
        to: The folder to write into.
    """

    slide: str
    site: str | None
    against: Path | None
    bags: Path | None
    slide_file: Path | None
    to: Path

    def file(self, what: str) -> Path:
        """One of the files that are written."""
        return self.to / f"{self.slide}.{what}"


def heatmap(run: Path, words: Sequence[str], wanted: Wanted) -> int:
    """See ``rayfed-hn heatmap --help``."""
    import torch

    torch.set_num_threads(1)
    with before_anything_starts():
        heats, bag, path = _look(run, words, wanted)
        if wanted.file("heatmap.png").exists():
            raise ConfigError(
                f"--to: {wanted.file('heatmap.png')} exists; delete it, or give another folder"
            )
    with resumable("the same command draws it again"):
        why = _draw(heats, bag, path, wanted)
    first = heats[0]
    for heat in heats:
        print(f"{heat.slide_id} of {heat.site}, {heat.run}, {heat.network}: says {heat.said}")
    print(f"{wanted.to}: {first.slide_id}.heatmap.png, .geojson and .tiff, of {len(first)} tiles")
    if path is None:
        print(
            "note: drawn on blank ground, without the slide; give its pixels by --slide-file FILE "
            "or data.manifest=FILE"
        )
    if why is not None:
        print(f"set aside: {path}: {why.reason} ({why.remedy}); drawn on blank ground")
    return 3 if why is not None else 0


def _look(run: Path, words: Sequence[str], wanted: Wanted) -> tuple[list[Heat], Bag, Path | None]:
    """Attention by every run, the slide's bag, and where its pixels are."""
    from rayfed_hn.prediction.attended import heat_of, site_of
    from rayfed_hn.prediction.finished import ALLOWED, PIXELS, FinishedRun

    finished = FinishedRun.read(run, words, (*ALLOWED, *PIXELS))
    root = finished.bags(wanted.bags)
    site = site_of(root, wanted.slide, wanted.site)
    heat, bag = heat_of(finished, root, site, wanted.slide)
    heats = [heat]
    if wanted.against is not None:
        try:
            other = FinishedRun.read(wanted.against)
        except ConfigError as error:
            raise ConfigError(str(error).replace("RUN:", "--against:", 1)) from None
        heats.append(heat_of(other, other.bags(root), site, wanted.slide)[0])
    return heats, bag, wanted.slide_file or _by_manifest(finished, site, wanted.slide)


def _by_manifest(run: FinishedRun, site: str, slide: str) -> Path | None:
    """Where the manifest says that the slide is; None without manifest, or of imported features."""
    from rayfed_hn.slides.embedding import holds_features
    from rayfed_hn.slides.manifest import read_manifest

    data = run.config.data
    if data.manifest is None:
        return None
    records = read_manifest(data.manifest, data.root)
    found = [record for record in records if record.slide_id == slide]
    if not found:
        raise ConfigError(f"data.manifest: {data.manifest} has no slide {slide!r}")
    if found[0].site != site:  # two hospitals may call two slides alike
        raise ConfigError(
            f"data.manifest: in {data.manifest} {slide} is a slide of {found[0].site}, and the bag "
            f"is one of {site}; give the manifest that it was made from, or --slide-file FILE"
        )
    return None if holds_features(found[0]) else found[0].path


def _draw(heats: Sequence[Heat], bag: Bag, path: Path | None, wanted: Wanted) -> SetAside | None:
    """Write everything; returns why the pixels could not be used, if so."""
    from rayfed_hn.reporting.heat_layer import blank_ground

    if path is not None:
        try:
            return _draw_on_slide(heats, bag, path, wanted)
        except SetAside as why:
            _write(heats, blank_ground(heats[0], OVERLAY_PX), wanted)
            return why
    _write(heats, blank_ground(heats[0], OVERLAY_PX), wanted)
    return None


def _draw_on_slide(heats: Sequence[Heat], bag: Bag, path: Path, wanted: Wanted) -> None:
    from rayfed_hn.reporting.heat_layer import Ground
    from rayfed_hn.reporting.heat_pictures import write_tiles
    from rayfed_hn.slides.overview import Overview

    first = heats[0]
    with closing(Overview(path, bag.mpp, first.corner)) as slide:
        picture_HW3 = slide.picture(OVERLAY_PX)
        ends = [_tiles(slide, first, order) for order in _ends(first)]
        ground = Ground(picture_HW3, slide.extent, slide.mpp, blank=False)
    write_tiles(wanted.file("tiles.png"), first, *ends)
    _write(heats, ground, wanted)


def _ends(heat: Heat) -> tuple[np.ndarray, np.ndarray]:
    """Tiles of the highest and of the lowest attention, no tile at both ends."""
    order_N = np.argsort(-heat.attention_N, kind="stable")
    count = min(SHOWN_TILES, (len(heat) + 1) // 2)
    return order_N[:count], order_N[::-1][: min(count, len(heat) - count)]


def _tiles(slide: Overview, heat: Heat, chosen: np.ndarray) -> list[tuple[int, np.ndarray]]:
    tiles_NHW3 = slide.tiles(heat.coords_N2[chosen], heat.tile_size0, SHOWN_PX)
    return list(zip(chosen.tolist(), tiles_NHW3, strict=True))


def _write(heats: Sequence[Heat], ground: Ground, wanted: Wanted) -> None:
    from rayfed_hn.reporting.heat_files import write_geojson, write_pyramid
    from rayfed_hn.reporting.heat_layer import overlay
    from rayfed_hn.reporting.heat_pictures import write_picture

    for heat, name in zip(heats, ("heatmap", "against"), strict=False):
        write_geojson(wanted.file(f"{name}.geojson"), heat)
        mpp = ground.picture_mpp
        write_pyramid(wanted.file(f"{name}.tiff"), overlay(heat, ground), mpp)
    write_picture(wanted.file("heatmap.png"), ground, heats)  # last: it says that all is there
