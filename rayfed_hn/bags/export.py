"""Writes a whole bag store in another program's layout."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rayfed_hn.bags.bag import Bag
from rayfed_hn.bags.entry import read_bag
from rayfed_hn.bags.interop_write import statement, write_clam, write_trident
from rayfed_hn.bags.store import SiteBags, list_sites, read_recipe
from rayfed_hn.errors import DataError
from rayfed_hn.files import write_text

Layout = Literal["trident", "clam"]


@dataclass(frozen=True)
class Exported:
    """What became of a store.

    Attributes:
        num_bags: Bags that were written.
        manifest: Table of them that ``rayfed-hn embed`` reads back.
        unusable: What is wrong with entries of the store that were left out.
    """

    num_bags: int
    manifest: Path
    unusable: tuple[str, ...]


def export(root: Path, target: Path, layout: Layout) -> Exported:
    """Write every bag of a store, and a ``manifest.csv`` that reads them back.

    ``trident``: ``<magnification>x_<size>px_<overlap>px_overlap/features_<encoder>/<slide_id>.h5``,
    without the first folder where the scale is not known. ``clam``: ``h5_files`` and ``pt_files``
    and ``dataset.csv`` with the columns case_id, slide_id, label and, as HistoFL has it, institute.

    Args:
        root: The bag store (``data.bags``).
        target: A new or empty folder.
        layout: Whose layout.

    Raises:
        DataError: ``root`` is no bag store, ``target`` is not empty, or two slides would share a
            file.
    """
    stated = statement(read_recipe(root))
    sites = [SiteBags(root, name) for name in list_sites(root)]
    _refuse_namesakes(sites)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} is not empty; export into a new folder")
    folder = Path("h5_files") if layout == "clam" else _trident_folder(stated)
    _make(target, folder)
    rows: list[list[str]] = []
    unusable = [why for site in sites for why in site.unusable]
    for bag in _bags(sites, unusable):
        if layout == "clam":
            write_clam(bag, target)
        else:
            write_trident(bag, target / folder / f"{bag.slide_id}.h5", stated)
        rows.append(_row(bag, folder))
    if layout == "clam":
        header = ["case_id", "slide_id", "label", "institute"]
        _write_csv(target / "dataset.csv", header, [[r[2], r[0], r[4], r[3]] for r in rows])
    manifest = target / "manifest.csv"
    header = ["slide_id", "path", "case_id", "site", "label", "mpp", "time", "event"]
    if not any(row[-1] for row in rows):
        header, rows = header[:-2], [row[:-2] for row in rows]
    _write_csv(manifest, header, rows)
    return Exported(len(rows), manifest, tuple(unusable))


def _bags(sites: Sequence[SiteBags], unusable: list[str]) -> Iterator[Bag]:
    """Yield one bag after the other and keep none; say of which nothing can be read."""
    for entry in (entry for site in sites for entry in site.entries):
        try:
            yield read_bag(entry.path)
        except DataError as error:
            unusable.append(str(error))


def _refuse_namesakes(sites: Sequence[SiteBags]) -> None:
    names = Counter(entry.slide_id.casefold() for site in sites for entry in site.entries)
    shared = sorted(name for name, count in names.items() if count > 1)
    if shared:
        raise DataError(
            f"{len(shared)} slide_id(s) occur more than once (first: {shared[0]!r}), and would "
            "share a file; give every slide its own slide_id in the manifest and embed again"
        )


def _trident_folder(stated: dict[str, Any]) -> Path:
    features = Path(f"features_{_file_name(stated.get('encoder', 'unknown'))}")
    scale = [stated.get(name) for name in ("target_magnification", "patch_size", "overlap")]
    if None in scale:
        return features
    return Path("{:g}x_{:g}px_{:g}px_overlap".format(*scale)) / features


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)


def _make(target: Path, folder: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for place in (target, *reversed([target / p for p in (folder, *folder.parents[:-1])])):
        place.mkdir(mode=0o700, exist_ok=True)


def _row(bag: Bag, folder: Path) -> list[str]:
    path = (folder / f"{bag.slide_id}.h5").as_posix()
    mpp = "" if bag.mpp is None else repr(bag.mpp)
    time, event = ("", "") if bag.time is None else (repr(bag.time), str(int(bool(bag.event))))
    return [bag.slide_id, path, bag.case_id, bag.site, bag.label, mpp, time, event]


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, table.getvalue())
