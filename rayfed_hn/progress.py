"""Progress of long work: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LINE_SECONDS = 5.0  # a log gets a line at most this often
MIN_SHARE = 0.02  # of the work, before it says when the rest will be done


@dataclass
class Bar:
    """Progress of one piece of work.

    Attributes:
        title: What is done.
        total: Pieces.
    """

    title: str
    total: int
    _rich: tuple[Progress, Any] | None
    _printed: float = 0.0
    _first: tuple[float, float] | None = None  # when the first update came, and what it said

    def update(
        self, done: int, note: str = "", *, share: float | None = None, line: bool = False
    ) -> None:
        """Say how far it is.

        Args:
            done: Pieces done.
            note: Something short, such as the last validation metric.
            share: Share of the work done, where the pieces are not of one size.
            line: A log gets this line in any case.
        """
        share = done / self.total if share is None else share
        if self._first is None:  # what was there, or took the time of a start, tells of no other
            self._first = time.monotonic(), share
        ending = self._ending(share)
        if self._rich is not None:
            progress, task = self._rich
            if line:
                progress.console.print(note, markup=False, highlight=False)
            progress.update(task, completed=done, note=ending if line else f"{ending}  {note}")
            return
        now = time.monotonic()
        if done < self.total and now - self._printed < LINE_SECONDS and not line:
            return
        self._printed = now
        parts = [f"{self.title}: {done}/{self.total}", ending, note]
        print("  ".join(part for part in parts if part), flush=True)

    def _ending(self, share: float) -> str:
        """When the rest will be done, if the rest is like what was done since the first update."""
        begun, before = self._first or (0.0, share)
        if share >= 1 or share - before < MIN_SHARE:
            return ""
        return seconds_left((time.monotonic() - begun) / (share - before) * (1 - share))


def seconds_left(left: float) -> str:
    """A time that is left, in words."""
    if left < 60:
        return f"about {left:.0f} s left"
    clock = time.strftime(
        "%a %H:%M" if left > 43_200 else "%H:%M", time.localtime(time.time() + left)
    )
    return f"about {left / 60:.0f} min left, until {clock}"


@contextmanager
def bar(title: str, total: int) -> Iterator[Bar]:
    """Show progress of ``total`` pieces of work while the block runs."""
    if not sys.stdout.isatty():
        yield Bar(title, total, None)
        return
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(),
    )
    with progress:
        task = progress.add_task(title, total=total, note="")
        yield Bar(title, total, (progress, task))
