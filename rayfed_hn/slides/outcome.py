"""What became of the slides of a manifest."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rayfed_hn.files import write_text

Status = Literal["embedded", "skipped", "set_aside"]


@dataclass(frozen=True)
class SlideOutcome:
    """What became of one slide.

    Attributes:
        slide_id: Name of the slide.
        site: The hospital that owns it.
        status: embedded now, skipped because it was there, or set aside.
        num_tiles: Instances in its bag; 0 if set aside.
        seconds: Time of the worker.
        reason: Why it was set aside.
        remedy: What the user can do about it.
        notes: What the user should know of a slide that was not set aside.
    """

    slide_id: str
    site: str
    status: Status
    num_tiles: int = 0
    seconds: float = 0.0
    reason: str = ""
    remedy: str = ""
    notes: tuple[str, ...] = ()


@dataclass
class EmbedReport:
    """What became of a manifest.

    Attributes:
        outcomes: One per slide of the manifest, in its order.
        pictures: Whether slides were drawn, with a page per site.
        strangers: slide_ids of bags in the store that the manifest does not name.
        seconds: Wall time of the whole.
    """

    outcomes: list[SlideOutcome] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    pictures: bool = False
    seconds: float = 0.0

    def count(self, status: Status) -> int:
        """Return the number of slides of this status."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def set_aside(self) -> list[SlideOutcome]:
        """The slides that cannot be used, each with reason and remedy."""
        return [outcome for outcome in self.outcomes if outcome.status == "set_aside"]

    @property
    def num_tiles(self) -> int:
        """Instances in all bags of this manifest."""
        return sum(outcome.num_tiles for outcome in self.outcomes)

    @property
    def bags_per_site(self) -> dict[str, int]:
        """Bags of this manifest at every site."""
        return dict(sorted(Counter(o.site for o in self.outcomes if o.num_tiles).items()))


def write_set_aside(path: Path, outcomes: Sequence[SlideOutcome]) -> None:
    """Write the table of slides that were set aside, in place of the one before, atomically."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["slide_id", "site", "reason", "remedy"])
    writer.writerows([o.slide_id, o.site, o.reason, o.remedy] for o in outcomes)
    write_text(path, table.getvalue())
