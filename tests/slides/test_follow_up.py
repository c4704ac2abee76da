"""Times and events: from the manifest into bags, and out again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_federations import create, write

from rayfed_hn.bags import store
from rayfed_hn.bags.entry import content_digest, read_bag
from rayfed_hn.bags.export import export
from rayfed_hn.errors import DataError
from rayfed_hn.slides.embedding import import_features, source_of
from rayfed_hn.slides.manifest import SlideRecord, read_manifest
from rayfed_hn.slides.worklist import Job, find_work

HEADER = "slide_id,path,case_id,site,label,time,event\n"


def manifest(folder: Path, rows: str, header: str = HEADER) -> Path:
    path = folder / "manifest.csv"
    path.write_text(header + rows)
    return path


def follow_ups(path: Path) -> list[tuple[str, float | None, bool | None]]:
    return [(r.label, r.time, r.event) for r in read_manifest(path)]


def test_a_label_may_be_missing_where_there_is_a_time(tmp_path: Path) -> None:
    rows = "a,a.h5,p,n,,12,1\nb,b.h5,q,n,x,0.5,0\nc,c.h5,r,n,x,,\n"
    expected = [("", 12.0, True), ("x", 0.5, False), ("x", None, None)]
    assert follow_ups(manifest(tmp_path, rows)) == expected
    without = "".join(f"{i},{i}.h5,c{i},n,{i}.5,1\n" for i in (1, 2))
    header = "slide_id,path,case_id,site,time,event\n"
    found = follow_ups(manifest(tmp_path, without, header))
    assert found == [("", 1.5, True), ("", 2.5, True)]


@pytest.mark.parametrize("yes", ["1", "1.0", "true", "True", "TRUE"])
@pytest.mark.parametrize("no", ["0", "0.0", "false", "False"])
def test_events_as_people_and_pandas_write_them(tmp_path: Path, yes: str, no: str) -> None:
    rows = f"a,a.h5,p,n,,3,{yes}\nb,b.h5,q,n,,3,{no}\n"
    assert [event for _, _, event in follow_ups(manifest(tmp_path, rows))] == [True, False]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a,a.h5,p,n,x,0,1\n", ["line 2", "column time", "'0'", "above 0"]),
        ("a,a.h5,p,n,x,-3,1\n", ["time", "'-3'"]),
        ("a,a.h5,p,n,x,soon,1\n", ["time", "'soon'"]),
        ("a,a.h5,p,n,x,nan,1\n", ["time", "'nan'"]),
        ("a,a.h5,p,n,x,inf,1\n", ["time", "'inf'"]),
        ("a,a.h5,p,n,x,,1\n", ["column time", "''"]),
        ("a,a.h5,p,n,x,3,\n", ["column event", "''"]),
        ("a,a.h5,p,n,x,3,2\n", ["column event", "'2'", "censored"]),
        ("a,a.h5,p,n,x,3,dead\n", ["column event", "'dead'"]),
        ("a,a.h5,p,n,,,\n", ["column label", "empty"]),
        (
            "a,a.h5,p,n,x,3,1\nb,b.h5,p,n,x,4,1\n",
            ["line 3", "case p", "time 3 and event 1", "same time"],
        ),
        ("a,a.h5,p,n,x,3,1\nb,b.h5,p,n,x,3,0\n", ["line 3", "case p", "event 1"]),
        ("a,a.h5,p,n,x,3,1\nb,b.h5,p,n,x,,\n", ["line 3", "case p"]),
    ],
)
def test_bad_follow_up_is_refused(tmp_path: Path, rows: str, words: list[str]) -> None:
    with pytest.raises(DataError) as error:
        read_manifest(manifest(tmp_path, rows))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("missing", ["time", "event"])
def test_time_alone_does_not_take_the_place_of_the_label(tmp_path: Path, missing: str) -> None:
    names = [n for n in ("slide_id", "path", "case_id", "site", "time", "event") if n != missing]
    path = manifest(tmp_path, "a,a.h5,p,n,3\n", ",".join(names) + "\n")
    with pytest.raises(DataError, match="column 'label' is missing"):
        read_manifest(path)


times = st.none() | st.tuples(st.floats(1e-300, 1e300) | st.floats(0.1, 100), st.booleans())


@given(times, st.sampled_from([None, 0.25]))
def test_a_job_is_its_row_even_through_arrow(follow_up: Any, mpp: float | None) -> None:
    time, event = follow_up or (None, None)
    record = SlideRecord("s", Path("/x/s.h5"), "c", "n", "", mpp, None, time, event)
    job = Job(record, "source")
    assert Job.of(job.row()) == job
    (row,) = pa.Table.from_pylist([job.row()]).to_pylist()
    assert Job.of(row) == job


# -- bags --------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One case with two slides and an event, one that is censored, one without a time."""
    root = create(tmp_path / "bags")
    write(root, "a", "a1", "", case="p", time=0.1 + 0.2, event=True)
    write(root, "a", "a2", "", case="p", time=0.1 + 0.2, event=True)
    write(root, "a", "a3", "x", time=7.0, event=False)
    write(root, "b", "b1", "y")
    return root


