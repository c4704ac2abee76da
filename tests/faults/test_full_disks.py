"""A disk that is full or cannot be written to: one error that says so, and nothing is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cut_run import run_apart
from recorded_runs import SIMULATED, go_on, left_behind, newest, plan_of

from rayfed_hn.errors import DataError
from rayfed_hn.federation.commits import check_commits
from rayfed_hn.federation.record import write_summary
from rayfed_hn.points import PRUNED

WORDS = (*SIMULATED, "rounds.buffer_size=2", "evaluation.readout=last")
CUT = 2
REMEDY = r"cannot be written \(.*run\.resume=true goes on after making room"


@pytest.fixture(scope="module")
def whole(bag_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    go_on(plan_of(bag_root, *WORDS), folder)
    return left_behind(folder)


PADDING = '{"made": 0}'


@pytest.mark.parametrize(
    "file", ["checkpoints/00000003", pytest.param("metrics.jsonl", marks=pytest.mark.faults)]
)
def test_a_file_that_finds_no_room(
    bag_root: Path, tmp_path: Path, whole: dict[str, Any], file: str
) -> None:
    plan = plan_of(bag_root, *WORDS)
    run_apart(bag_root, tmp_path, WORDS, point=PRUNED, count=CUT + 1)
    largest = (tmp_path / "checkpoints" / "00000002" / "state.safetensors").stat().st_size
    largest -= 200
    if file == "metrics.jsonl":  # as in a long run
        largest *= 3
        with (tmp_path / file).open("a") as lines:
            lines.write(f"{PADDING}\n" * ((largest - lines.tell()) // (len(PADDING) + 1)))
            largest = lines.tell() + 5  # room for a piece of a line
    done = run_apart(bag_root, tmp_path, WORDS, largest=largest)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("rayfed_hn.errors.StorageError: ")
    assert file in last
    assert "File too large" in last
    assert "run.resume=true goes on after making room" in last
    assert check_commits(tmp_path, 2) == []
    assert newest(tmp_path)["version"] == CUT
    if file == "metrics.jsonl":
        text = (tmp_path / file).read_text()
        assert not text.endswith("\n")  # the last line was torn
        (tmp_path / file).write_text(text.replace(f"{PADDING}\n", ""))
    go_on(plan, tmp_path)
    assert left_behind(tmp_path) == whole


def in_the_way(path: Path) -> None:
    """A folder where a file should be: not even root can write there."""
    path.unlink(missing_ok=True)
    (path / "something").mkdir(parents=True)


@pytest.mark.parametrize("name", ["checkpoints/LATEST", "checkpoints/last.safetensors"])
def test_a_commit_that_cannot_be_written(bag_root: Path, tmp_path: Path, name: str) -> None:
    in_the_way(tmp_path / name)
    with pytest.raises(DataError, match=rf"checkpoints.* {REMEDY}"):
        go_on(plan_of(bag_root, *WORDS), tmp_path)
    assert not list((tmp_path / "checkpoints").glob(".0*"))


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", pytest.param("events.jsonl", marks=pytest.mark.faults)]
)
def test_lines_that_cannot_be_written(
    bag_root: Path, tmp_path: Path, whole: dict[str, Any], name: str
) -> None:
    plan = plan_of(bag_root, *WORDS)
    go_on(plan, tmp_path, stop_at=CUT)
    before = (tmp_path / name).read_text()
    in_the_way(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name} {REMEDY}"):
        go_on(plan, tmp_path)
    (tmp_path / name / "something").rmdir()
    (tmp_path / name).rmdir()
    (tmp_path / name).write_text(before)
    go_on(plan, tmp_path)
    assert left_behind(tmp_path) == whole


def test_a_summary_that_cannot_be_written(tmp_path: Path) -> None:
    in_the_way(tmp_path / "summary.json")
    with pytest.raises(DataError, match=rf"summary\.json {REMEDY}"):
        write_summary(tmp_path, {"verb": "train"})


def test_a_wall_clock_that_goes_back(
    bag_root: Path, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [4e9]

    def backwards() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr("time.time", backwards)
    go_on(plan_of(bag_root, *WORDS), tmp_path)
    assert left_behind(tmp_path) == whole
