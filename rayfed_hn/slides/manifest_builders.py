"""Manifests from what the names of files say: TCGA, Camelyon17, and tables of CLAM and HistoFL.

Every builder returns the slides it can place and, for everything else it met, a reason: nothing is
left out in silence.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from rayfed_hn.bags.clam_tables import ClamRecord, Table, read_clam_table, read_table
from rayfed_hn.slides.manifest import SlideRecord
from rayfed_hn.slides.manifest_draft import (
    Draft,
    LeftOut,
    find_files,
    finish,
    write_manifest,
)

__all__ = ["Draft", "LeftOut", "camelyon17", "clam", "tcga", "write_manifest"]

# Kinds of files, the best first. Features in HDF5 say where their tiles lie; slides and features
# never share a manifest.
FEATURES = (".h5", ".hdf5"), (".pt",)
SLIDES = (
    *(".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".tif", ".tiff"),
    *(".dcm", ".png", ".jpg", ".jpeg"),
)

# Project, tissue source site, participant, sample type and vial, portion, slide: the GDC's "TCGA
# Barcode". Names of files add the slide's UUID after a dot.
_TCGA = re.compile(
    r"(?P<case>TCGA-(?P<site>[A-Z0-9]{2})-[A-Z0-9]{4})-(?P<sample>\d{2})[A-Z]?-\d{2}[A-Z]?"
    r"-(?P<slide>DX|TS|BS|MS)[A-Z0-9]*(\.[A-Za-z0-9-]+)?"
)
_CASE_PARTS = 3
_NORMAL_TISSUE = range(10, 20)  # sample types; 1 to 9 are tumours

_CAMELYON17 = re.compile(r"(?P<case>patient_(?P<number>\d{3}))_node_\d")
_PATIENTS_PER_CENTRE = 20
_TRAINING_PATIENTS = 100  # in five centres; stages of the others were not published with the set
_CLASS_OF_STAGE = {"negative": "normal", "itc": "tumor", "micro": "tumor", "macro": "tumor"}


@dataclass(frozen=True)
class _Found:
    """A file whose name could be read.

    Attributes:
        path: The slide.
        case_id, site: As its name says.
        keys: Under what its label may stand, the best first.
    """

    path: Path
    case_id: str
    site: str
    keys: Sequence[str]


def tcga(folder: Path, labels: Path, *, diagnostic_only: bool = False) -> Draft:
    """Find the slides of TCGA in a folder, as gdc-client leaves them or sorted otherwise.

    ``slide_id`` is the file's name without ``.svs``, the case ``TCGA-<site>-<participant>``, the
    site the code of the tissue source site.

    Args:
        folder: Holds ``.svs`` files at any depth.
        labels: CSV with ``label`` and with ``slide_id`` (a file's name without ``.svs`` or as much
            of its barcode as is known; the longest counts), ``case_id``, or both. A label of a
            case is one of its tumour: slides of normal tissue (sample types 10 to 19) do not take
            it.
        diagnostic_only: Leave out frozen sections (TS, MS, BS); DX slides are paraffin.

    Raises:
        DataError: The folder or the labels cannot be read.
    """
    given = _labels_of(read_table(labels), ["slide_id", "case_id"], ["label"])
    found: list[_Found] = []
    left_out: list[LeftOut] = []
    for path in find_files(folder, [".svs"]):
        barcode = _TCGA.fullmatch(path.stem)
        if barcode is None:
            left_out.append(LeftOut(path.name, "its name is no TCGA slide barcode"))
            continue
        if diagnostic_only and barcode["slide"] != "DX":
            left_out.append(LeftOut(path.name, "is no diagnostic slide (DX)"))
            continue
        keys = _prefixes(path.stem.upper())
        if int(barcode["sample"]) in _NORMAL_TISSUE:
            *keys, case = keys
            if case in given and not any(key in given for key in keys):
                reason = "is normal tissue, and the label is one of its whole case"
                left_out.append(LeftOut(path.name, reason))
                continue
        found.append(_Found(path, barcode["case"], barcode["site"], keys))
    return finish(*_labelled(found, given, left_out))


def _prefixes(name: str) -> list[str]:
    """Return the name, its barcode, and every beginning of that down to the case."""
    barcode = name.split(".")[0].split("-")
    shorter = ["-".join(barcode[:n]) for n in range(len(barcode), _CASE_PARTS, -1)]
    *_, sample = shorter
    # Tables of samples leave out the letter of the vial: 01 for 01Z.
    return [name, *shorter, sample.rstrip(ascii_uppercase), "-".join(barcode[:_CASE_PARTS])]


def camelyon17(folder: Path, labels: Path) -> Draft:
    """Find the training slides of Camelyon17: ``patient_000_node_0.tif`` to patient 099.

    The set has 20 patients from each of five centres, in order: patient n is of site
    ``centre-<n // 20>``.

    Args:
        folder: Holds ``.tif`` files at any depth.
        labels: The challenge's table of stages (``patient`` and ``stage``; lines of whole patients
            are passed over). Negative becomes ``normal``, every metastasis and isolated tumour
            cells become ``tumor``: training takes two classes.

    Raises:
        DataError: The folder or the labels cannot be read.
    """
    stages = _labels_of(read_table(labels), ["patient"], ["stage"])
    given = {
        key.removesuffix(".TIF"): {_CLASS_OF_STAGE.get(stage.lower(), "") for stage in found}
        for key, found in stages.items()
        if not key.endswith(".ZIP")
    }
    found: list[_Found] = []
    left_out: list[LeftOut] = []
    for path in find_files(folder, [".tif"]):
        name = _CAMELYON17.fullmatch(path.stem)
        if name is None:
            left_out.append(LeftOut(path.name, "its name is not patient_<number>_node_<number>"))
        elif int(name["number"]) >= _TRAINING_PATIENTS:
            left_out.append(LeftOut(path.name, "is not of the training set (patients 0 to 99)"))
        else:
            centre = f"centre-{int(name['number']) // _PATIENTS_PER_CENTRE}"
            found.append(_Found(path, name["case"], centre, [path.stem.upper()]))
    return finish(*_labelled(found, given, left_out))


def clam(
    table: Path, folder: Path, site_column: str | None = None, label_column: str | None = None
) -> Draft:
    """Find the files of a dataset table of CLAM or HistoFL.

    Args:
        table: CSV with ``slide_id``, ``case_id``, the hospital and the class.
        folder: Holds, at any depth, ``<slide_id>.h5`` or ``.pt`` (features) or a slide of that
            name. If any of the slides has features, features of all are asked for.
        site_column: Column of the hospital (default: ``site`` or ``institute``).
        label_column: Column of the class (default: ``label`` or ``diagnosis_label``).

    Raises:
        DataError: The folder or the table cannot be read, or a column is missing.
    """
    lines = _by_slide(read_clam_table(table, site_column, label_column))
    files = _files_of(folder, lines)
    records: list[SlideRecord] = []
    left_out: list[LeftOut] = []
    for name, found in lines.items():
        paths = files.get(name, [])
        if len(found) > 1:
            left_out.append(
                LeftOut(name, "stands in the table more than once, each time different")
            )
        elif not paths:
            left_out.append(LeftOut(name, "a line of the table without a file"))
        elif len(paths) > 1:
            left_out.append(LeftOut(name, "has several files; give the folder that holds one"))
        else:
            line = found[0]
            records.append(SlideRecord(name, paths[0], line.case_id, line.site, line.label))
    strangers = [path for name, paths in files.items() if name not in lines for path in paths]
    left_out += [LeftOut(path.name, "a file without a line in the table") for path in strangers]
    return finish(records, left_out)


def _by_slide(lines: Sequence[ClamRecord]) -> dict[str, list[ClamRecord]]:
    """Group lines by slide; a line that is there twice to the letter counts once."""
    found: defaultdict[str, list[ClamRecord]] = defaultdict(list)
    for line in dict.fromkeys(lines):
        found[line.slide_id].append(line)
    return dict(found)


def _files_of(folder: Path, names: Iterable[str]) -> dict[str, list[Path]]:
    """Return the files by name: features if any name has them, else slides."""
    features = [_by_stem(folder, suffixes) for suffixes in FEATURES]
    files = {name: paths for kind in reversed(features) for name, paths in kind.items()}
    return files if any(name in files for name in names) else _by_stem(folder, SLIDES)


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in find_files(folder, suffixes):
        found[path.stem].append(path)
    return dict(found)


def _labels_of(
    table: Table, key_columns: Sequence[str], label_columns: Sequence[str]
) -> dict[str, set[str]]:
    """Return the labels of every key in capitals; of several key columns the first filled one."""
    table.column(key_columns, "whom the label is of")
    label_column = table.column(label_columns, "the class")
    keys = [column for column in key_columns if column in table.header]
    found: defaultdict[str, set[str]] = defaultdict(set)
    for row in table.rows:
        key = next((row[column] for column in keys if row[column]), "")
        found[key.upper()].add(row[label_column])
    return dict(found)


def _labelled(
    found: Sequence[_Found], labels: Mapping[str, set[str]], left_out: Sequence[LeftOut]
) -> tuple[list[SlideRecord], list[LeftOut]]:
    """Give every slide its label; say which slides have none and which labels have no slide."""
    records: list[SlideRecord] = []
    unfit, unused = list(left_out), set(labels)
    for slide in found:
        key = next((key for key in slide.keys if key in labels), None)
        unused.difference_update(slide.keys)
        if key is None:
            unfit.append(LeftOut(slide.path.name, "has no label"))
        elif len(labels[key]) > 1:
            unfit.append(LeftOut(slide.path.name, "has two different labels"))
        else:
            (label,) = labels[key]
            records.append(
                SlideRecord(slide.path.stem, slide.path, slide.case_id, slide.site, label)
            )
    return records, [*unfit, *(LeftOut(key, "a label without a slide") for key in sorted(unused))]
