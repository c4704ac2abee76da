"""A driver that is asked to stop, or killed: nothing is left behind, and the run can go on."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from disturbed import SHORT, SIMULATED, undisturbed
from drivers import driver, family, left_after, wait_for_version

from rayfed_hn.points import DRIVER, DRIVER_VERSION, SUMMARY

pytestmark = pytest.mark.faults
FATAL = [(point, 1) for point in (*DRIVER, SUMMARY)] + [(DRIVER_VERSION, 3)]
LONG = ("rounds.num_versions=100", "training.steps=1")


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_and_the_run_goes_on(
    bag_root: Path, tmp_path: Path, kind: signal.Signals
) -> None:
    folder, words = tmp_path / "run", (*SHORT, *LONG, *SIMULATED)
    process = driver(bag_root, folder, *words)
    wait_for_version(process, folder, 2)
    processes = family(process)
    assert any("_Sites" in " ".join(one.cmdline()) for one in processes)
    begun = time.monotonic()
    process.send_signal(kind)
    output, _ = process.communicate(timeout=30)
    if kind == signal.SIGTERM:
        assert process.returncode == 4
        assert time.monotonic() - begun < 20
        assert "run.resume=true goes on" in output
        assert "Traceback" not in output
    ours = [one for one in left_after(processes, 15) if "_Sites" in one or "_Centre" in one]
    assert not ours
    assert not left_after(processes, 60)  # Ray's agents look for their parent now and then
    committed = int((folder / "checkpoints" / "LATEST").read_text())
    assert 2 <= committed < 100
    process = driver(bag_root, folder, *words, "run.resume=true")
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["digest"] == undisturbed(bag_root, *LONG, *SIMULATED).digest


@pytest.mark.parametrize(("point", "times"), FATAL)
def test_killed_at_every_point(bag_root: Path, tmp_path: Path, point: str, times: int) -> None:
    folder, words = tmp_path / "run", (*SHORT, *SIMULATED)
    process = driver(
        bag_root, folder, *words, chaos={"folder": str(tmp_path), "at": [point, times]}
    )
    output, _ = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, output
    resumed = driver(bag_root, folder, *words, "run.resume=true")
    output, _ = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, output
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["digest"] == undisturbed(bag_root, *SIMULATED).digest
    assert (summary["status"], summary["exit_code"]) == ("complete", 0)
