from __future__ import annotations

from pathlib import Path

import pytest

from rayfed_hn.errors import DataError
from rayfed_hn.slides.manifest import read_manifest

HEADER = "slide_id,path,case_id,site,label,mpp\n"


def _write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "manifest.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_reads_what_is_there_and_ignores_other_columns(tmp_path: Path) -> None:
    text = (
        "label,slide_id,colour,path,case_id,site\n"
        " tumour ,a,red,x/a.svs,p1,north\n\nnone,b,,x/b.svs,p2,south\n"
    )
    records = read_manifest(_write(tmp_path, text, "utf-8-sig"))
    assert [(r.slide_id, r.label, r.site, r.mpp) for r in records] == [
        ("a", "tumour", "north", None),
        ("b", "none", "south", None),
    ]
    assert records[0].path == (tmp_path / "x" / "a.svs").resolve()  # need not exist


def test_real_manifest(real_data: Path) -> None:
    records = read_manifest(real_data / "histology" / "manifest.csv")
    assert len(records) == 223
    assert {r.mpp for r in records if r.site.startswith("ucsb")} == {0.5}
    assert all(r.path.exists() for r in records)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a,a.svs,p,n,x,\nA,b.svs,p,n,x,\n", ["line 3", "slide_id", "'A'", "line 2"]),
        ("../a,a.svs,p,n,x,\n", ["line 2", "slide_id", "'../a'", "letters"]),
        ("..,a.svs,p,n,x,\n", ["slide_id", "'..'"]),
        ("a,a.svs,p,n/m,x,\n", ["site", "'n/m'"]),
        ("a,a.svs,p q,n,x,\n", ["case_id", "'p q'"]),
        ("a,a.svs,p,n,,\n", ["label", "empty"]),
        ("a,,p,n,x,\n", ["path", "empty"]),
        ("a,a.svs,p,n,x,fine\n", ["mpp", "'fine'"]),
        ("a,a.svs,p,n,x,nan\n", ["mpp", "'nan'"]),
        ("a,a.svs,p,n,x,0\n", ["mpp", "'0'"]),
        ("a,a.svs,p,n,x,101\n", ["mpp", "at most 100"]),
        ("a,../a.svs,p,n,x,\n", ["path", "outside", "data.root"]),
        ("a,/etc/passwd,p,n,x,\n", ["path", "outside"]),
        ("a,a\0.svs,p,n,x,\n", ["line 2"]),
        ("a,a.svs,p,n,x,\nb,b.svs,p,m,x,\n", ["line 3", "case_id", "'p'", "leak"]),
        ("a,a.svs,p,n,x,\nb,b.svs,q,N,x,\n", ["line 3", "site", "'N'"]),
        ("a,a.svs,p,n,x\n", ["line 2", "5 values for 6 columns"]),
        ('a,"a.svs,p,n,x,\n', ["CSV"]),
        ("", ["no slides"]),
    ],
)
def test_refuses(tmp_path: Path, rows: str, words: list[str]) -> None:
    path = _write(tmp_path, HEADER + rows)
    with pytest.raises(DataError) as error:
        read_manifest(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_names_the_nearest_column(tmp_path: Path) -> None:
    path = _write(tmp_path, "Slide_ID,path,case_id,site,label\na,a.svs,p,n,x\n")
    with pytest.raises(DataError, match="column 'slide_id' is missing; rename 'Slide_ID'"):
        read_manifest(path)


def test_refuses_empty_files_wrong_encodings_and_missing_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty"):
        read_manifest(_write(tmp_path, ""))
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        read_manifest(_write(tmp_path, HEADER + "a,a.svs,p,n,é,\n", "latin-1"))
    with pytest.raises(DataError, match="cannot be read"):
        read_manifest(tmp_path / "none.csv")


def test_follows_links_before_it_looks_where_a_slide_lies(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link.svs").symlink_to(outside / "a.svs")
    path = _write(inside, HEADER + "a,link.svs,p,n,x,\n")
    with pytest.raises(DataError, match="outside"):
        read_manifest(path)
    assert read_manifest(path, root=tmp_path)[0].path == (outside / "a.svs").resolve()
    absolute = _write(inside, HEADER + f"a,{inside / 'a.svs'},p,n,x,\n")
    assert read_manifest(absolute)[0].path == (inside / "a.svs").resolve()
