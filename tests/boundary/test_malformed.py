"""A thousand damaged files and messages: refused with a reason, or good enough; nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mutations
import numpy as np
import pytest
from kinds_of_files import KINDS, Kind

from rayfed_hn.errors import RayfedError

PATIENCE = 30.0  # seconds for one input, on a busy machine
TIMES = int(os.environ.get("RAYFED_HN_MALFORMED", "1"))  # as many more; 20 take some minutes


class Hung(BaseException):
    """Reading did not end. No ``except Exception`` may take it for damage."""


@contextmanager
def patience() -> Iterator[None]:
    def give_up(signum: int, frame: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def try_all(kind: Kind, folder: Path, number: int, seed: int = 0) -> tuple[int, list[str]]:
    """How many of so many damaged inputs were refused, and what went wrong with others."""
    path = folder / kind.path
    folder.mkdir(mode=0o700)
    if len(path.relative_to(folder).parts) > 1 and not kind.path.startswith("site="):
        path.parent.mkdir()
    kind.write(path)
    kind.read(path)  # the good one is good
    good, there = path.read_bytes(), files(folder)
    refused, wrong = 0, []
    for i in range(number):
        rng = np.random.default_rng([seed, i])
        mutate = kind.structural if kind.structural and i % 2 else mutations.by_bytes
        path.write_bytes(mutate(good, rng))
        try:
            with patience(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kind.read(path)
        except RayfedError as error:
            refused += 1
            wrong += [] if str(error) else [f"input {i}: refused without a reason"]
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            wrong.append(f"input {i}: {type(error).__name__}: {error}"[:300])
            shutil.copy(path, folder.parent / f"wrong-{i}")
        left = files(folder) - there
        wrong += [f"input {i}: left {name.name}" for name in left]
    return refused, wrong


@pytest.mark.parametrize("name", KINDS)
def test_damage_is_refused_or_harmless(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    refused, wrong = try_all(kind, tmp_path / "here", TIMES * kind.number)
    assert not wrong, "\n".join(wrong)
    if name not in ("set aside", "update", "scores", "metrics", "statistics"):  # never raise
        assert refused, "nothing was refused: is it read at all?"


def test_they_are_a_thousand() -> None:
    assert sum(kind.number for kind in KINDS.values()) >= 1000


@pytest.mark.parametrize("how", ["raises", "hangs", "litters"])
def test_a_reader_that_fails_is_found(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("test_malformed.PATIENCE", 0.2)

    def read(path: Path) -> None:
        if path.read_bytes() == b"good":
            return
        if how == "raises":
            raise KeyError("x")
        if how == "litters":
            path.with_suffix(".partial").touch()
        while how == "hangs":
            pass

    kind = Kind("x", lambda path: path.write_bytes(b"good"), read, None, 1)
    assert try_all(kind, tmp_path / "here", 1)[1]
