"""How far an audit is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], object]  # what is done, pieces done, pieces in all


def counted(progress: Progress, what: str, total: int) -> Callable[[], object]:
    """A function to call after every piece."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(what, done, total)

    return count
