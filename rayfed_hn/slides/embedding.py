"""From one slide, or one file of features, to one bag. No Ray."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any, Protocol

import numpy as np

from rayfed_hn.bags.bag import ARTEFACTS, Bag
from rayfed_hn.bags.interop import is_feature_file, read_features, read_width, stated_recipe
from rayfed_hn.config import EmbedConfig
from rayfed_hn.errors import DataError, SetAside
from rayfed_hn.files import fingerprint
from rayfed_hn.slides import artefacts, tissue
from rayfed_hn.slides.encoders import TileEncoder
from rayfed_hn.slides.manifest import SlideRecord
from rayfed_hn.slides.reading import Batch, Found, open_reading, refuse_no_file
from rayfed_hn.slides.user_mask import VERSION as MASK_VERSION
from rayfed_hn.slides.user_mask import user_mask_digest

# How pixels are read decides the features too; raised when that changes.
READERS = {
    "auto": "2: jpeg-tiff with DCT scaling, else openslide or image; area resampling",
    "openslide": "2: openslide or image; area resampling",
}

NOBODY_ELSE = nullcontext()


def holds_features(record: SlideRecord) -> bool:
    """Return whether the record is a file of features, to be imported rather than tiled."""
    return is_feature_file(record.path)


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
        "artefacts": asdict(config.artefacts),
        "reader": READERS[config.reader],
        "versions": {
            "tissue": tissue.VERSION,
            "artefacts": artefacts.VERSION,
            "mask": MASK_VERSION,
        },
    }


def imported_recipe(
    records: Sequence[SlideRecord], describe: Callable[[SlideRecord], dict[str, Any]]
) -> dict[str, Any]:
    """Return the recipe of imported features, as the first readable file states it.

    Args:
        records: The manifest.
        describe: ``describe_features``, here or in a process that may be lost.

    Raises:
        DataError: Slides stand among the features, or no file can be read.
    """
    slides = [record for record in records if not holds_features(record)]
    if slides:
        raise DataError(
            f"the manifest mixes slides ({slides[0].slide_id}, ...) and files of features: bags of "
            "two kinds cannot be trained on together; make two manifests and two data.bags"
        )
    for record in records:
        try:
            return {"kind": "imported features", **describe(record)}
        except SetAside:
            continue
    raise DataError("none of the manifest's feature files can be read; check their paths")


def describe_features(record: SlideRecord) -> dict[str, Any]:
    """Return the width of a feature file and what it states of its making.

    HDF5 can hang or crash on the texts of a damaged file, so this belongs into a process that may
    be lost.

    Raises:
        SetAside: The file cannot be used.
    """
    refuse_no_file(record)
    return {"feature_dim": read_width(record.path), **stated_recipe(record.path)}


def import_features(record: SlideRecord, recipe: dict[str, Any], source: str) -> Bag:
    """Make the bag of a feature file.

    Args:
        record: The file's line of the manifest.
        recipe: The store's, which the file must not contradict.
        source: ``source_of`` the record.

    Raises:
        SetAside: The file cannot be used, or was made otherwise than the store's other bags.
    """
    stated = describe_features(record)
    for name in sorted(stated.keys() & recipe.keys()):
        if stated[name] != recipe[name]:
            raise SetAside(
                f"was made otherwise than the rest of the store ({name} is {stated[name]!r}, "
                f"theirs {recipe[name]!r})",
                "import it into a store of its own (data.bags)",
            )
    bag = read_features(
        record.path,
        slide_id=record.slide_id,
        case_id=record.case_id,
        site=record.site,
        label=record.label,
        mpp=record.mpp,
    )
    refuse_changed(record, source)
    return replace(bag, source_sha256=source, time=record.time, event=record.event)


def source_of(record: SlideRecord) -> str:
    """Fingerprint (hex) of all that a bag is made from: file, mask and stated scale.

    "" if any of it cannot be read just now. Of slides in several files only the named one counts.
    """
    parts = [fingerprint(record.path)]
    if record.mask is not None:
        try:
            parts.append(user_mask_digest(record.mask))
        except SetAside:
            parts.append("")
    if not all(parts):
        return ""
    return hashlib.sha256(f"{parts} {record.mpp}".encode()).hexdigest()


def refuse_changed(record: SlideRecord, source: str) -> None:
    """Refuse a slide whose file is not what it was when its turn was planned.

    Raises:
        SetAside: It has changed; it is taken again in the next run.
    """
    if source_of(record) != source:
        raise SetAside("changed while it was read", "embed again when nobody writes it any more")


class AnyReading(Protocol):
    """An open slide, in this process or in another."""

    @property
    def found(self) -> Found: ...
    def __iter__(self) -> Iterator[Batch]: ...


def embed_slide(record: SlideRecord, encoder: TileEncoder, config: EmbedConfig) -> Bag:
    """Make the bag of one slide in this very process.

    Args:
        record: A line of the manifest.
        encoder: Turns tiles into features.
        config: Scale, tile and tissue settings.

    Returns:
        The bag, its instances row by row over the slide.

    Raises:
        SetAside: The slide cannot be used; says why and what to do.
    """
    source = source_of(record)
    with open_reading(record, config) as reading:
        return encode_reading(record, source, reading, encoder)


def encode_reading(
    record: SlideRecord,
    source: str,
    reading: AnyReading,
    encoder: TileEncoder,
    turn: AbstractContextManager[object] = NOBODY_ELSE,
) -> Bag:
    """Encode the tiles of an open slide.

    Args:
        record: The slide's line of the manifest.
        source: ``source_of`` the record, from before it was opened.
        reading: The open slide.
        encoder: Turns tiles into features.
        turn: Held while a batch is encoded, by those who share the encoder.

    Raises:
        SetAside: The slide is damaged, or its features are not finite.
    """
    found, done = reading.found, 0
    features_ND = np.empty((len(found.coords_N2), encoder.feature_dim), np.float32)
    artefacts_N4 = np.empty((len(found.coords_N2), len(ARTEFACTS)), np.float32)
    for batch in reading:
        rows = slice(done, done + len(batch.tiles_NHW3))
        with turn:
            features_ND[rows] = encoder.encode(batch.tiles_NHW3)
        artefacts_N4[rows] = batch.artefacts_N4
        done = rows.stop
    if done != len(features_ND) or not np.isfinite(features_ND).all():
        raise SetAside(
            "has tiles whose features are not finite numbers", "look at the slide; report this"
        )
    return Bag(
        *(record.slide_id, record.case_id, record.site, record.label),
        *(features_ND, found.coords_N2, found.tissue_N, found.tile_size0, found.mpp),
        artefacts_N4=artefacts_N4,
        source_sha256=source,
        reader=found.reader,
        time=record.time,
        event=record.event,
    )
