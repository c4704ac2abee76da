"""From one slide to one bag: open, find tissue, cut tiles, encode. No Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayfed_hn.bags.bag import Bag
from rayfed_hn.bags.interop import read_h5_features, read_h5_width
from rayfed_hn.config import EmbedConfig
from rayfed_hn.errors import DataError, SetAside
from rayfed_hn.slides.encoders import TileEncoder
from rayfed_hn.slides.manifest import SlideRecord
from rayfed_hn.slides.slide import Slide, open_slide
from rayfed_hn.slides.tiling import grid, tile_size0
from rayfed_hn.slides.tissue import tissue_fraction, tissue_mask

READER_THREADS = 2  # OpenSlide and Pillow let go of the GIL; two keep a core busy between reads
_FEATURE_SUFFIXES = (".h5", ".hdf5")


def holds_features(record: SlideRecord) -> bool:
    """Return whether the record is a file of features, to be imported rather than tiled."""
    return record.path.suffix.lower() in _FEATURE_SUFFIXES


def recipe(config: EmbedConfig, encoder: TileEncoder) -> dict[str, Any]:
    """Return everything that decides the features of a slide, as JSON values."""
    return {
        "kind": "tiles",
        "encoder": encoder.name,
        "encoder_digest": encoder.digest,
        "feature_dim": encoder.feature_dim,
        "tile_px": config.tile_px,
        "stride_px": config.stride_px or config.tile_px,
        "mpp": config.mpp,
        "min_tissue": config.min_tissue,
        "tissue": asdict(config.tissue),
        "reader": "openslide, area resampling",
    }


def imported_recipe(records: Sequence[SlideRecord]) -> dict[str, Any]:
    """Return the recipe of imported features; the first readable file decides their width.

    Raises:
        DataError: Slides stand among the features, or no file can be read.
    """
    slides = [record for record in records if not holds_features(record)]
    if slides:
        raise DataError(
            f"the manifest mixes slides ({slides[0].slide_id}, ...) and .h5 features: bags of two "
            "kinds cannot be trained on together; make two manifests and two data.bags"
        )
    for record in records:
        try:
            width = read_h5_width(record.path)
        except SetAside:
            continue
        return {"kind": "imported features", "feature_dim": int(width)}
    raise DataError("none of the manifest's feature files can be read; check their paths")


def embed_slide(record: SlideRecord, encoder: TileEncoder | None, config: EmbedConfig) -> Bag:
    """Make the bag of one slide or feature file.

    Args:
        record: A line of the manifest.
        encoder: Turns tiles into features; may be None for a feature file.
        config: Scale, tile and tissue settings.

    Returns:
        The bag, its instances row by row over the slide.

    Raises:
        SetAside: The slide cannot be used; says why and what to do.
    """
    if holds_features(record):
        return read_h5_features(
            record.path,
            slide_id=record.slide_id,
            case_id=record.case_id,
            site=record.site,
            label=record.label,
            mpp=record.mpp,
        )
    if encoder is None:
        raise ValueError("a slide needs an encoder")
    with open_slide(record.path, record.mpp) as slide:
        coords, tissue = find_tiles(slide, config)
        features = _encode(slide, coords, encoder, config)
        size0 = tile_size0(slide.mpp, config.tile_px, config.mpp)
        names = record.slide_id, record.case_id, record.site, record.label
        return Bag(*names, features, coords, tissue, size0, slide.mpp)


def find_tiles(slide: Slide, config: EmbedConfig) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the tiles to encode: corners (N, 2) in level-0 pixels and tissue shares (N,).

    Raises:
        SetAside: The slide is smaller than a tile, has no tissue, or too little of it in any tile.
    """
    stride_px = config.stride_px or config.tile_px
    coords = grid(slide.extent_px, slide.mpp, config.tile_px, stride_px, config.mpp)
    side_um = config.tile_px * config.mpp
    if len(coords) == 0:
        extent_um = " x ".join(f"{n * slide.mpp:.0f}" for n in slide.extent_px)
        raise SetAside(
            f"is smaller than one tile ({extent_um} um, a tile is {side_um:g} um)",
            "check its scale, or lower embed.tile_px or embed.mpp",
        )
    # A picture coarser than a few pixels per tile could not tell one tile from the next.
    mpp = min(config.tissue.mpp, side_um / 4)
    mask = tissue_mask(slide.thumbnail(mpp), mpp, config.tissue)
    if not mask.any():
        raise SetAside("no tissue found", "look at the slide; lower embed.tissue.min_saturation")
    tissue = tissue_fraction(mask, slide.extent_px, coords, tile_size0(slide.mpp, 1, side_um))
    keep = tissue >= config.min_tissue
    if not keep.any():
        raise SetAside(
            f"has tissue, but no tile with {config.min_tissue:.0%} of it "
            f"(the fullest has {tissue.max():.0%})",
            "lower embed.min_tissue, embed.tile_px or embed.stride_px",
        )
    return coords[keep], tissue[keep]


def _encode(
    slide: Slide, coords_N2: NDArray[np.int64], encoder: TileEncoder, config: EmbedConfig
) -> NDArray[np.float32]:
    features_ND = np.empty((len(coords_N2), encoder.feature_dim), np.float32)
    done = 0
    for tiles_NHW3 in read_tiles(slide, coords_N2, config):
        features_ND[done : done + len(tiles_NHW3)] = encoder.encode(tiles_NHW3)
        done += len(tiles_NHW3)
    if not np.isfinite(features_ND).all():
        raise SetAside(
            "has tiles whose features are not finite numbers", "look at the slide; report this"
        )
    return features_ND


def read_tiles(
    slide: Slide, coords_N2: NDArray[np.int64], config: EmbedConfig
) -> Iterator[NDArray[np.uint8]]:
    """Yield uint8 tiles (up to ``batch_tiles``, H, W, 3) in the order of ``coords_N2``.

    The next batch is read while the caller works on this one; never more than these two are held.
    """
    size = (config.tile_px, config.tile_px)

    def read(corner: NDArray[np.int64]) -> NDArray[np.uint8]:
        return slide.read(int(corner[0]), int(corner[1]), size, config.mpp)

    starts = range(0, len(coords_N2), config.batch_tiles)
    batches = [coords_N2[start : start + config.batch_tiles] for start in starts]
    with ThreadPoolExecutor(READER_THREADS) as pool:
        ahead = [pool.submit(read, corner) for corner in batches[0]]
        try:
            for following in [*batches[1:], coords_N2[:0]]:
                tiles_NHW3 = np.stack([tile.result() for tile in ahead])
                ahead = [pool.submit(read, corner) for corner in following]
                yield tiles_NHW3
        finally:  # after an error, or when the caller stops early
            pool.shutdown(cancel_futures=True)
