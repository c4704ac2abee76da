"""A run whose slides are full of marks, of which none may be found outside their site."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from marked_slides import (
    CASE,
    DESCRIPTION,
    ERROR,
    FOLDER,
    LABEL,
    SITES,
    SLIDE,
    WORDS,
    hits,
    hits_in_text,
    make_slides,
    marks_of_features,
)
from shared_memory import Searched

import rayfed_hn
from rayfed_hn.bags import store

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
HERE = Path(__file__).parent
TRAIN = (
    *("rounds.num_versions=2", "training.steps=2", "resources.sites_per_actor=1"),
    *("resources.cpus=2", "model.standardise=none", "run.keep_messages=true"),
)
AUDIT = ("audit.shadows=4", "audit.shadowed=1", "audit.canaries=12")
ONLY_IN_SLIDES = {word: WORDS[word] for word in (FOLDER, DESCRIPTION, LABEL)}


@dataclass
class Ground:
    """Folders of a test: slides, bags, runs, what Ray left, and who opened what.

    Attributes:
        home: Of all of them; of a short name, since Ray's sockets are below it.
        marks: What must not be found.
        values: Features of a site, for a leak of them.
    """

    home: Path
    marks: dict[str, bytes] = field(default_factory=lambda: dict(WORDS))
    values: list[float] = field(default_factory=list)

    @property
    def bags(self) -> Path:
        return self.home / "bags"

    def call(self, name: str, *words: str, **watch: object) -> tuple[int, str]:
        """One call of the command line; its exit code, and all it says.

        What Ray leaves of it is in ``ray-NAME``; ``watch`` is for ``watch/sitecustomize.py``.
        """
        notes, temporary = self.home / f"opens-{name}", self.home / "t"
        notes.mkdir()
        temporary.mkdir()
        package = Path(rayfed_hn.__file__).parents[1]
        watch |= {"home": str(self.home), "folder": str(notes)}
        plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        done = subprocess.run(
            [sys.executable, str(HERE / "canary_driver.py"), *words],
            env=plain
            | {"PYTHONPATH": f"{HERE / 'watch'}{os.pathsep}{package}"}
            | {"TMPDIR": str(temporary), "RAYFED_HN_WATCH": json.dumps(watch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            check=False,
        )
        temporary.rename(self.home / f"ray-{name}")
        return done.returncode, done.stdout

    def train(self, name: str, **watch: object) -> tuple[int, str]:
        words = (f"data.bags={self.bags}", f"run.dir={self.home / name}", *TRAIN)
        return self.call(name, "train", *words, **watch)

    def opens(self, name: str) -> dict[int, list[str]]:
        """What every process has opened below the bags and the runs, in order."""
        notes = (self.home / f"opens-{name}").iterdir()
        return {int(note.name): note.read_text().splitlines() for note in notes}

    def outside(self, name: str, text: str) -> list[str]:
        """Marks found outside the sites' own folders after a run."""
        own = [self.home / name / "sites" / site for site in SITES]
        bags = [self.bags / f"site={site}" for site in SITES]
        return [
            *hits_in_text(text, self.marks),
            *hits(self.home / name, self.marks, *own),
            *hits(self.bags, self.marks, *bags),
            *(hit for left in self.home.glob(f"ray-{name}*") for hit in hits(left, self.marks)),
        ]


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    ground = Ground(Path(tempfile.mkdtemp(prefix="z", dir="/tmp")))
    places = (f"data.manifest={make_slides(ground.home)}", f"data.bags={ground.bags}")
    rest = (f"run.dir={ground.home / 'embed'}", "resources.cpus=2")
    code, text = ground.call("embed", "embed", *places, *rest)
    assert code == 0, text
    # A site's own people run this, and their console names slides; nothing else of it does.
    assert ground.outside("embed", text) == [f"console: {SLIDE}"]
    for site in SITES:
        bag = store.SiteBags(ground.bags, site).load(0)
        marks, ground.values = marks_of_features(np.asarray(bag.features_ND))
        ground.marks |= {f"{site}: {name}": mark for name, mark in marks.items()}
    damaged = next((ground.bags / "site=west").glob(f"{SLIDE}-west-7*"))
    damaged.write_bytes(damaged.read_bytes()[:600])
    yield ground
    shutil.rmtree(ground.home)


