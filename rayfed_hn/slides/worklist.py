"""What is left to do for a manifest: compares it with what the bag store has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rayfed_hn.bags import set_aside, store
from rayfed_hn.bags.entry import BagEntry, read_bag
from rayfed_hn.bags.set_aside import SetAsideEntry
from rayfed_hn.errors import DataError
from rayfed_hn.slides.embedding import source_of
from rayfed_hn.slides.manifest import SlideRecord
from rayfed_hn.slides.outcome import SlideOutcome

AGAIN = "again"  # no source is called that
RELABELLED = "case, label or follow-up brought up to date"


@dataclass(frozen=True)
class Job:
    """One slide to do: embed or import it, or only draw it.

    Attributes:
        record: Its line of the manifest.
        source: ``source_of`` the record when the work was planned.
        draw_only: It has its bag already.
    """

    record: SlideRecord
    source: str
    draw_only: bool = False

    def row(self) -> dict[str, Any]:
        """The job as a row of plain values: all that travels of a slide."""
        record = self.record
        plain = {"path": str(record.path), "mask": str(record.mask or "")}
        numbers = {
            name: np.nan if value is None else float(value)
            for name, value in asdict(record).items()
            if name in ("mpp", "time", "event")
        }
        about = {"source": self.source, "draw_only": self.draw_only}
        return asdict(record) | plain | numbers | about

    @classmethod
    def of(cls, row: dict[str, Any]) -> Job:
        """The job of a row."""
        names = ("slide_id", "case_id", "site", "label")
        numbers = {
            name: None if np.isnan(row[name]) else float(row[name])
            for name in ("mpp", "time", "event")
        }
        record = SlideRecord(
            **{name: str(row[name]) for name in names},
            path=Path(str(row["path"])),
            mpp=numbers["mpp"],
            mask=Path(str(row["mask"])) if row["mask"] else None,
            time=numbers["time"],
            event=None if numbers["event"] is None else bool(numbers["event"]),
        )
        return cls(record, str(row["source"]), bool(row["draw_only"]))


def find_work(
    root: Path, records: Sequence[SlideRecord], *, retry: bool, pictures: bool
) -> tuple[list[Job], list[SlideOutcome]]:
    """Divide a manifest into what is to do and what is known.

    A slide is done again when its file, mask or stated scale has changed. Case and label of bags
    that stay are brought up to date.

    Args:
        root: The bag store.
        records: The manifest.
        retry: Take slides again that were set aside.
        pictures: Draw slides that have no picture yet.

    Raises:
        DataError: A slide is in the store under another site.
    """
    _refuse_moved(root, records)
    jobs: list[Job] = []
    known: list[SlideOutcome] = []
    for record in records:
        source = source_of(record)
        entry = store.find_entry(root, record.site, record.slide_id)
        failed = set_aside.find(root, record.site, record.slide_id)
        # What cannot be read just now, say an archive that is not mounted, has not changed.
        if entry is not None and source in ("", entry.source_sha256):
            relabelled = _relabel(root, entry, record)
            if pictures and source and not picture_path(root, record).exists():
                jobs.append(Job(record, source, draw_only=True))
            else:
                notes = () if source else ("its file cannot be read now; the bag is kept",)
                notes += (RELABELLED,) if relabelled else ()
                names = record.slide_id, record.site
                known.append(SlideOutcome(*names, "skipped", entry.num_tiles, notes=notes))
        elif entry is None and failed and failed.source_sha256 == source and not retry:
            known.append(_set_aside(failed))
        else:
            jobs.append(Job(record, source))
    return jobs, known


def not_in_manifest(root: Path, records: Sequence[SlideRecord]) -> list[str]:
    """Return the slide_ids of bags that the manifest does not name; training would use them."""
    named = {(record.site, record.slide_id) for record in records}
    return sorted(
        path.stem
        for path in root.glob("site=*/*.arrow")
        if (path.parent.name.removeprefix("site="), path.stem) not in named
    )


def picture_path(root: Path, record: SlideRecord) -> Path:
    """Where the picture of a slide lies: beside its bag, with its owner."""
    return root / f"site={record.site}" / "pictures" / f"{record.slide_id}.jpg"


def files_of(record: SlideRecord) -> tuple[str, ...]:
    """Whatever a slide can leave in a store, by the paths below its folder."""
    folder, name = f"site={record.site}", record.slide_id
    return (
        f"{folder}/{name}.arrow",
        set_aside.name_of(record.site, name),
        f"{folder}/pictures/{name}.jpg",
    )


def make_folder(root: Path, record: SlideRecord, name: str = "") -> None:
    """Make the folder of a site, or one within it, for nobody else to read."""
    (root / f"site={record.site}").mkdir(mode=0o700, exist_ok=True)
    if name:
        (root / f"site={record.site}" / name).mkdir(mode=0o700, exist_ok=True)


def put_aside(
    root: Path, job: Job, reason: str, remedy: str, *, lasting: bool = True
) -> SlideOutcome:
    """Remember in the store that a slide was set aside.

    A bag is deleted only if it was made from another file than the one that is there now.

    Args:
        root: The bag store.
        job: The slide.
        reason: Why.
        remedy: What the user can do.
        lasting: Whether the slide is to blame, and not this machine: then it is tried again only
            when its source changes or with --retry.
    """
    record = job.record
    entry = store.find_entry(root, record.site, record.slide_id)
    if entry is not None and job.source not in ("", entry.source_sha256):
        entry.path.unlink(missing_ok=True)
    note = SetAsideEntry(
        record.slide_id, record.site, reason, remedy, job.source if lasting else AGAIN
    )
    set_aside.remember(root, note)
    return _set_aside(note)


def _set_aside(entry: SetAsideEntry) -> SlideOutcome:
    names = entry.slide_id, entry.site
    return SlideOutcome(*names, "set_aside", reason=entry.reason, remedy=entry.remedy)


def _relabel(root: Path, entry: BagEntry, record: SlideRecord) -> bool:
    """Bring a bag up to date; returns whether it was not."""
    stated = {name: getattr(record, name) for name in ("case_id", "label", "time", "event")}
    if stated != {name: getattr(entry, name) for name in stated}:
        store.write(root, replace(read_bag(entry.path), **stated))
        return True
    return False


def _refuse_moved(root: Path, records: Sequence[SlideRecord]) -> None:
    """A slide that changed its site must not be trained on at both."""
    home = {record.slide_id: record.site for record in records}
    for path in root.glob("site=*/*.arrow"):
        site = path.parent.name.removeprefix("site=")
        if home.get(path.stem, site) != site:
            raise DataError(
                f"slide {path.stem!r} is of site {home[path.stem]!r} in the manifest, but the "
                f"store has it under site {site!r}; delete {path}, or give data.bags another folder"
            )
