"""Whole runs as a user starts them: a process with a cluster of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

HOOK = Path(__file__).parent / "hook"


def driver(
    root: Path, folder: Path, *words: str, chaos: dict[str, Any] | None = None
) -> subprocess.Popen[str]:
    """Start ``rayfed-hn train``; ``chaos`` is for ``hook/sitecustomize.py``."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    if chaos is not None:
        path = os.pathsep.join([str(HOOK), environment.get("PYTHONPATH", "")])
        environment |= {"RAYFED_HN_CHAOS": json.dumps(chaos), "PYTHONPATH": path}
    command = [sys.executable, "-m", "rayfed_hn", "train", f"data.bags={root}"]
    return subprocess.Popen(
        [*command, f"run.dir={folder}", "resources.cpus=2", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_version(process: subprocess.Popen[str], folder: Path, version: int) -> None:
    """Until a commit of this version or a later one is there."""
    pointer = folder / "checkpoints" / "LATEST"
    end = time.monotonic() + 200
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            if int(pointer.read_text()) >= version:
                return
        time.sleep(0.05)
    raise AssertionError(f"version {version} was never committed: {process.poll()}")


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """All processes of a run but its driver."""
    return psutil.Process(process.pid).children(recursive=True)


def left_after(processes: list[psutil.Process], seconds: float) -> list[str]:
    """Commands of those that are still there after so many seconds."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    names = []
    for one in alive:
        with contextlib.suppress(psutil.Error):
            if one.status() != psutil.STATUS_ZOMBIE:
                names.append(" ".join(one.cmdline())[:100])
    return names
