"""The tables that CLAM and HistoFL keep: which slide has which label, and who trains on what.

A dataset table has the columns ``case_id``, ``slide_id`` and ``label`` (CLAM) or, in HistoFL,
``diagnosis_label`` and ``institute``. A folder of splits has one table per fold, ``splits_0.csv``,
``splits_1.csv``, ...: an index and the columns ``train``, ``val`` and ``test``, each a list of
slides of its own length. ``splits_0_bool.csv`` says the same with one line per slide.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rayfed_hn.errors import DataError

LABELS = ("label", "diagnosis_label")
SITES = ("site", "institute")
_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Table:
    """A CSV file.

    Attributes:
        path: The file.
        header: Its columns.
        rows: Its lines, every value without surrounding blanks; empty lines are left out.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[dict[str, str], ...]

    def column(self, names: Sequence[str], meaning: str) -> str:
        """Return the first of ``names`` that is a column.

        Raises:
            DataError: None is.
        """
        for name in names:
            if name in self.header:
                return name
        raise DataError(
            f"{self.path}: no column {' or '.join(names)} ({meaning}); "
            f"it has {', '.join(repr(n) for n in self.header)}"
        )


def read_table(path: Path) -> Table:
    """Read a CSV file (UTF-8, with a header).

    Raises:
        DataError: It cannot be read, or is no such table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = list(csv.reader(text.splitlines(keepends=True), strict=True))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its name") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: no CSV table in UTF-8 ({error}); save it as one") from error
    header = [name.strip() for name in lines[0]] if lines else []
    if not header or len(set(header)) != len(header):
        raise DataError(f"{path}: the first line must name every column once, not {header}")
    stripped = ([value.strip() for value in line] for line in lines[1:])
    rows = [row for row in stripped if any(row)]
    ragged = [i for i, row in enumerate(rows, 1) if len(row) != len(header)]
    if ragged:
        raise DataError(
            f"{path}: row {ragged[0]} below the header has {len(rows[ragged[0] - 1])} values for "
            f"{len(header)} columns; put values that contain a comma in double quotes"
        )
    return Table(path, tuple(header), tuple(dict(zip(header, r, strict=True)) for r in rows))


@dataclass(frozen=True)
class ClamRecord:
    """One line of a dataset table."""

    slide_id: str
    case_id: str
    site: str
    label: str


def read_clam_table(
    path: Path, site_column: str | None = None, label_column: str | None = None
) -> list[ClamRecord]:
    """Read a dataset table of CLAM or HistoFL; values may be empty or repeat.

    Args:
        path: The CSV.
        site_column: Which column is the hospital (default: ``site`` or ``institute``).
        label_column: Which column is the class (default: ``label`` or ``diagnosis_label``).

    Raises:
        DataError: It is no table, or a column is missing.
    """
    table = read_table(path)
    columns = [
        table.column(["slide_id"], "name of the slide"),
        table.column(["case_id"], "the patient or specimen"),
        table.column([site_column] if site_column else SITES, "the hospital"),
        table.column([label_column] if label_column else LABELS, "the class"),
    ]
    return [ClamRecord(*(row[column] for column in columns)) for row in table.rows]


@dataclass(frozen=True)
class ClamSplit:
    """One fold: the slides of all sites by name; no slide is in two parts.

    Attributes:
        source: The table it was read from.
        train, validation, test: slide_ids.
    """

    source: Path
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of who is in which part, whatever the order and the file's name."""
        parts = [sorted(part) for part in (self.train, self.validation, self.test)]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def read_clam_splits(folder: Path) -> list[ClamSplit]:
    """Read all folds of a folder.

    Args:
        folder: Holds ``splits_0.csv``, ``splits_1.csv``, ... without a gap, or, where none of
            these is there, ``splits_0_bool.csv``, ...

    Returns:
        Fold i is the table of number i.

    Raises:
        DataError: There is none, one is missing or no such table, or a slide is in a part twice
            or in two parts.
    """
    for suffix in ("", "_bool"):
        numbers = [_number(path, suffix) for path in folder.glob(f"splits_*{suffix}.csv")]
        present = sorted(number for number in numbers if number is not None)
        if present:
            absent = sorted(set(range(present[-1] + 1)) - set(present))
            if absent:
                raise DataError(
                    f"{folder}: splits_{absent[0]}{suffix}.csv is missing, and "
                    f"splits_{present[-1]}{suffix}.csv is there; folds count from 0 without a gap"
                )
            return [_read_split(folder / f"splits_{i}{suffix}.csv") for i in present]
    raise DataError(
        f"{folder}: no splits_0.csv there; data.splits is a folder of tables as CLAM's "
        "create_splits_seq.py writes them"
    )


def _number(path: Path, suffix: str) -> int | None:
    text = path.name.removeprefix("splits_").removesuffix(f"{suffix}.csv")
    return int(text) if text.isdecimal() and str(int(text)) == text else None


def _read_split(path: Path) -> ClamSplit:
    table = read_table(path)
    for name in _PARTS:
        table.column([name], "a list of slides")
    read = _by_slide if path.stem.endswith("_bool") else _by_part
    parts = read(table)
    count = Counter(slide for part in parts for slide in part)
    twice = sorted(slide for slide, times in count.items() if times > 1)
    if twice:
        raise DataError(
            f"{path}: {len(twice)} slide(s) stand twice or in two parts (first: {twice[0]!r}); "
            "a slide that trains must not be tested on: keep one"
        )
    return ClamSplit(path, *parts)


def _by_part(table: Table) -> list[tuple[str, ...]]:
    return [tuple(row[name] for row in table.rows if row[name]) for name in _PARTS]


def _by_slide(table: Table) -> list[tuple[str, ...]]:
    index = table.header[0]
    if index in _PARTS:
        raise DataError(f"{table.path}: the first column must be the slide's name, not {index!r}")
    for row in table.rows:
        if any(row[name].lower() not in ("true", "false") for name in _PARTS):
            raise DataError(f"{table.path}: slide {row[index]!r} has a value not True or False")
    return [tuple(r[index] for r in table.rows if r[name].lower() == "true") for name in _PARTS]
