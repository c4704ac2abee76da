"""A manifest in the making: what fits into one, and a reason for everything that does not."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rayfed_hn.errors import DataError
from rayfed_hn.files import write_text
from rayfed_hn.slides.manifest import MAX_NAME, SlideRecord, is_name


@dataclass(frozen=True)
class LeftOut:
    """Something that is not in the manifest.

    Attributes:
        name: A file, or the key of a line in the table of labels.
        reason: Why, in words that name no patient.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Draft:
    """A manifest to be.

    Attributes:
        records: The slides, fit to be written, sorted by slide_id.
        left_out: All else.
    """

    records: tuple[SlideRecord, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def reasons(self) -> dict[str, int]:
        """How many things were left out for every reason, the most frequent first."""
        return dict(Counter(item.reason for item in self.left_out).most_common())


def finish(records: Sequence[SlideRecord], left_out: Sequence[LeftOut]) -> Draft:
    """Leave out what ``read_manifest`` would refuse, and with it the whole manifest.

    Of two slides of one name the first stays, of two spellings of a site the first; of a case at
    two sites no slide stays, for nobody knows which site is right.
    """
    sites_of: defaultdict[str, set[str]] = defaultdict(set)
    for record in records:
        sites_of[record.case_id].add(record.site)
    fit: dict[str, SlideRecord] = {}
    spelling: dict[str, str] = {}
    unfit = list(left_out)
    for record in records:
        reason = _unfit(record)
        if reason is None and record.slide_id.casefold() in fit:
            reason = "has the name of another slide"
        if reason is None and len(sites_of[record.case_id]) > 1:
            reason = "its case is at two sites"
        spelt = spelling.get(record.site.casefold(), record.site)
        if reason is None and spelt != record.site:
            reason = "its site is also spelt in another way"
        if reason is None:
            fit[record.slide_id.casefold()] = record
            spelling[record.site.casefold()] = record.site
        else:
            unfit.append(LeftOut(record.path.name, reason))
    return Draft(tuple(sorted(fit.values(), key=lambda r: r.slide_id)), tuple(unfit))


def _unfit(record: SlideRecord) -> str | None:
    for column in ("slide_id", "case_id", "site"):
        name = getattr(record, column)
        if not is_name(name):
            return f"its {column} is not 1 to {MAX_NAME} letters, digits, dots, _ and -"
    if not record.label:
        return "its label is empty or unknown"
    if not all(_survives_a_table(text) for text in (record.label, *record.path.parts)):
        return "its label or path cannot be written in a table"
    return None


def _survives_a_table(text: str) -> bool:
    return text.isprintable() and text == text.strip()


def write_manifest(path: Path, draft: Draft) -> None:
    """Write the manifest atomically; paths inside its own folder are written relative to it.

    A path elsewhere is written in full: reading it back takes ``data.root``.

    Raises:
        DataError: There is no slide to write.
    """
    if not draft.records:
        why = "; ".join(f"{number} x {reason}" for reason, number in draft.reasons.items())
        raise DataError(f"{path}: no slide for the manifest ({why or 'nothing was found'})")
    folder = Path(os.path.realpath(path.parent))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["slide_id", "path", "case_id", "site", "label"])
    for r in draft.records:
        # A link to a slide stays a link; only the folder that it lies in is resolved.
        place = Path(os.path.realpath(r.path.parent)) / r.path.name
        inside = place.relative_to(folder) if place.is_relative_to(folder) else place
        writer.writerow([r.slide_id, inside.as_posix(), r.case_id, r.site, r.label])
    write_text(path, table.getvalue())


def find_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files of these suffixes (in lower case) at any depth, by name and then folder.

    Links to files count, links to folders are not followed.

    Raises:
        DataError: The folder, or one inside it, cannot be read.
    """
    return sorted(_walk(folder, tuple(suffixes)), key=lambda path: (path.name, path))


def _walk(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: the folder cannot be read ({error.strerror})")

    for place, _, names in os.walk(folder, onerror=fail):
        for name in names:
            if name.lower().endswith(suffixes):
                yield Path(place, name)
