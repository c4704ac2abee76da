"""SIGKILL at every named point, then another process goes on: nothing is lost or differs."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from cut_run import run_apart
from recorded_runs import SIMULATED, go_on, left_behind, plan_of

from rayfed_hn.points import ALL, DESCRIBED, EVALUATION, SUMMARY

ASYNC = (*SIMULATED, "rounds.buffer_size=2", "simulation.dropout=0.2", "method.name=fedper")
ONCE = (EVALUATION, SUMMARY)
QUICK = (DESCRIBED, 4)  # within a commit; the others are of `make test-faults`
PLACES = [(point, 1) for point in ALL] + [(point, 4) for point in ALL if point not in ONCE]
MARKED = [
    pytest.param(*place, marks=() if place == QUICK else pytest.mark.faults) for place in PLACES
]


def cut(root: Path, folder: Path, point: str, count: int, *words: str) -> int:
    """Run in another process; returns its exit code, minus the signal if it was killed."""
    done = run_apart(root, folder, words, point=point, count=count)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def whole(bag_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    go_on(plan_of(bag_root, *ASYNC), folder)
    return left_behind(folder)


@pytest.mark.parametrize(("point", "count"), MARKED)
def test_killed_once(
    bag_root: Path, tmp_path: Path, whole: dict[str, Any], point: str, count: int
) -> None:
    assert cut(bag_root, tmp_path, point, count, *ASYNC) == -signal.SIGKILL
    go_on(plan_of(bag_root, *ASYNC), tmp_path)  # this process has seen nothing of that one
    assert left_behind(tmp_path) == whole


@pytest.mark.faults
def test_killed_again_and_again(bag_root: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    kills = 0
    for point in ALL:
        kills += cut(bag_root, tmp_path, point, 1, *ASYNC) == -signal.SIGKILL
    assert kills == len(ALL)
    assert cut(bag_root, tmp_path, "", 1, *ASYNC) == 0
    assert left_behind(tmp_path) == whole


@pytest.mark.faults
@pytest.mark.parametrize("point", ["centre.applied", "commit.described"])
def test_noise_that_is_charged(bag_root: Path, tmp_path: Path, point: str) -> None:
    words = (*SIMULATED, "privacy.mechanism=site_ldp", "privacy.target_epsilon=8")
    plan = plan_of(bag_root, *words)
    go_on(plan, tmp_path / "whole")
    assert cut(bag_root, tmp_path / "cut", point, 3, *words) == -signal.SIGKILL
    go_on(plan, tmp_path / "cut")
    assert left_behind(tmp_path / "cut") == left_behind(tmp_path / "whole")
