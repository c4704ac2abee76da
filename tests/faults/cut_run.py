"""A run that kills itself (SIGKILL) when it reaches a point for the n-th time; started as a script.

Arguments: bag store, run directory, point ("" for none), count, and words of the configuration.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from recorded_runs import go_on, plan_of

from rayfed_hn.points import EVENT


def kill_at(point: str, count: int) -> None:
    """Install a hook that no line of the run can be protected from."""
    left = [count]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == EVENT and arguments == (point,):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run_apart(
    root: Path,
    folder: Path,
    words: Sequence[str],
    *,
    point: str = "",
    count: int = 1,
    largest: int = resource.RLIM_INFINITY,
) -> subprocess.CompletedProcess[str]:
    """Run in another process.

    Args:
        root: The bag store.
        folder: The run directory.
        words: Of the configuration.
        point, count: Where it kills itself; "": nowhere.
        largest: Bytes that a file may have.
    """
    here = Path(__file__)
    command = [sys.executable, str(here), str(root), str(folder), point, str(count), *words]
    path = os.pathsep.join([str(here.parent), str(here.parents[2])])

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    return subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )


if __name__ == "__main__":
    root, folder, point, count, *rest = sys.argv[1:]
    kill_at(point, int(count))
    go_on(plan_of(Path(root), *rest), Path(folder))
