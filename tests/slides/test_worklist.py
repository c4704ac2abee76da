"""What is done again, what is not, and what is said about the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rayfed_hn.bags import set_aside, store
from rayfed_hn.bags.bag import Bag
from rayfed_hn.errors import DataError
from rayfed_hn.slides.embedding import source_of
from rayfed_hn.slides.manifest import SlideRecord
from rayfed_hn.slides.worklist import (
    RELABELLED,
    Job,
    find_work,
    not_in_manifest,
    picture_path,
    put_aside,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store.create(tmp_path / "bags", {"feature_dim": 3})
    return tmp_path / "bags"


@pytest.fixture
def record(tmp_path: Path) -> SlideRecord:
    (tmp_path / "a.svs").write_bytes(b"pixels")
    return SlideRecord("a", tmp_path / "a.svs", "case", "north", "x")


def _take(root: Path, record: SlideRecord) -> None:
    rng = np.random.default_rng(0)
    names = record.slide_id, record.case_id, record.site, record.label
    features_ND = rng.random((4, 3), np.float32)
    rest = np.zeros((4, 2), np.int64), np.ones(4, np.float32), 256.0, record.mpp or 0.5
    store.write(root, Bag(*names, features_ND, *rest, source_sha256=source_of(record)))


def job_of(record: SlideRecord) -> Job:
    return Job(record, source_of(record))


def _jobs(root: Path, record: SlideRecord, *, retry: bool = False, pictures: bool = False) -> int:
    jobs, known = find_work(root, [record], retry=retry, pictures=pictures)
    assert len(jobs) + len(known) == 1
    return len(jobs)


def test_a_bag_stays_until_its_source_changes(root: Path, record: SlideRecord) -> None:
    assert _jobs(root, record) == 1
    _take(root, record)
    assert _jobs(root, record) == 0
    moved = record.path.rename(record.path.with_name("moved.svs"))
    _, (outcome,) = find_work(root, [record], retry=False, pictures=False)
    assert (outcome.status, outcome.num_tiles) == ("skipped", 4)
    assert "the bag is kept" in outcome.notes[0]
    assert _jobs(root, replace(record, path=moved)) == 0  # the same bytes in another place
    stated = replace(record, path=moved, mpp=0.25)
    assert _jobs(root, stated) == 1
    _take(root, stated)
    assert _jobs(root, stated) == 0
    assert _jobs(root, replace(stated, mpp=None)) == 1  # a scale that was taken back
    _take(root, replace(stated, mpp=None))
    moved.write_bytes(b"Pixels")
    assert _jobs(root, replace(record, path=moved)) == 1


def test_a_mask_is_part_of_the_source(root: Path, record: SlideRecord) -> None:
    _take(root, record)
    mask = record.path.with_name("a.geojson")
    mask.write_text("{}")
    masked = replace(record, mask=mask)
    assert _jobs(root, masked) == 1
    _take(root, masked)
    assert _jobs(root, masked) == 0
    assert _jobs(root, record) == 1


def test_what_was_set_aside_waits_for_another_file_or_retry(
    root: Path, record: SlideRecord
) -> None:
    put = put_aside(root, job_of(record), "is damaged", "copy it again")
    jobs, (outcome,) = find_work(root, [record], retry=False, pictures=False)
    assert not jobs
    assert outcome == put
    assert _jobs(root, record, retry=True) == 1
    record.path.write_bytes(b"whole")
    assert _jobs(root, record) == 1
    record.path.unlink()
    put_aside(root, job_of(record), "the file is missing", "correct its path")
    assert _jobs(root, record) == 0
    record.path.write_bytes(b"found")
    assert _jobs(root, record) == 1


def test_setting_aside_deletes_only_the_bag_of_another_file(
    root: Path, record: SlideRecord
) -> None:
    _take(root, record)
    put_aside(root, job_of(record), "the worker died", "look")
    assert store.find_entry(root, "north", "a") is not None
    moved = record.path.rename(record.path.with_name("away"))
    put_aside(root, job_of(record), "the file is missing", "look")
    assert store.find_entry(root, "north", "a") is not None
    moved.rename(record.path)
    record.path.write_bytes(b"another slide")
    put_aside(root, job_of(record), "is damaged", "copy it again")
    assert store.find_entry(root, "north", "a") is None
    assert [e.reason for e in set_aside.list_all(root)] == ["is damaged"]
    set_aside.forget(root, "north", "a")
    assert not set_aside.list_all(root)


def test_faults_of_the_machine_are_tried_again(root: Path, record: SlideRecord) -> None:
    put_aside(root, job_of(record), "no space", "look at the disk", lasting=False)
    assert _jobs(root, record) == 1


def test_stating_a_scale_is_another_chance(root: Path, record: SlideRecord) -> None:
    put_aside(root, job_of(record), "states no scale", "give mpp in the manifest")
    assert _jobs(root, record) == 0
    assert _jobs(root, replace(record, mpp=0.5)) == 1


def test_a_mask_that_cannot_be_read_just_now_keeps_the_bag(root: Path, record: SlideRecord) -> None:
    masked = replace(record, mask=record.path.with_name("a.geojson"))
    assert masked.mask is not None
    masked.mask.write_text("{}")
    _take(root, masked)
    masked.mask.unlink()
    assert _jobs(root, masked) == 0


def test_a_damaged_note_is_no_note(root: Path, record: SlideRecord) -> None:
    put_aside(root, job_of(record), "is damaged", "copy it again")
    for text in ("{", "[]", '{"slide_id": "a"}', ""):
        (root / "site=north" / "a.set_aside.json").write_text(text)
        assert _jobs(root, record) == 1


def test_pictures_are_drawn_of_slides_that_have_none(root: Path, record: SlideRecord) -> None:
    _take(root, record)
    (job,), _ = find_work(root, [record], retry=False, pictures=True)
    assert job.draw_only
    picture_path(root, record).parent.mkdir()
    picture_path(root, record).touch()
    assert _jobs(root, record, pictures=True) == 0


def test_bags_that_the_manifest_does_not_name(root: Path, record: SlideRecord) -> None:
    _take(root, record)
    _take(root, replace(record, slide_id="b"))
    assert not_in_manifest(root, [record]) == ["b"]
    with pytest.raises(DataError, match="'south' in the manifest"):
        find_work(root, [replace(record, site="south")], retry=False, pictures=False)


def test_case_and_label_follow_the_manifest(root: Path, record: SlideRecord) -> None:
    _take(root, record)
    before = store.SiteBags(root, "north").load(0)
    other = replace(record, case_id="other", label="y")
    notes = [find_work(root, [other], retry=False, pictures=False)[1][0].notes for _ in range(2)]
    assert notes == [(RELABELLED,), ()]
    after = store.SiteBags(root, "north").load(0)
    assert (after.case_id, after.label) == ("other", "y")
    assert np.array_equal(after.features_ND, before.features_ND)
    assert after.source_sha256 == before.source_sha256


@pytest.mark.parametrize("mpp", [None, 0.25])
@pytest.mark.parametrize("mask", [None, Path("/m.tif")])
def test_jobs_survive_the_journey(
    record: SlideRecord, mpp: float | None, mask: Path | None
) -> None:
    job = Job(replace(record, mpp=mpp, mask=mask), "00ff", draw_only=mask is None)
    assert Job.of(job.row()) == job