def stated(root: Path) -> dict[str, tuple[Any, ...]]:
    """What bags and, equally, their entries say."""
    found = {}
    for site in store.list_sites(root):
        for entry in store.SiteBags(root, site).entries:
            bag = read_bag(entry.path)
            assert (bag.time, bag.event, bag.label) == (entry.time, entry.event, entry.label)
            found[entry.slide_id] = entry.case_id, entry.label, entry.time, entry.event
    return found


def test_bags_keep_times_to_the_bit_and_come_back_from_an_export(
    root: Path, tmp_path: Path
) -> None:
    assert stated(root)["a1"] == ("p", "", 0.30000000000000004, True)
    assert stated(root)["a3"][2:] == (7.0, False)
    done = export(root, tmp_path / "out", "trident")
    again = create(tmp_path / "again")
    for record in read_manifest(done.manifest):
        store.write(again, import_features(record, {}, source_of(record)))
    assert stated(again) == stated(root)
    for path in sorted(root.glob("site=*/*.arrow")):
        np.testing.assert_array_equal(
            read_bag(again / path.relative_to(root)).features_ND, read_bag(path).features_ND
        )


def test_an_export_without_times_has_no_columns_of_them(root: Path, tmp_path: Path) -> None:
    for path in root.glob("site=a/*.arrow"):
        path.unlink()
    write(root, "a", "a1", "x")
    done = export(root, tmp_path / "out", "trident")
    assert "time" not in done.manifest.read_text().splitlines()[0]
    assert follow_ups(done.manifest) == [("x", None, None), ("y", None, None)]


def test_the_digest_of_a_bag_depends_on_its_follow_up(root: Path) -> None:
    path = store.SiteBags(root, "a").entries[0].path
    bag, digests = read_bag(path), set()
    for time, event in ((None, None), (3.0, True), (3.0, False), (4.0, True)):
        store.write(root, replace(bag, time=time, event=event))
        digests.add(content_digest(path))
    assert len(digests) == 4


def test_times_of_a_manifest_that_changed_are_brought_up_to_date(
    root: Path, tmp_path: Path
) -> None:
    done = export(root, tmp_path / "out", "trident")
    records = read_manifest(done.manifest)
    again = create(tmp_path / "again")
    for record in records:
        store.write(again, import_features(record, {}, source_of(record)))
    changed = [replace(r, time=9.0, event=not r.event) if r.case_id == "p" else r for r in records]
    changed = [replace(r, time=None, event=None) if r.slide_id == "a3" else r for r in changed]
    jobs, known = find_work(again, changed, retry=False, pictures=False)
    assert (jobs, len(known)) == ([], 4)
    found = stated(again)
    assert found["a1"][2:] == found["a2"][2:] == (9.0, False)
    assert found["a3"][2:] == (None, None)
    assert found["b1"] == stated(root)["b1"]


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"time": 3.0}, "given together"),
        ({"event": True}, "given together"),
        ({"time": 0.0, "event": True}, "time must be positive"),
        ({"time": float("nan"), "event": True}, "time must be positive"),
        ({"time": float("inf"), "event": False}, "time must be positive"),
    ],
)
def test_bags_are_checked(root: Path, about: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        write(root, "a", "new", "x", **about)
