"""The command line, but what Ray left on disk is kept for a test to look at."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from rayfed_hn import cli
from rayfed_hn.orchestration import doors


def keep(path: object, ignore_errors: bool = False) -> None:
    """In place of deleting."""


if __name__ == "__main__":
    doors.shutil = SimpleNamespace(rmtree=keep)  # type: ignore[assignment]  # of that module alone
    sys.argv[0] = "rayfed-hn"
    cli.main()
