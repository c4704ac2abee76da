from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.errors import DataError
from rayfed_hn.slides.manifest import SlideRecord, read_manifest
from rayfed_hn.slides.manifest_builders import Draft, camelyon17, clam, tcga, write_manifest
from rayfed_hn.slides.manifest_draft import finish

UUID = "83fce43e-42ac-4dcd-b156-2908e75f2e47"


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def _table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _short(draft: Draft) -> list[tuple[str, str, str, str]]:
    return [(r.slide_id, r.case_id, r.site, r.label) for r in draft.records]


def test_tcga_as_gdc_client_leaves_it(tmp_path: Path) -> None:
    slides = _touch(
        tmp_path / "gdc",
        f"{UUID}/TCGA-A2-A0T2-01Z-00-DX1.{UUID}.svs",
        f"{UUID}/logs/TCGA-A2-A0T2-01Z-00-DX1.{UUID}.svs.parcel",
        "b/TCGA-E9-A1NF-01A-01-TSA.svs",
    )
    labels = _table(tmp_path / "l.csv", "case_id,label", "TCGA-A2-A0T2,a", "tcga-e9-a1nf,b")
    draft = tcga(slides, labels)
    assert _short(draft) == [
        (f"TCGA-A2-A0T2-01Z-00-DX1.{UUID}", "TCGA-A2-A0T2", "A2", "a"),
        ("TCGA-E9-A1NF-01A-01-TSA", "TCGA-E9-A1NF", "E9", "b"),
    ]
    assert not draft.left_out
    assert [r.site for r in tcga(slides, labels, diagnostic_only=True).records] == ["A2"]


def test_tcga_tells_of_everything_else(tmp_path: Path) -> None:
    slides = _touch(
        tmp_path / "gdc",
        "CMU-1.svs",
        "TCGA-A2-A0T2-01Z-00-DX1.svs",
        "again/TCGA-A2-A0T2-01Z-00-DX1.svs",
        "TCGA-A2-A0T3-01Z-00-DX1.svs",
        "TCGA-A2-A0T4-01Z-00-DX1.svs",
        "TCGA-A2-A0T2-11A-01-TS1.svs",
    )
    rows = ["TCGA-A2-A0T2,a", "TCGA-A2-A0T3,a", "TCGA-A2-A0T3,b", "TCGA-ZZ-0000,a"]
    draft = tcga(slides, _table(tmp_path / "l.csv", "case_id,label", *rows))
    assert [r.slide_id for r in draft.records] == ["TCGA-A2-A0T2-01Z-00-DX1"]
    assert draft.reasons == {
        "its name is no TCGA slide barcode": 1,
        "has the name of another slide": 1,
        "has two different labels": 1,
        "has no label": 1,
        "is normal tissue, and the label is one of its whole case": 1,
        "a label without a slide": 1,
    }


@pytest.mark.parametrize(
    "key",
    [
        f"TCGA-A2-A0T2-11A-01-TS1.{UUID}",
        "TCGA-A2-A0T2-11A-01-TS1",
        "TCGA-A2-A0T2-11A-01",
        "TCGA-A2-A0T2-11A",
        "TCGA-A2-A0T2-11",
    ],
)
def test_the_longest_barcode_gives_the_label(tmp_path: Path, key: str) -> None:
    tumour = "TCGA-A2-A0T2-01Z-00-DX1.svs"
    slides = _touch(tmp_path / "gdc", f"TCGA-A2-A0T2-11A-01-TS1.{UUID}.svs", tumour)
    rows = [f"TCGA-A2-A0T2,{key},normal", "TCGA-A2-A0T2,,tumor"]
    labels = _table(tmp_path / "l.csv", "case_id,slide_id,label", *rows)
    draft = tcga(slides, labels)
    assert [r.label for r in draft.records] == ["tumor", "normal"]
    assert not draft.left_out


def test_camelyon17_centres_and_stages(tmp_path: Path) -> None:
    slides = _touch(
        tmp_path / "c17",
        "patient_019_node_0.tif",
        "centre_1/patient_020_node_4.tif",
        "patient_099_node_1.tif",
        "patient_099_node_2.tif",
        "patient_100_node_0.tif",
        "patient_099_node_1_mask.tif",
    )
    labels = _table(
        tmp_path / "stages.csv",
        "patient,stage",
        "patient_019.zip,pN0",
        "patient_019_node_0.tif,negative",
        "patient_020_node_4.tif,itc",
        "patient_099_node_1.tif,macro",
        "patient_099_node_2.tif,odd",
        "patient_098_node_2.tif,micro",
    )
    draft = camelyon17(slides, labels)
    assert _short(draft) == [
        ("patient_019_node_0", "patient_019", "centre-0", "normal"),
        ("patient_020_node_4", "patient_020", "centre-1", "tumor"),
        ("patient_099_node_1", "patient_099", "centre-4", "tumor"),
    ]
    assert draft.reasons == {
        "its name is not patient_<number>_node_<number>": 1,
        "is not of the training set (patients 0 to 99)": 1,
        "its label is empty or unknown": 1,
        "a label without a slide": 1,
    }


