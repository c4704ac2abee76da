"""What methods take: bytes that are moved, and time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Record = Mapping[str, Any]


def costs_of(cells: Iterable[Record]) -> list[dict[str, Any]]:
    """Average what one training takes, by method and amount of noise.

    Args:
        cells: As ``run_cell`` returns them; those of older runs, without ``costs``, are left out.

    Returns:
        method, noise (if it was varied) and num_cells; of one training, mean over cells:
        num_versions, bytes_down (networks to sites), bytes_up (their answers), scoring included;
        bytes_down_per_version and bytes_up_per_version, without it; site_seconds (all updates that
        went into a version), seconds (of the cell, on the clock on the wall) and time (simulated;
        None in real time).
    """
    groups: dict[tuple[Any, ...], list[dict[str, float | None]]] = {}
    for cell in cells:
        if cell.get("costs"):
            about = cell["cell"]
            arm = (about["method"], *([about["noise"]] if "noise" in about else []))
            groups.setdefault(arm, []).append(_of_cell(cell))
    names = ("method", "noise")
    return [
        {**dict(zip(names, arm, strict=False)), "num_cells": len(found), **_means(found)}
        for arm, found in groups.items()
    ]


def _of_cell(cell: Record) -> dict[str, float | None]:
    costs = cell["costs"]
    versions: Sequence[Record] = costs["versions"]
    found: dict[str, float | None] = {"num_versions": len(versions)}
    for name in ("bytes_down", "bytes_up"):
        training = sum(version[name] for version in versions)
        found[name] = training + costs["scoring"][name]
        found[f"{name}_per_version"] = training / max(len(versions), 1)
    found["site_seconds"] = sum(record["seconds"] for record in cell["metrics"])
    return {**found, "seconds": costs["seconds"], "time": costs["time"]}


def _means(found: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for name in found[0]:
        known = [value for one in found if (value := one[name]) is not None]
        means[name] = float(np.mean(known)) if known else None
    return means
