from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.bags.clam_tables import (
    ClamRecord,
    ClamSplit,
    read_clam_splits,
    read_clam_table,
    read_table,
)
from rayfed_hn.errors import DataError


def _table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_dataset_tables_of_clam_and_histofl_are_the_same(tmp_path: Path) -> None:
    clam = _table(tmp_path / "c.csv", "case_id,slide_id,label,site", "c, s ,x,n", "", "d,t,y,m")
    histofl = _table(
        tmp_path / "h.csv",
        *("case_id,slide_id,diagnosis_label,institute,age", "c,s,x,n,5", "d,t,y,m,"),
    )
    expected = [ClamRecord("s", "c", "n", "x"), ClamRecord("t", "d", "m", "y")]
    assert read_clam_table(clam) == read_clam_table(histofl) == expected
    as_site = read_clam_table(histofl, site_column="age", label_column="institute")
    assert [(r.site, r.label) for r in as_site] == [("5", "n"), ("", "m")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must name every column"),
        ("a,a\n1,2", "must name every column"),
        ("slide_id,case_id,label\ns,c,x", "no column site or institute"),
        ("slide_id,case_id,site\ns,c,x", "no column label or diagnosis_label"),
        ("slide_id,case_id,site,label\ns,c,x", "row 1 below the header has 3 values for 4"),
        ('slide_id,case_id,site,label\n"s,c,x,y', "no CSV table"),
        ("slide_id,case_id,site,label\ns,c,é,y", "no CSV table"),
    ],
)
def test_unusable_tables_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=words):
        read_clam_table(path)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path)


def test_splits_by_part_and_by_slide_are_the_same(tmp_path: Path) -> None:
    by_part = tmp_path / "a"
    by_part.mkdir()
    for i, rows in enumerate((("0,s0,s2,s3", "1,s1,,"), ("0,s2,s0,s1", "1,s3,,"))):
        _table(by_part / f"splits_{i}.csv", ",train,val,test", *rows)
        _table(by_part / f"splits_{i}_descriptor.csv", ",train,val,test", "x,1,1,1", "y,1,0,0")
    by_slide = tmp_path / "b"
    by_slide.mkdir()
    t, f = "True", "False"
    rows = [f"s0,{t},{f},{f}", f"s1,{t},{f},{f}", f"s2,{f},{t},{f}", f"s3,{f},{f},{t}"]
    _table(by_slide / "splits_0_bool.csv", ",train,val,test", *rows)
    rows = [f"s0,{f},{t},{f}", f"s1,{f},{f},{t}", f"s2,{t},{f},{f}", f"s3,{t},{f},{f}"]
    _table(by_slide / "splits_1_bool.csv", ",train,val,test", *rows)
    first, second = read_clam_splits(by_part)
    assert (first.train, first.validation, first.test) == (("s0", "s1"), ("s2",), ("s3",))
    assert (second.train, second.validation, second.test) == (("s2", "s3"), ("s0",), ("s1",))
    assert [s.digest for s in read_clam_splits(by_slide)] == [first.digest, second.digest]
    assert first.digest != second.digest


@given(st.permutations([f"splits_{i}.csv" for i in range(12)]))
def test_folds_come_in_the_order_of_their_numbers(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("splits")
    for name in names:
        _table(folder / name, ",train,val,test", f"0,{name},v,t")
    found = [split.train for split in read_clam_splits(folder)]
    assert found == [(f"splits_{i}.csv",) for i in range(12)]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no splits_0.csv there"),
        ({"splits_x.csv": [",train,val,test"]}, "no splits_0.csv there"),
        ({"splits_1.csv": [",train,val,test"]}, "splits_0.csv is missing"),
        ({"splits_0.csv": [",train,test", "0,a,b"]}, "no column val"),
        ({"splits_0.csv": [",train,val,test", "0,a,b,a"]}, r"1 slide\(s\) stand twice.*'a'"),
        ({"splits_0.csv": [",train,val,test", "0,a,b,c", "1,a,,"]}, "stand twice"),
        ({"splits_0_bool.csv": [",train,val,test", "a,True,maybe,False"]}, "not True or False"),
        ({"splits_0_bool.csv": ["train,val,test", "True,False,False"]}, "first column must be"),
        ({"splits_0_bool.csv": [",train,val,test", "a,True,True,False"]}, "stand twice"),
    ],
)
def test_unusable_splits_are_refused(
    tmp_path: Path, files: dict[str, list[str]], words: str
) -> None:
    for name, lines in files.items():
        _table(tmp_path / name, *lines)
    with pytest.raises(DataError, match=words):
        read_clam_splits(tmp_path)


def test_the_digest_follows_who_is_where_and_nothing_else() -> None:
    split = ClamSplit(Path("a"), ("s", "t"), ("u",), ())
    assert ClamSplit(Path("b"), ("t", "s"), ("u",), ()).digest == split.digest
    assert ClamSplit(Path("a"), ("s",), ("t", "u"), ()).digest != split.digest
