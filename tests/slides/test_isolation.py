"""A slide that crashes, hangs or swells its reader costs that slide and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from rayfed_hn.bags import store
from rayfed_hn.config import EmbedConfig, LimitsConfig
from rayfed_hn.errors import SetAside
from rayfed_hn.slides.embedding import embed_slide, encode_reading, source_of
from rayfed_hn.slides.encoders import make_encoder
from rayfed_hn.slides.isolation import IsolatedReader
from rayfed_hn.slides.manifest import SlideRecord
from rayfed_hn.slides.reading import Batch

CONFIG = EmbedConfig(tile_px=64, batch_tiles=7, limits=LimitsConfig(stall_seconds=60))


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> SlideRecord:
    path = tmp_path_factory.mktemp("slides") / "a.tiff"
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(90, 220, (64, 80, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    picture[:, :, 1] //= 2
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", compression="jpeg")
    return SlideRecord("a", path, "case", "north", "x", mpp=0.5)


@pytest.fixture(scope="module")
def shared_reader() -> Iterator[IsolatedReader]:
    reader = IsolatedReader(CONFIG)
    yield reader
    reader.close()


@pytest.fixture
def reader(shared_reader: IsolatedReader, record: SlideRecord) -> Iterator[IsolatedReader]:
    """A reader that must be as good as new after the test."""
    yield shared_reader
    with shared_reader.open_reading(record, source_of(record)) as reading:
        tiles = sum(len(batch.tiles_NHW3) for batch in reading)
    assert tiles == len(reading.found.coords_N2) > 100


def test_the_bag_is_the_same_as_in_this_process(
    reader: IsolatedReader, record: SlideRecord, tmp_path: Path
) -> None:
    encoder = make_encoder(CONFIG)
    here = embed_slide(record, encoder, CONFIG)
    picture = tmp_path / "pictures" / "a.jpg"
    with reader.open_reading(record, source_of(record), picture) as reading:
        there = encode_reading(record, source_of(record), reading, encoder)
    assert picture.stat().st_size > 1000
    root = tmp_path / "bags"
    store.create(root, {})
    digests = set()
    for bag in (here, there):
        store.write(root, bag)
        digests.add(store.digest(root))
    assert len(digests) == 1
    assert np.isfinite(here.artefacts_N4).all()
    assert len(here.source_sha256) == 64


def test_a_bad_slide_leaves_the_process_alive(
    reader: IsolatedReader, record: SlideRecord, tmp_path: Path
) -> None:
    process = _process(reader, record)
    (tmp_path / "no.svs").write_text("no slide")
    for path, reason in (
        (tmp_path / "no.svs", "is no slide"),
        (tmp_path / "none", "is missing"),
    ):
        with (
            pytest.raises(SetAside, match=reason),
            reader.open_reading(replace(record, path=path), ""),
        ):
            pass
    with pytest.raises(SetAside, match="smaller than one tile"):
        reader.draw(replace(record, mpp=0.03), "", tmp_path / "x.jpg")
    assert _process(reader, record) == process


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_costs_only_the_slide(
    reader: IsolatedReader, record: SlideRecord, when: str
) -> None:
    process = _process(reader, record)
    if when == "before":
        os.kill(process, signal.SIGKILL)

    def read() -> None:
        with reader.open_reading(record, source_of(record)) as reading:
            for number, _ in enumerate(reading):
                if number == 2:
                    os.kill(process, signal.SIGKILL)

    with pytest.raises(SetAside, match=r"crashed \(SIGKILL\).*memory_mib"):
        read()
    assert _process(reader, record) != process


def test_a_hang_ends(record: SlideRecord) -> None:
    patience = replace(CONFIG, limits=LimitsConfig(stall_seconds=3))
    with closing(IsolatedReader(patience)) as reader:
        os.kill(_process(reader, record), signal.SIGSTOP)
        with (
            pytest.raises(SetAside, match=r"nothing for 3 s.*stall_seconds"),
            reader.open_reading(record, source_of(record)),
        ):
            pass
        assert _process(reader, record)


def test_memory_is_limited(record: SlideRecord, tmp_path: Path) -> None:
    limits = LimitsConfig(memory_mib=1024)
    large = tmp_path / "large.h5"
    with h5py.File(large, "w") as file:  # a few bytes on disk, 1.6 GB in memory
        file.create_dataset("features", (400_000, 1024), "f4", chunks=(1024, 1024))
    store.create(tmp_path / "bags", {})
    with closing(IsolatedReader(replace(CONFIG, limits=limits))) as reader:
        with pytest.raises(SetAside, match="needs more memory than it may take"):
            reader.import_features(replace(record, path=large), "", tmp_path / "bags")
        assert _process(reader, record)


def test_a_consumer_that_fails_does_not_spoil_the_next_slide(
    reader: IsolatedReader, record: SlideRecord
) -> None:

    def fail(batch: Batch) -> None:
        raise RuntimeError("encoder")

    def read() -> None:
        with reader.open_reading(record, source_of(record)) as reading:
            fail(next(iter(reading)))

    with pytest.raises(RuntimeError, match="encoder"):
        read()


def test_a_consumer_may_leave_tiles(reader: IsolatedReader, record: SlideRecord) -> None:
    with reader.open_reading(record, source_of(record)) as reading:
        next(iter(reading))
    with reader.open_reading(record, source_of(record)) as reading:  # and another comes whole
        num_tiles = sum(len(batch.tiles_NHW3) for batch in reading)
        assert num_tiles == len(reading.found.coords_N2) > 0


def test_a_slide_that_changes_while_it_is_read_is_set_aside(
    reader: IsolatedReader, record: SlideRecord, tmp_path: Path
) -> None:
    changing = replace(record, path=tmp_path / "a.tiff")
    changing.path.write_bytes(record.path.read_bytes())

    def read() -> None:
        with reader.open_reading(changing, source_of(changing)) as reading:
            next(iter(reading))
            with changing.path.open("ab") as file:
                file.write(b"more")

    with pytest.raises(SetAside, match="changed while it was read"):
        read()


def test_a_reader_without_its_parent_ends(tmp_path: Path) -> None:
    """Also one that hangs, and would never notice that nobody listens."""
    code = (
        "import os, subprocess, sys, time\n"
        "from rayfed_hn.slides.reader_child import die_with_parent\n"
        "if len(sys.argv) > 1:\n"
        "    die_with_parent(int(sys.argv[1]))\n"
        "child = subprocess.Popen([sys.executable, __file__, str(os.getpid())])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(3)\n"
        "assert child.poll() is None\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    parent = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True
    )
    ended = time.monotonic() + 20
    while Path(f"/proc/{parent.stdout.strip()}").exists() and time.monotonic() < ended:
        time.sleep(0.1)
    assert not Path(f"/proc/{parent.stdout.strip()}").exists()


def test_a_reader_that_nobody_listens_to_ends(record: SlideRecord) -> None:
    reader = IsolatedReader(CONFIG)
    _process(reader, record)
    child = reader._child
    assert child is not None
    child._socket.close()
    assert child._process.wait(timeout=30) == 0


def _process(reader: IsolatedReader, record: SlideRecord) -> int:
    """Let the reader read a slide and return its process."""
    with reader.open_reading(record, source_of(record)):
        pass
    assert reader._child is not None
    return reader._child._process.pid
