"""Which scene the commands of each page are played in, what is made small, what is not run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import scenery
from command_line import run_verb
from fences import Fence, lines, tokens
from virtual_sites import TINY

_NETWORK = ("model.hidden_dim=8", "model.attention_dim=4", "training.learning_rate=0.01")
_ROUNDS = ("rounds.num_versions=2", "training.steps=2", "evaluation.attention_maps=1", *_NETWORK)
_COMPARE = ("compare.seeds=1", "compare.folds=3", "compare.resamples=100")

# Words that are added to a verb's: the last word about a key counts.
SMALL: Mapping[str, tuple[str, ...]] = {
    "train": (*_ROUNDS, "resources.sites_per_actor=9"),
    "serve": _ROUNDS,
    "join": _ROUNDS,
    "compare": (*_ROUNDS, *_COMPARE),
    "demo": ("demo.slides_per_site=6", *_ROUNDS[:2], *_COMPARE),
    "tune": (*_ROUNDS, "tune.num_trials=2", "tune.folds=1", "tune.final_seeds=1", "data.folds=3"),
    "scale": (*TINY, "scale.sites=2,4", "scale.test_sites=2", "scale.cohort_size=2"),
    "onboard": (
        *("onboard.labelled=0,1", "onboard.repeats=1", "onboard.steps=2"),
        "onboard.embedding_steps=2",
    ),
    "audit": (
        *("audit.shadows=4", "audit.exchanges=1", "audit.shadowed=1", "audit.canaries=4"),
        "audit.coins=10",
    ),
}

# Lines that no test runs as they stand, and why.
NOT_RUN: Mapping[str, str] = {
    "make demo": "installs; guides/fl-research.md has 'rayfed-hn demo', which is run",
    "make test": "is this very suite",
    "pip install mlflow-skinny": "needs a network",
    "rayfed-hn train data.bags=bags run.track=mlflow": "needs mlflow; see test_tracking.py",
}


@dataclass(frozen=True)
class Scene:
    """One page.

    Attributes:
        make: Fills a folder, in which the page's commands are then given.
        apart: Whether every block begins in a folder of its own.
        ends: Exit codes other than 0 that the page speaks of, by the command's line.
        in_checkout: Whether blocks are given to a shell in the checkout, which finds the folder's
            name in SHARED and that of a cluster's private folder in RAYFED_HN_CLUSTER. Jobs run
            the program of the cluster's nodes, to which no words are added.
        at_last: What is given to the shell then, whatever has happened.
    """

    make: Callable[[Path], object] = scenery.our_files
    apart: bool = False
    ends: Mapping[str, int] = field(default_factory=dict)
    in_checkout: bool = False
    at_last: str = ":"


def lines_of(fence: Fence) -> list[str]:
    """What a reader types, line by line."""
    return lines(fence.text)


def not_run(line: str) -> str | None:
    """The row of ``NOT_RUN`` that a line falls under."""
    return next((row for row in NOT_RUN if line == row), None)


def is_simple(line: str) -> bool:
    """Whether it is one command of ours, without anything that takes a shell."""
    words = tokens(line)
    return words[0] in ("rayfed-hn", "tensorboard") and not any(
        word in ("&", "|", ";", "&&", "||", "<", ">", "(", ")") or "$" in word for word in words
    )


def _readme(folder: Path) -> None:
    scenery.our_files(folder)
    scenery.slides(folder, ("north", "south"), first="s-001")
    scenery.drawn_bags(folder, "west-bags", "west")
    scenery.slides(folder / "histology", ("breast", "colon"))
    scenery.features(folder / "heart_sounds", ("a", "b", "c"))


def _bags(folder: Path, *, labels: tuple[str, str] = scenery.LABELS) -> None:
    scenery.our_files(folder)
    scenery.random_bags(folder / "bags", ("north", "south", "west"), labels)


def _two_stores(folder: Path) -> None:
    _bags(folder)
    for name in ("heart_sounds", "histology"):
        scenery.random_bags(folder / "bags" / name, ("a", "b"))


def _watched(folder: Path) -> None:
    _bags(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        words = ["train", "data.bags=bags", "run.dir=runs/NAME", *SMALL["train"]]
        assert run_verb(monkeypatch, *words) == 0


def _predict(folder: Path) -> None:
    manifest = scenery.slides(folder / "slides", ("north", "south"))
    bags = scenery.embedded(manifest, folder / "bags")
    scenery.finished(folder, bags, one="hypernetwork", fedavg="fedavg")
    scenery.draw(folder / "north-003.svs", tumour=True, seed=3)
    scenery.slides(folder / "new", ("north", "stranger"))


def _slides(folder: Path) -> None:
    scenery.barcoded(folder / "slides", folder / "labels.csv", "TCGA-A2-A0T2-01Z-00-DX1")
    scenery.camelyon(folder / "camelyon17", folder / "stage_labels.csv")
    made = scenery.features(folder / "features", ("a", "b")) / "manifest.csv"
    scenery.clam_table(folder / "dataset.csv", made)
    scenery.random_bags(folder / "bags", ("a", "b"))


def _tcga(folder: Path) -> None:
    scenery.our_files(folder)
    scenery.barcoded(folder / "slides", folder / "labels.csv", "TCGA-A2-A0T2-01Z-00-DX1")


def _features(folder: Path) -> None:
    scenery.our_files(folder)
    made = scenery.features(folder / "features", ("north", "south")) / "manifest.csv"
    scenery.clam_table(folder / "dataset.csv", made)
    scenery.clam_splits(folder / "splits", made)
    made.unlink()


def _nothing(folder: Path) -> None:
    pass


SCENES: Mapping[str, Scene] = {
    "README.md": Scene(_readme),
    "cluster/README.md": Scene(_nothing, in_checkout=True, at_last="cluster/local.sh down"),
    "docs/audit.md": Scene(_bags),
    "docs/beyond.md": Scene(partial(_bags, labels=("normal", "tumor"))),
    "docs/guides/data-officer.md": Scene(_bags),
    "docs/guides/features.md": Scene(_features),
    "docs/guides/fl-research.md": Scene(),
    "docs/guides/tcga.md": Scene(_tcga),
    "docs/predict.md": Scene(_predict),
    "docs/privacy.md": Scene(_bags, apart=True),
    "docs/scale.md": Scene(_two_stores),
    "docs/slides.md": Scene(_slides),
    "docs/tasks.md": Scene(_bags),
    "docs/tuning.md": Scene(_bags),
    "docs/watching.md": Scene(_watched),
}
