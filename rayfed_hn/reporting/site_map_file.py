"""``site_map.json`` of a training run, checked: the sites as the server sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rayfed_hn.reporting.run_files import read_optional


@dataclass(frozen=True, eq=False)
class Embedded:
    """The embeddings of the sites on the map.

    Attributes:
        learned: Whether training moves them.
        by_chance: Whether they began as random draws of which some were closer than others.
        equally_far: Whether all are equally far apart.
        distances_MM: float64 (M, M).
    """

    learned: bool
    by_chance: bool
    equally_far: bool
    distances_MM: np.ndarray


@dataclass(frozen=True, eq=False)
class SeenSites:
    """What the server holds of the sites; in units of the norm of their mean network.

    Attributes:
        sites: Names of all sites.
        mapped: Names of those on the map, M of them.
        personal: Norm of every site's personal part; None where it is not finite.
        distances_MM: Between networks, float64 (M, M); None where nothing is personal.
        points_M2: The map, float64 (M, 2).
        share: Of the variance, what the map keeps.
        embeddings: None where the method has none.
    """

    sites: tuple[str, ...]
    mapped: tuple[str, ...]
    personal: Mapping[str, float | None]
    distances_MM: np.ndarray | None
    points_M2: np.ndarray
    share: float
    embeddings: Embedded | None


def read_site_map(folder: Path) -> SeenSites | None:
    """Read the file of a run directory; None if there is none.

    Raises:
        DataError: The file is broken; says what to do.
    """
    return read_optional(folder / "site_map.json", _parse)


def _parse(values: Any) -> SeenSites:
    sites, mapped = _names(values["sites"]), _names(values["mapped"])
    if not set(mapped) <= set(sites):
        raise ValueError("'mapped' names other sites than 'sites'")
    personal = [None if value is None else float(value) for value in values["personal"]]
    count, plane = len(mapped), values["map"]
    seen = values["distances"] is not None
    if seen != (plane is not None):
        raise ValueError("of 'map' and 'distances' one is missing")
    return SeenSites(
        sites,
        mapped,
        dict(zip(sites, personal, strict=True)),
        _distances(values["distances"], count) if seen else None,
        _numbers(plane["points"], (count, 2)) if seen else np.zeros((count, 2)),
        float(_numbers(plane["share"], ())) if seen else 0.0,
        _embedded(values["embeddings"], count),
    )


def _embedded(values: Any, count: int) -> Embedded | None:
    if values is None or count < 2:  # one site is as far from nobody
        return None
    distances_MM = _distances(values["distances"], count)
    flags = {name: bool(values[name]) for name in ("learned", "by_chance", "equally_far")}
    return Embedded(**flags, distances_MM=distances_MM)


def _names(values: Sequence[Any]) -> tuple[str, ...]:
    names = tuple(map(str, values))
    if not names or len(set(names)) != len(names):
        raise ValueError("names of sites are missing or appear twice")
    return names


def _distances(values: Any, count: int) -> np.ndarray:
    found_MM = _numbers(values, (count, count))
    if count < 2 or (found_MM < 0).any():
        raise ValueError("distances are negative or of one site")
    return found_MM


def _numbers(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    found = np.array(values, float)
    if found.shape != shape or not np.isfinite(found).all():
        raise ValueError(f"expected finite numbers of shape {shape}, found shape {found.shape}")
    return found
