"""Commits that were truncated, changed or deleted: the one before is taken, and that is said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import NUM_VERSIONS, SIMULATED, all_lines, go_on, left_behind, newest, plan_of

from rayfed_hn.errors import DataError
from rayfed_hn.federation.commits import Commits, check_commits
from rayfed_hn.federation.history import history

# What sites remember from turn to turn must reach back as far as the server goes.
WORDS = (*SIMULATED, "rounds.buffer_size=2", "method.name=fedper", "simulation.dropout=0.2")
CUT = 4  # the version whose commit is the newest when the run is cut


@pytest.fixture(scope="module")
def whole(bag_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    go_on(plan_of(bag_root, *WORDS), folder)
    return left_behind(folder)


@pytest.fixture(scope="module")
def cut(bag_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    go_on(plan_of(bag_root, *WORDS), folder, stop_at=CUT)
    return folder


@pytest.fixture
def run(cut: Path, tmp_path: Path) -> Path:
    return shutil.copytree(cut, tmp_path / "run")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(share: float) -> Callable[[Path], None]:
    def flip_a_bit(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(share * (len(data) - 1))] ^= 4
        path.write_bytes(data)

    return flip_a_bit


HARMS = [
    *[(file, truncate) for file in ("state.safetensors", "commit.json")],
    *[("state.safetensors", flip(share)) for share in (0.0, 0.01, 0.2, 0.5, 0.99, 1.0)],
    *[("commit.json", flip(share)) for share in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)],
    *[(file, Path.unlink) for file in ("state.safetensors", "commit.json")],
    ("", shutil.rmtree),
]
QUICK = 5  # of them, a bit in the middle of the tensors; the others are of `make test-faults`
MARKED = [
    pytest.param(*harm, marks=() if number == QUICK else pytest.mark.faults)
    for number, harm in enumerate(HARMS)
]


@pytest.mark.parametrize(("file", "harm"), MARKED)
def test_the_commit_before_is_taken(
    bag_root: Path, run: Path, whole: dict[str, Any], file: str, harm: Callable[[Path], None]
) -> None:
    harm(run / "checkpoints" / f"{CUT:08}" / file)
    (damage,) = check_commits(run, 2)
    assert str(damage).startswith(f"the commit of version {CUT} is damaged: ")
    go_on(plan_of(bag_root, *WORDS), run)
    assert left_behind(run) == whole
    assert check_commits(run, 2) == []
    (mark,) = (line for line in all_lines(run, "events.jsonl") if line["event"] == "resumed")
    assert (mark["made"], mark["damaged"][0]["version"]) == (CUT - 1, CUT)
    found = history(run, 2)
    assert found["resumed_from"] == [CUT - 1]
    assert found["damaged_commits"][0]["what"] == str(damage)


@pytest.mark.parametrize(
    "pointer",
    [
        pytest.param("", marks=pytest.mark.faults),
        "garbage",
        f"{CUT:08}",  # its end is missing
        pytest.param("0000", marks=pytest.mark.faults),
        pytest.param("00000000\n", marks=pytest.mark.faults),  # a whole number, and far back
        pytest.param(None, marks=pytest.mark.faults),
    ],
)
def test_a_pointer_that_is_lost(
    bag_root: Path, run: Path, whole: dict[str, Any], pointer: str | None
) -> None:
    path = run / "checkpoints" / "LATEST"
    path.unlink() if pointer is None else path.write_text(pointer)
    (damage,) = check_commits(run, 2)
    assert str(damage).startswith("LATEST is damaged")
    go_on(plan_of(bag_root, *WORDS), run)
    assert left_behind(run) == whole


def test_what_is_after_a_damaged_commit_is_not_gone_on_from_later(
    bag_root: Path, run: Path, whole: dict[str, Any]
) -> None:
    """A whole commit that was never pointed at, after a damaged one; and a cut just after that."""
    commits = Commits(run, 2)
    truncate(run / "checkpoints" / f"{CUT:08}" / "state.safetensors")
    shutil.copytree(run / "checkpoints" / f"{CUT - 1:08}", run / "checkpoints" / f"{CUT + 1:08}")
    commits.go_back(CUT - 1)
    commit, damaged = Commits(run, 2).newest()
    assert commit is not None
    assert (commit.version, damaged) == (CUT - 1, [])
    go_on(plan_of(bag_root, *WORDS), run)
    assert left_behind(run) == whole


def test_nothing_that_can_be_used(bag_root: Path, run: Path) -> None:
    for folder in (run / "checkpoints").glob("0*"):
        truncate(folder / "commit.json")
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"no commit of the run can be used .*another run\.dir"):
        go_on(plan_of(bag_root, *WORDS), run)
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.faults
def test_three_commits_back(bag_root: Path, tmp_path: Path) -> None:
    plan = plan_of(bag_root, *WORDS, "run.keep_commits=3", "rounds.buffer_size=1")
    go_on(plan, tmp_path / "whole")
    go_on(plan, tmp_path / "cut", stop_at=CUT)
    for version in (CUT, CUT - 1):
        truncate(tmp_path / "cut" / "checkpoints" / f"{version:08}" / "state.safetensors")
    assert len(check_commits(tmp_path / "cut", 3)) == 2
    go_on(plan, tmp_path / "cut")
    assert left_behind(tmp_path / "cut") == left_behind(tmp_path / "whole")


@pytest.mark.faults
def test_noise_that_is_charged_is_charged_once(bag_root: Path, tmp_path: Path) -> None:
    words = (*SIMULATED, "privacy.mechanism=site_ldp", "privacy.target_epsilon=8")
    plan = plan_of(bag_root, *words)
    go_on(plan, tmp_path / "whole")
    go_on(plan, tmp_path / "cut", stop_at=CUT)
    truncate(tmp_path / "cut" / "checkpoints" / f"{CUT:08}" / "commit.json")
    go_on(plan, tmp_path / "cut")
    assert left_behind(tmp_path / "cut") == left_behind(tmp_path / "whole")
    assert newest(tmp_path / "cut")["ledgers"]["north"]["releases"] == NUM_VERSIONS


def test_a_few_commits_are_kept_and_the_best_version(cut: Path) -> None:
    about = newest(cut)
    kept = {path.name for path in (cut / "checkpoints").glob("0*")}
    assert {f"{CUT:08}", f"{CUT - 1:08}"} <= kept
    assert len(kept) <= 4
    last = (cut / "checkpoints" / "last.safetensors").stat()
    assert last.st_ino == (cut / "checkpoints" / f"{CUT:08}" / "state.safetensors").stat().st_ino
    assert about["buffer"] == []
    assert len(about["in_flight"]) + len(about["away"]) >= 1


def test_a_network_that_many_were_sent_is_kept_once(bag_root: Path, tmp_path: Path) -> None:
    words = (*SIMULATED, "rounds.buffer_size=1", "method.name=fedavg")
    go_on(plan_of(bag_root, *words), tmp_path, stop_at=1)
    about = newest(tmp_path)
    assert [request["network"] for request in about["in_flight"]] == [0, 0]
    commit, _ = Commits(tmp_path, 2).newest()
    assert commit is not None
    assert [name for name in commit.tensors if name.startswith("in_flight")] == ["in_flight.0"]


def test_a_commit_is_on_disk_before_it_counts(
    bag_root: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no killed process can show: its files, their folder, then the pointer and its folder."""
    synced: list[str] = []
    fsync = os.fsync

    def noting(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    go_on(plan_of(bag_root, *WORDS), run, stop_at=CUT + 1)
    last = len(synced) - 1 - next(i for i, name in enumerate(reversed(synced)) if "LATEST" in name)
    before = synced[:last]
    for name in ("state.safetensors", "commit.json", "metrics.jsonl", "events.jsonl"):
        assert any(name in one for one in before), (name, synced)
    assert "checkpoints" in before[before.index("commit.json") :]
    assert "checkpoints" in synced[last:]


def test_another_configuration_is_refused(bag_root: Path, run: Path) -> None:
    with pytest.raises(DataError, match="its commits are of another configuration"):
        go_on(plan_of(bag_root, *WORDS, "run.seed=9"), run)


def test_every_field_is_written_down(run: Path) -> None:
    found = json.loads((run / "checkpoints" / f"{CUT:08}" / "commit.json").read_text())["commit"]
    texts = ("config", "code", "data", "digest", "chain")
    assert all(isinstance(found[name], str) and len(found[name]) >= 32 for name in texts)
    assert len(found["updates"]) == 2
    assert all(len(update["sha256"]) == 64 for update in found["updates"])
