"""Slides that are embedded on nodes which share no disk with whoever asked for it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
from s3_server import s3_server

from rayfed_hn.bags import store
from rayfed_hn.bags.entry import read_bag
from rayfed_hn.config import Config, EmbedConfig
from rayfed_hn.orchestration.slide_worker import MAX_ATTEMPTS, SlideWorker
from rayfed_hn.slides.embedding import recipe
from rayfed_hn.slides.encoders import make_encoder
from rayfed_hn.slides.manifest import read_manifest
from rayfed_hn.slides.outcome import SlideOutcome
from rayfed_hn.slides.worklist import Job, find_work
from rayfed_hn.storage import elsewhere
from rayfed_hn.storage.elsewhere import collect, forget_marks, offer
from rayfed_hn.storage.remote import Remote, remote_of

EMBED = EmbedConfig(encoder="texture", tile_px=128, slides_in_flight=1, pictures=True)
MARKS = ".attempts-this-run"


class Machines:
    """Two of them, each with a disk of its own, and one address that both know."""

    def __init__(self, folder: Path, address: str, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.remote, self._patch = folder, remote_of(address), patch
        self.manifest = folder / "manifest.csv"

    def copy(self, name: str) -> Path:
        """Be one of them; where its copy of the store is."""
        self._patch.setenv("RAYFED_HN_CACHE", str(self.folder / name))
        return self.remote.copy

    def jobs(self) -> list[Job]:
        """What the first is to ask for."""
        records = read_manifest(self.manifest, None)
        return find_work(self.copy("asks"), records, retry=True, pictures=True)[0]

    def work(self) -> list[SlideOutcome]:
        """What the other answers."""
        jobs = self.jobs()
        return work(self.copy("works"), jobs)


def work(root: Path, jobs: list[Job]) -> list[SlideOutcome]:
    """What a worker answers whose store is there."""
    rows = [job.row() for job in jobs]
    with closing(SlideWorker(root, root / MARKS, Config(embed=EMBED), make_encoder)) as worker:
        done = worker({key: np.array([row[key] for row in rows], object) for key in rows[0]})
    columns = zip(*done.values(), strict=True)
    return [SlideOutcome(**dict(zip(done, row, strict=True))) for row in columns]


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    """A slide and one that is none, and a store without bags."""
    noise = np.random.default_rng(0).integers(0, 60, (512, 512, 3))
    picture = ([200, 90, 150] - noise).astype(np.uint8)
    tifffile.imwrite(tmp_path / "good.tiff", picture, tile=(256, 256), photometric="rgb")
    (tmp_path / "bad.tiff").write_text("no slide")
    lines = (
        "slide_id,path,case_id,site,label,mpp",
        *(f"{n},{n}.tiff,c-{n},north,x,0.5" for n in ("good", "bad")),
    )
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    found = Machines(tmp_path, f"file://{tmp_path}/there", monkeypatch)
    store.create(found.copy("asks"), recipe(EMBED, make_encoder(EMBED, "cpu")))
    offer(found.copy("asks"))
    return found


def _bags_and_more(remote: Remote) -> set[str]:
    return {name for name in remote.files() if name.startswith("site=")}


def test_what_a_node_makes_is_there_and_then_here(machines: Machines) -> None:
    outcomes = {outcome.slide_id: outcome for outcome in machines.work()}
    assert {n: o.status for n, o in outcomes.items()} == {"good": "embedded", "bad": "set_aside"}
    there = _bags_and_more(machines.remote)
    assert there == {
        "site=north/good.arrow",
        "site=north/pictures/good.jpg",
        "site=north/bad.set_aside.json",
    }
    root = machines.copy("asks")
    assert store.find_entry(root, "north", "good") is None
    collect(root)
    forget_marks(root, ".attempts-")
    entry = store.find_entry(root, "north", "good")
    assert entry is not None
    assert len(read_bag(entry.path)) == outcomes["good"].num_tiles > 0
    assert not [name for name in machines.remote.files() if name.startswith(".attempts")]
    assert [job.record.slide_id for job in machines.jobs()] == ["bad"]  # asked for again


def test_a_slide_that_is_mended_there_leaves_no_note(machines: Machines) -> None:
    machines.work()
    (machines.folder / "bad.tiff").write_bytes((machines.folder / "good.tiff").read_bytes())
    collect(machines.copy("asks"))
    assert [outcome.status for outcome in machines.work()] == ["embedded"]
    assert "site=north/bad.arrow" in _bags_and_more(machines.remote)
    assert "site=north/bad.set_aside.json" not in _bags_and_more(machines.remote)


def test_a_slide_that_kills_workers_of_many_nodes_is_given_up(machines: Machines) -> None:
    for number in range(MAX_ATTEMPTS):
        machines.remote.write(f"{MARKS}/good.{number}", b"")
    good, bad = sorted(machines.work(), key=lambda outcome: outcome.slide_id, reverse=True)
    assert good.reason == "the worker that encoded it died"
    assert bad.reason.startswith("is neither a slide")
    assert "site=north/good.set_aside.json" in _bags_and_more(machines.remote)
    forget_marks(machines.copy("asks"), ".attempts-")
    assert not [name for name in machines.remote.files() if name.startswith(MARKS)]


def test_a_picture_is_drawn_without_losing_the_bag_there(machines: Machines) -> None:
    machines.work()
    machines.remote.delete("site=north/pictures/good.jpg")
    before = machines.remote.files()["site=north/good.arrow"]
    collect(machines.copy("asks"))
    (machines.copy("asks") / "site=north/pictures/good.jpg").unlink(missing_ok=True)
    again = {outcome.slide_id: outcome for outcome in machines.work()}
    assert again["good"].status == "skipped"
    there = machines.remote.files()
    assert "site=north/pictures/good.jpg" in there
    assert there["site=north/good.arrow"][0] == before[0]


def test_storage_that_cannot_be_reached_is_not_the_slides_fault(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as bucket:
        address = f"{bucket}/bags"
    machines.remote = remote_of(address)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(elsewhere, "RETRY_SECONDS", 0.1)
    for outcome in machines.work():
        assert outcome.reason.startswith(f"nowhere to put its bag: {address}")
        assert "give the same command again" in outcome.remedy


def test_a_node_that_shares_nothing_says_so(machines: Machines) -> None:
    jobs = machines.jobs()
    root = machines.folder / "a plain folder"
    why = "nowhere to put its bag: this node has no disk that the store is on"
    assert {outcome.reason for outcome in work(root, jobs)} == {why}
    assert not root.exists()
