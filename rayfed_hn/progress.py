"""Progress of long work: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 5.0  # a log gets a line at most this often


@dataclass
class Bar:
    """Progress of one piece of work."""

    title: str
    total: int
    _rich: tuple[Progress, Any] | None
    _started: float = field(default_factory=time.monotonic)
    _printed: float = 0.0

    def update(self, done: int, note: str = "") -> None:
        """Say how far it is, with a short note such as the last validation AUC."""
        if self._rich is not None:
            progress, task = self._rich
            progress.update(task, completed=done, note=note)
            return
        now = time.monotonic()
        if done < self.total and now - self._printed < LINE_SECONDS:
            return
        self._printed = now
        left = (now - self._started) / done * (self.total - done) if done else None
        ending = f", about {left:.0f} s left" if left else ""
        print(f"{self.title}: {done}/{self.total}{ending}{'  ' + note if note else ''}", flush=True)


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
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(),
    )
    with progress:
        yield Bar(title, total, (progress, progress.add_task(title, total=total, note="")))
