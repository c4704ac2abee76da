"""The table of slides: which file, whose case, at which site, with which label.

A manifest is right as a whole or refused as a whole, before any slide is opened. A file that is
missing is no fault of the manifest: that slide is set aside when its turn comes.
"""

from __future__ import annotations

import csv
import difflib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rayfed_hn.errors import DataError

REQUIRED = ("slide_id", "path", "case_id", "site", "label")
SURVIVAL = ("time", "event")
# pandas writes 1.0 where some cases have neither.
EVENTS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
MAX_MPP = 100.0
MAX_NAME = 120  # slide_id and site become file names, to which suffixes are added


@dataclass(frozen=True)
class SlideRecord:
    """One line of the manifest.

    Attributes:
        slide_id: Unique name of the slide, fit to be a file name.
        path: Resolved path of the slide or feature file; it may not exist.
        case_id: The patient or specimen; slides of one case are never divided between sets.
        site: The hospital that owns the slide, fit to be a file name.
        label: The class, as text; may be empty where there is a time.
        mpp: Micrometres per pixel of level 0, where the user states it.
        mask: Resolved path of the user's tissue mask (GeoJSON or picture), where there is one.
        time: Follow-up of the case until its event or the end of observation, in any one unit.
        event: Whether it ended with the event; False means censored.
    """

    slide_id: str
    path: Path
    case_id: str
    site: str
    label: str
    mpp: float | None = None
    mask: Path | None = None
    time: float | None = None
    event: bool | None = None


def is_name(text: str) -> bool:
    """Return whether a text may be a slide_id, a case_id or a site: it becomes a file's name."""
    fits = re.fullmatch(r"[A-Za-z0-9._-]+", text) is not None and len(text) <= MAX_NAME
    return fits and text not in (".", "..")


@dataclass(frozen=True)
class _Line:
    """One row with its place in the file, so that every complaint can name it."""

    file: Path
    number: int
    values: dict[str, str]

    def refuse(self, column: str, problem: str, remedy: str) -> NoReturn:
        value = self.values.get(column, "")
        raise DataError(
            f"{self.file}, line {self.number}, column {column}, value {value!r}: "
            f"{problem}; {remedy}"
        )


def read_manifest(path: str | Path, root: str | Path | None = None) -> list[SlideRecord]:
    """Read and check a manifest (CSV, UTF-8, with a header).

    Args:
        path: The CSV. Columns ``slide_id, path, case_id, site, label`` are required, ``mpp`` and
            ``mask`` are optional, others are ignored. Relative paths are relative to this file.
            For survival ``time`` and ``event`` (1 or 0) take the place of ``label``, or stand
            beside it.
        root: Folder that every slide must lie in once symbolic links are followed
            (default: the manifest's own folder).

    Returns:
        The slides in the manifest's order.

    Raises:
        DataError: Names file, line, column, value and remedy.
    """
    path = Path(path)
    allowed = Path(root).resolve() if root is not None else path.resolve().parent
    lines = _read_lines(path)
    records = [_record(line, allowed) for line in lines]
    _check_unique(lines, records)
    _check_sites(lines, records)
    _check_follow_up(lines, records)
    return records


def _read_lines(path: Path) -> list[_Line]:
    reader = csv.reader(_text(path).splitlines(keepends=True), strict=True)
    lines: list[_Line] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        for row in reader:
            if not any(value.strip() for value in row):
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(row)} values for {len(header)} columns; "
                    "put values that contain a comma in double quotes"
                )
            values = {n: v.strip() for n, v in zip(header, row, strict=True)}
            lines.append(_Line(path, reader.line_num, values))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a CSV table ({error})") from error
    if not lines:
        raise DataError(f"{path}: no slides; add one line for every slide below the header")
    return lines


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: the manifest cannot be read ({error.strerror}); check data.manifest"
        ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text; save the table as UTF-8") from error


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise DataError(f"{path}: the file is empty; its first line must be {','.join(REQUIRED)}")
    survival = all(name in header for name in SURVIVAL)
    for name in REQUIRED:
        if name not in header and not (survival and name == "label"):
            lowered = {h.lower(): h for h in header}
            spare = [low for low, h in lowered.items() if h not in REQUIRED]  # never rob another
            near = difflib.get_close_matches(name, spare, n=1)
            hint = (
                f"rename {lowered[near[0]]!r} to it"
                if near
                else f"add it; found {', '.join(header)}"
            )
            raise DataError(f"{path}, line 1: column {name!r} is missing; {hint}")
    for name in (*REQUIRED, *SURVIVAL, "mpp", "mask"):
        if header.count(name) > 1:
            raise DataError(f"{path}, line 1: column {name!r} appears twice; keep one")