def test_no_mark_leaves_its_site(ground: Ground) -> None:
    with Searched(ground.marks) as memory:
        code, text = ground.train("run", failing="south", secret=ERROR)
    assert not memory.found
    assert memory.most > 1000  # networks passed through
    run = ground.home / "run"
    assert code == 3, text  # degraded: a bag and a site have failed
    assert "1 of its bags cannot be read" in text
    assert "lost: site south at version 0: the site could not read its bags" in text
    for name, *words in (["audit", *AUDIT], ["report"]):
        code, said = ground.call(f"run-{name}", name, str(run), *words)
        assert code in (0, 3), said
        text += said
    for name in ("report.html", "audit.json", "summary.json", "privacy.json", "events.jsonl"):
        assert (run / name).stat().st_size > 100
    assert list(run.glob("messages/*/*.safetensors"))
    assert list(run.glob("tensorboard/*"))
    logs = [path.name for path in (ground.home / "ray-run").rglob("logs/*")]
    assert sum(name.startswith("worker-") for name in logs) >= 8  # of four actors, both streams
    assert not ground.outside("run", text)
    # What is searched for is there to be found, and the search finds it.
    own = {line.rpartition(": ")[2] for line in hits(ground.bags, ground.marks)}
    assert own >= {SLIDE, CASE, ERROR}
    assert any(name.startswith("features as") for name in own)
    slides = {line.rpartition(": ")[2] for line in hits(ground.home / "slides", WORDS)}
    assert slides >= {SLIDE, FOLDER, DESCRIPTION, LABEL}
    assert not hits(ground.bags, ONLY_IN_SLIDES)  # even a site's own bags hold no such thing
    check_opens(ground, "run")
    for folder in (*ground.bags.glob("site=*"), *run.glob("sites/*"), run / "messages"):
        assert folder.stat().st_mode & 0o777 == 0o700, folder


def test_a_site_that_leaks_is_found(ground: Ground) -> None:
    leak = {"values": ground.values, "notes": str(ground.home / "leaky" / "notes.txt")}
    with Searched(ground.marks) as memory:
        code, text = ground.train("leaky", leaking="west", **leak)
    assert code in (0, 3), text
    assert any("west: features" in mark for mark in memory.found), memory.found
    found = ground.outside("leaky", text)
    assert any(f"notes.txt: {SLIDE}" in line for line in found), found
    assert any("/logs/worker-" in line and SLIDE in line for line in found), found
    assert any("/messages/" in line and "west: features" in line for line in found), found
    with pytest.raises(AssertionError):
        check_opens(ground, "leaky")


def check_opens(ground: Ground, name: str) -> None:
    """Sites open their own bags only; the driver plans from all, before anything is trained."""
    bags, run, opens = ground.bags, ground.home / name, ground.opens(name)
    touched = {
        process: tuple(s for s in SITES if any(p.startswith(f"{bags}/site={s}") for p in paths))
        for process, paths in opens.items()
    }
    planners = [process for process, sites in touched.items() if sites == SITES]
    assert len(planners) == 1, touched
    assert not any(path.endswith("/salt") for path in opens[planners[0]])
    hosts = sorted(sites for process, sites in touched.items() if process not in planners)
    assert [sites for sites in hosts if sites] == [(site,) for site in SITES]
    committed = {
        process
        for process, paths in opens.items()
        if any(p.startswith(f"{run}/checkpoints/.00000001") for p in paths)
    }
    assert len(committed) == 1
    assert not any(touched[process] for process in committed), "the centre opens bags"
    for process, sites in touched.items():
        if len(sites) == 1:
            others = tuple(f"{run}/sites/{other}" for other in SITES if other not in sites)
            assert not any(p.startswith((f"{run}/messages", *others)) for p in opens[process])
