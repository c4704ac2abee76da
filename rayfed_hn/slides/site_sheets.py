"""One page per site of what was cut from its slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rayfed_hn.bags import store
from rayfed_hn.bags.bag import ARTEFACTS
from rayfed_hn.bags.entry import read_bag
from rayfed_hn.slides.contact_sheet import SlideCard, write_contact_sheet
from rayfed_hn.slides.manifest import SlideRecord
from rayfed_hn.slides.outcome import EmbedReport, SlideOutcome
from rayfed_hn.slides.worklist import picture_path


def write_site_sheets(
    root: Path, records: Sequence[SlideRecord], report: EmbedReport
) -> list[Path]:
    """Write the page of every site of a manifest beside its bags; returns their paths."""
    recipe = store.read_recipe(root)
    step = min(1.0, recipe["stride_px"] / recipe["tile_px"])  # tiles that overlap count once
    by_site: dict[str, list[SlideCard]] = {}
    for record, outcome in zip(records, report.outcomes, strict=True):
        by_site.setdefault(record.site, []).append(_card(root, record, outcome, step))
    return [
        write_contact_sheet(root / f"site={site}", site, cards)
        for site, cards in sorted(by_site.items())
    ]


def _card(root: Path, record: SlideRecord, outcome: SlideOutcome, step: float) -> SlideCard:
    picture = picture_path(root, record)
    shares: dict[str, float] = {}
    area = 0.0
    entry = store.find_entry(root, record.site, record.slide_id)
    if entry is not None and entry.mpp is not None:
        bag = read_bag(entry.path)
        means = bag.artefacts_N4.mean(axis=0)
        shares = {name: float(mean) for name, mean in zip(ARTEFACTS, means, strict=True)}
        area = float(bag.tissue_N.sum()) * (step * bag.tile_size0 * entry.mpp / 1000) ** 2
    return SlideCard(
        slide_id=record.slide_id,
        picture=picture if picture.exists() else None,
        num_tiles=outcome.num_tiles,
        tissue_mm2=area,
        artefacts=shares,
        reason=outcome.reason,
        remedy=outcome.remedy,
        notes=outcome.notes,
    )
