"""Two processes cannot work in one run directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import load
from rayfed_hn.locks import JOB, hold, lent
from rayfed_hn.run_directory import claim

HOLD = """
import sys, time
from pathlib import Path
from rayfed_hn.locks import hold
assert hold(Path(sys.argv[1])) is None
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def another(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_driver_is_told_who_is_there_and_what_to_do(tmp_path: Path) -> None:
    config = load(None, [])
    with another(tmp_path / "lock") as process:
        with pytest.raises(ConfigError) as error:
            claim(tmp_path, config, "train", resume=False)
        words = str(error.value)
        assert f"in use by process {process.pid} on {os.uname().nodename} since 20" in words
        assert f"(kill {process.pid} on {os.uname().nodename})" in words
        assert "give the same command again, or give another run.dir" in words
        assert not (tmp_path / "config.yaml").exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        claim(tmp_path, config, "train", resume=False)  # the kernel has given it back
    claim(tmp_path, config, "train", resume=True)  # and it is ours


def test_a_job_is_ended_as_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"metadata": {"job_submission_id": "raysubmit_1"}}
    monkeypatch.setenv(JOB, json.dumps(told))
    with another(tmp_path / "lock"), pytest.raises(ConfigError) as error:
        claim(tmp_path, load(None, []), "train", resume=False)
    assert "in use by the job raysubmit_1 since 20" in str(error.value)
    assert "(ray job stop raysubmit_1)" in str(error.value)


def test_whoever_waits_gets_it_when_it_is_free(tmp_path: Path) -> None:
    with another(tmp_path / "lock") as process:
        begun = time.monotonic()
        holder = hold(tmp_path / "lock", wait_seconds=0.3)
        assert holder is not None
        assert holder.process == str(process.pid)
        assert time.monotonic() - begun >= 0.3
        process.terminate()
        assert hold(tmp_path / "lock", wait_seconds=20) is None


def test_where_no_lock_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run\.dir: .* cannot be locked \(.*another run\.dir"):
        hold(tmp_path / "file" / "lock")


def test_a_lock_whose_file_was_deleted_is_taken_anew(tmp_path: Path) -> None:
    assert hold(tmp_path / "lock") is None
    (tmp_path / "lock").unlink()
    assert hold(tmp_path / "lock") is None
    assert (tmp_path / "lock").exists()


def test_a_lock_that_is_lent_is_shared_among_those_who_share_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lent(path, shared=True) as one, lent(path, shared=True) as other:
        assert one is None
        assert other is None
        with lent(path) as holder:
            assert holder is not None
    with lent(path) as mine:
        assert mine is None
        with lent(path, shared=True, wait_seconds=0.2) as holder:
            assert holder is not None
            assert holder.process == str(os.getpid())
    assert hold(path) is None