def test_a_dataset_table_of_histofl(tmp_path: Path) -> None:
    features = _touch(
        tmp_path / "f",
        *("h5_files/s0.h5", "pt_files/s0.pt", "pt_files/s1.pt", "pt_files/odd.pt", "slides/s2.svs"),
        *("a/s3.h5", "b/s3.h5", "h5_files/s5.h5", "h5_files/s6.h5", "h5_files/s7.h5"),
    )
    table = _table(
        tmp_path / "d.csv",
        "case_id,slide_id,diagnosis_label,institute",
        *("c0,s0,x,north", "c0,s0,x,north", "c1,s1,y,south", "c2,s2,x,south", "c3,s3,x,south"),
        *("c5,s5,x,south", "c5,s5,y,south", "c6,s6,x,south", "c6,s7,x,north", "c8,s8,x,south"),
    )
    draft = clam(table, features)
    assert _short(draft) == [("s0", "c0", "north", "x"), ("s1", "c1", "south", "y")]
    assert [r.path.name for r in draft.records] == ["s0.h5", "s1.pt"]
    assert draft.reasons == {
        "a line of the table without a file": 2,
        "its case is at two sites": 2,
        "has several files; give the folder that holds one": 1,
        "stands in the table more than once, each time different": 1,
        "a file without a line in the table": 1,
    }


def test_slides_are_found_where_there_are_no_features(tmp_path: Path) -> None:
    slides = _touch(tmp_path / "w", "deep/er/s0.NDPI", "s1.svs")
    table = _table(tmp_path / "d.csv", "case_id,slide_id,label,place", "c,s0,x,north", "d,s1,y,n")
    draft = clam(table, slides, site_column="place")
    assert [r.path for r in draft.records] == [slides / "deep/er/s0.NDPI", slides / "s1.svs"]
    with pytest.raises(DataError, match="no column site or institute"):
        clam(table, slides)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    slides = _touch(tmp_path / "w", "in/s0.svs")
    _touch(tmp_path / "elsewhere", "s1.svs")
    draft = finish(
        [
            SlideRecord("s0", slides / "in" / "s0.svs", "c0", "n", "x, y"),
            SlideRecord("s1", tmp_path / "elsewhere" / "s1.svs", "c1", "n", 'the "odd" one'),
        ],
        [],
    )
    manifest = slides / "manifest.csv"
    write_manifest(manifest, draft)
    assert tuple(read_manifest(manifest, root=tmp_path)) == draft.records
    with manifest.open(encoding="utf-8") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert paths == ["in/s0.svs", str(tmp_path / "elsewhere" / "s1.svs")]


_TEXT = st.text(max_size=8) | st.sampled_from(["a", "A", "b", ".", "..", " a", "a,b", "é", "\f"])


@given(st.lists(st.tuples(_TEXT, _TEXT, _TEXT, _TEXT, _TEXT), max_size=8))
def test_no_draft_is_refused_by_the_reader(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[str, str, str, str, str]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    records = [
        SlideRecord(name, folder / "s" / f"{file}.svs", case, site, label)
        for name, file, case, site, label in values
    ]
    draft = finish(records, [])
    assert len(draft.records) + len(draft.left_out) == len(records)
    if draft.records:
        write_manifest(folder / "manifest.csv", draft)
        assert tuple(read_manifest(folder / "manifest.csv")) == draft.records
    else:
        with pytest.raises(DataError, match="no slide"):
            write_manifest(folder / "manifest.csv", draft)


def test_places_that_cannot_be_read(tmp_path: Path) -> None:
    labels = _table(tmp_path / "l.csv", "case_id,label", "TCGA-A2-A0T2,a")
    with pytest.raises(DataError, match="folder cannot be read"):
        tcga(tmp_path / "none", labels)
    with pytest.raises(DataError, match="no column label"):
        tcga(tmp_path, _table(tmp_path / "m.csv", "case_id,class", "TCGA-A2-A0T2,a"))
    with pytest.raises(DataError, match="no column slide_id or case_id"):
        tcga(tmp_path, _table(tmp_path / "m.csv", "patient,label", "TCGA-A2-A0T2,a"))
