"""TensorBoard's files of verbs that draw nothing while they run; ``train`` writes its own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rayfed_hn.reporting.points import Point, points
from rayfed_hn.saving import saving

FOLDER = "tensorboard"


def write_curves(folder: Path, summary: Mapping[str, Any], below: str = "") -> None:
    """Write the curves of a finished run, each line as a run of TensorBoard's own.

    Args:
        folder: The run directory.
        summary: What was found.
        below: Where in its TensorBoard; what is there is replaced.
    """
    found: dict[str, list[Point]] = {}
    for point in points(folder, summary):
        found.setdefault(point.line, []).append(point)
    for line, own in found.items():
        with _writer(folder / FOLDER / below / _name(line)) as writer:
            for point in own:
                writer.add_scalar(point.tag, point.value, point.step)


def write_embedding(folder: Path, slides: Iterable[tuple[str, int, float]]) -> None:
    """Write how many tiles slides have, and how long they took, by site.

    Args:
        folder: The run directory.
        slides: Site, tiles and seconds of every slide that was embedded; no name is kept.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for site, tiles, seconds in slides:
        found.setdefault(site, []).append((tiles, seconds))
    if not found:
        return
    with _writer(folder / FOLDER / "embed") as writer:
        for site, own in found.items():
            writer.add_histogram(f"tiles of a slide/{site}", np.array([t for t, _ in own]), 0)
            writer.add_histogram(f"seconds of a slide/{site}", np.array([s for _, s in own]), 0)


def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    with saving(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return SummaryWriter(str(folder))


def _name(line: str) -> str:
    """Of a folder."""
    return re.sub(r"[^\w.,+-]+", "-", line).strip("-.") or "unnamed"