def _record(line: _Line, allowed: Path) -> SlideRecord:
    values = line.values
    for column in ("slide_id", "case_id", "site"):
        name = values[column]
        if not is_name(name):
            line.refuse(
                column,
                "is not a usable name",
                f"use 1 to {MAX_NAME} letters, digits, dots, underscores and hyphens",
            )
    time, event = _follow_up(line)
    if not values.get("label") and time is None:
        line.refuse("label", "is empty", "give the class of the slide, or remove the line")
    return SlideRecord(
        slide_id=values["slide_id"],
        path=_inside(line, "path", allowed),
        case_id=values["case_id"],
        site=values["site"],
        label=values.get("label", ""),
        mpp=_mpp(line),
        mask=_inside(line, "mask", allowed) if line.values.get("mask") else None,
        time=time,
        event=event,
    )


def _follow_up(line: _Line) -> tuple[float | None, bool | None]:
    if any(name not in line.values for name in SURVIVAL):
        return None, None  # one of them alone is some other column
    time, event = (line.values[name] for name in SURVIVAL)
    if not time and not event:
        return None, None
    try:
        value = float(time)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        line.refuse("time", "is no length of time", "give one above 0, or empty time and event")
    if event.lower() not in EVENTS:
        line.refuse("event", "is not 1 or 0", "give 1 for an event, 0 for a censored case")
    return value, EVENTS[event.lower()]


def _inside(line: _Line, column: str, allowed: Path) -> Path:
    value = line.values[column]
    if not value:
        line.refuse(column, "is empty", "give the slide's file")
    try:
        resolved = (line.file.resolve().parent / value).resolve()
    except (OSError, ValueError, RuntimeError):  # a NUL byte, a name too long, a loop of links
        line.refuse(column, "is not a usable path", "give the path of a file")
    if not resolved.is_relative_to(allowed):
        line.refuse(
            column,
            f"lies outside {allowed}",
            "move the slide there, or set data.root to a folder that holds every slide",
        )
    return resolved


def _mpp(line: _Line) -> float | None:
    text = line.values.get("mpp", "")
    if not text:
        return None
    try:
        mpp = float(text)
    except ValueError:
        mpp = math.nan
    if not 0 < mpp <= MAX_MPP:
        line.refuse(
            "mpp",
            "is not a scale",
            f"give micrometres per pixel, above 0 and at most {MAX_MPP:g}, or leave it empty",
        )
    return mpp


def _check_unique(lines: list[_Line], records: list[SlideRecord]) -> None:
    first: dict[str, int] = {}
    for line, record in zip(lines, records, strict=True):
        # Folded, because some file systems would keep two such slides in one file.
        earlier = first.setdefault(record.slide_id.casefold(), line.number)
        if earlier != line.number:
            line.refuse(
                "slide_id",
                f"already stands in line {earlier} (capitals do not tell slides apart)",
                "give every slide its own slide_id",
            )


def _check_sites(lines: list[_Line], records: list[SlideRecord]) -> None:
    spelling: dict[str, str] = {}
    home: dict[str, SlideRecord] = {}
    for line, record in zip(lines, records, strict=True):
        spelt = spelling.setdefault(record.site.casefold(), record.site)
        if spelt != record.site:
            line.refuse("site", f"is also spelt {spelt!r}", "spell every site in one way")
        other = home.setdefault(record.case_id, record)
        if other.site != record.site:
            line.refuse(
                "case_id",
                f"is at site {record.site!r} here and at {other.site!r} before",
                "a case at two sites leaks from training into test: name cases apart, "
                "or give the case to one site",
            )


def _check_follow_up(lines: list[_Line], records: list[SlideRecord]) -> None:
    first: dict[str, SlideRecord] = {}
    for line, record in zip(lines, records, strict=True):
        other = first.setdefault(record.case_id, record)
        if (other.time, other.event) != (record.time, record.event):
            line.refuse(
                "time",
                f"case {record.case_id} has {_stated(other)} in another line",
                "give every slide of a case the same time and event",
            )


def _stated(record: SlideRecord) -> str:
    if record.time is None:
        return "no time"
    return f"time {record.time:g} and event {int(bool(record.event))}"
