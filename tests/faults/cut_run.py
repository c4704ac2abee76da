"""A run that kills itself (SIGKILL) when it reaches a point for the n-th time; started as a script.

Arguments: bag store, run directory, point ("" for none), count, and words of the configuration.
"""

from __future__ import annotations

import os
import signal
import sys
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


if __name__ == "__main__":
    root, folder, point, count, *rest = sys.argv[1:]
    kill_at(point, int(count))
    go_on(plan_of(Path(root), *rest), Path(folder))
