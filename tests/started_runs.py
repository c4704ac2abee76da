"""Whole runs that are started as a user starts them, to be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def command(*words: str, **environment: str) -> subprocess.Popen[str]:
    """Start ``rayfed-hn WORDS``, which has a cluster of its own unless RAY_ADDRESS is given."""
    inherited = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "rayfed_hn", *words],
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stamps(folder: Path, pattern: str) -> dict[str, int]:
    """When files of a run were written: a cell or trial that is repeated is written again."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(pattern)}


def wait_for_files(
    process: subprocess.Popen[str], folder: Path, pattern: str, number: int, seconds: float = 240.0
) -> None:
    """Until a run has written so many files of a kind."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if len(stamps(folder, pattern)) >= number:
            return
        time.sleep(0.02)
    process.kill()
    output, _ = process.communicate()
    raise AssertionError(f"{number} of {pattern} were never there: {output}")
