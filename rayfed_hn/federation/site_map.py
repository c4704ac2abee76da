"""The sites as the server sees them at the end: embeddings, personal parts and what lies between.

A site's personal part is its network minus the mean network of all sites; the distance between two
personal parts is that between the networks. All of it is relative to the norm of the mean network.

Shapes: K sites, M of them on the map, P parameters, E embedding. Networks are made anew when they
are needed, so that at most two blocks of them are held, whatever K is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.federation.rules.base import Rule, SiteEmbeddings
from rayfed_hn.federation.server import Server
from rayfed_hn.files import write_text
from rayfed_hn.saving import saving

FILE = "site_map.json"
MAX_MAPPED = 200  # sites with distances to each other; of more, a sample
BLOCK_BYTES = 256 * 2**20  # of float32 networks in one block
_COLUMNS = 2**16  # parameters that are in float64 at a time
_ROUNDING = 1e-6  # of the mean network's norm: what float32 leaves between equal networks
_DIGITS = 6  # significant ones in the file


@dataclass(frozen=True, eq=False)
class Plane:
    """Sites as points of a plane.

    Attributes:
        points_M2: float64 (M, 2), around the origin.
        share: Of the variance of all dimensions, what these two keep; 0 to 1.
    """

    points_M2: np.ndarray
    share: float


@dataclass(frozen=True, eq=False)
class SiteMap:
    """What the server holds of the sites.

    Attributes:
        sites: Names of all K sites.
        mapped: Numbers of the M sites that distances, the plane and embeddings are of.
        mean_norm: Norm of the mean network.
        personal_K: Norms of the personal parts, float64 (K,); in units of ``mean_norm``
            (of 1 where that is 0).
        distances_MM: Between networks, float64 (M, M), likewise. None where nothing is personal or
            networks are not finite.
        plane: A map of these distances; None where they are.
        embeddings: Rows of the mapped sites; None where the method has none.
    """

    sites: tuple[str, ...]
    mapped: tuple[int, ...]
    mean_norm: float
    personal_K: np.ndarray
    distances_MM: np.ndarray | None
    plane: Plane | None
    embeddings: SiteEmbeddings | None


def write_site_map(folder: Path, server: Server) -> SiteMap:
    """Write ``site_map.json`` of a server's last version into a run directory; returns it."""
    found = make_site_map(server.rule, server.sites)
    values = _as_json(found)
    with saving(folder / FILE):
        write_text(folder / FILE, json.dumps(values, allow_nan=False) + "\n")
    return found


def make_site_map(rule: Rule, sites: Sequence[str]) -> SiteMap:
    """Compare what a rule holds for the sites now.

    Args:
        rule: Its networks are those that sites receive, before any gate and any private layer.
        sites: Names in the rule's order.
    """
    count = len(sites)
    mapped = spaced(count, MAX_MAPPED)
    others = sorted(set(range(count)) - set(mapped))
    parts = [_Networks(rule, numbers) for numbers in (mapped, others) if numbers]
    mean_P = torch.stack([part.total() for part in parts]).sum(dim=0) / count
    mean_norm = float(mean_P.norm())
    products_MM = parts[0].products(mean_P)
    personal_K = np.zeros(count)
    personal_K[list(mapped)] = products_MM.diagonal().sqrt().numpy()
    if others:
        personal_K[others] = parts[1].norms(mean_P).numpy()
    unit = mean_norm or 1.0
    personal_K /= unit
    distances_MM = plane = None
    if np.isfinite(personal_K).all() and personal_K.max() > _ROUNDING:
        distances_MM = _distances(products_MM) / unit
        plane = classical_scaling(distances_MM)
    return SiteMap(
        tuple(sites), mapped, mean_norm, personal_K, distances_MM, plane, _embeddings(rule, mapped)
    )


def spaced(count: int, limit: int) -> tuple[int, ...]:
    """At most ``limit`` of the numbers 0 to ``count`` - 1, evenly spaced, both ends included."""
    if count <= limit:
        return tuple(range(count))
    return tuple(np.linspace(0, count - 1, limit).round().astype(int).tolist())


def classical_scaling(distances_MM: np.ndarray) -> Plane:
    """Classical multidimensional scaling (Torgerson 1952) to two dimensions.

    The eigenvectors of -1/2 J D^2 J, scaled by the roots of their eigenvalues. Of each direction,
    the outermost point is on the positive side; of several, the first.

    Args:
        distances_MM: Symmetric, finite, with zeros on the diagonal.
    """
    count = len(distances_MM)
    centre = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(-0.5 * centre @ np.square(distances_MM) @ centre)
    values = values.clip(min=0)
    points_M2 = np.zeros((count, 2))
    for axis, at in enumerate(range(count - 1, max(count - 3, -1), -1)):
        points_M = vectors[:, at] * np.sqrt(values[at])
        sizes = np.abs(points_M)
        # Two points at the same distance must not swap sides because of the last bit.
        outermost = int(np.argmax(sizes >= sizes.max() * (1 - 1e-6)))
        points_M2[:, axis] = points_M if points_M[outermost] >= 0 else -points_M
    total = float(values.sum())
    return Plane(points_M2, float(values[-2:].sum()) / total if total > 0 else 1.0)


class _Networks:
    """The networks of some sites, a block at a time; the last two blocks are kept."""

    def __init__(self, rule: Rule, numbers: Sequence[int]) -> None:
        self._rule, self._size = rule, rule.parameters_for(numbers[0]).size
        rows = max(1, BLOCK_BYTES // (4 * self._size))
        self._count = len(numbers)
        self._blocks = [numbers[at : at + rows] for at in range(0, self._count, rows)]
        self._spans = [slice(at, at + rows) for at in range(0, self._count, rows)]
        self._block = lru_cache(maxsize=2)(self._make)

    def _make(self, number: int) -> Tensor:
        """Networks of one block, float32 (B, P)."""
        block = np.empty((len(self._blocks[number]), self._size), np.float32)
        for row, site in enumerate(self._blocks[number]):
            block[row] = self._rule.parameters_for(site)
        return torch.from_numpy(block)

    def total(self) -> Tensor:
        """Their sum, float64 (P,)."""
        total_P = torch.zeros(self._size, dtype=torch.float64)
        for number in range(len(self._blocks)):
            for network_P in self._block(number):
                total_P += network_P
        return total_P

    def norms(self, mean_P: Tensor) -> Tensor:
        """Of networks minus the mean, float64 (S,)."""
        found = []
        for number in range(len(self._blocks)):
            found += [(network_P.double() - mean_P).norm() for network_P in self._block(number)]
        return torch.stack(found)

    def products(self, mean_P: Tensor) -> Tensor:
        """Inner products of networks minus the mean, float64 (S, S)."""
        found_SS = torch.zeros(self._count, self._count, dtype=torch.float64)
        for i, rows in enumerate(self._spans):
            for j, columns in enumerate(self._spans[: i + 1]):
                block = _products(self._block(i), self._block(j), mean_P)
                found_SS[rows, columns] = block
                found_SS[columns, rows] = block.T
        return found_SS


def _products(left_AP: Tensor, right_BP: Tensor, mean_P: Tensor) -> Tensor:
    total_AB = torch.zeros(len(left_AP), len(right_BP), dtype=torch.float64)
    for at in range(0, len(mean_P), _COLUMNS):
        span = slice(at, at + _COLUMNS)
        left = left_AP[:, span].double() - mean_P[span]
        total_AB += left @ (right_BP[:, span].double() - mean_P[span]).T
    return total_AB


def _distances(products_MM: Tensor) -> np.ndarray:
    """From inner products; what lies below 1e-8 of the norms is rounding."""
    squares_M = products_MM.diagonal()
    squares_MM = squares_M[:, None] + squares_M[None, :] - products_MM - products_MM.T
    distances_MM = squares_MM.clamp(min=0).sqrt().numpy()
    np.fill_diagonal(distances_MM, 0.0)
    return distances_MM


def _embeddings(rule: Rule, mapped: Sequence[int]) -> SiteEmbeddings | None:
    found = rule.site_embeddings()
    if found is None or not np.isfinite(found.rows_KE).all():
        return None
    return replace(found, rows_KE=found.rows_KE[list(mapped)])


def _as_json(site_map: SiteMap) -> dict[str, Any]:
    plane, distances_MM = site_map.plane, site_map.distances_MM
    return {
        "unit": "norm of the mean network",
        "sites": list(site_map.sites),
        "mapped": [site_map.sites[number] for number in site_map.mapped],
        "mean_norm": _rounded(site_map.mean_norm),
        "personal": _rounded(site_map.personal_K),
        "distances": None if distances_MM is None else _rounded(distances_MM),
        "map": plane and {"points": _rounded(plane.points_M2), "share": _rounded(plane.share)},
        "embeddings": None if site_map.embeddings is None else _embedded(site_map.embeddings),
    }


def _embedded(embeddings: SiteEmbeddings) -> dict[str, Any]:
    rows = torch.from_numpy(embeddings.rows_KE)
    distances_MM = _distances(rows @ rows.T)
    apart = distances_MM[~np.eye(len(rows), dtype=bool)]
    equal = bool(len(apart)) and float(np.ptp(apart)) <= _ROUNDING * float(apart.max())
    return {
        "learned": embeddings.learned,
        "by_chance": embeddings.by_chance,
        "equally_far": equal,
        "rows": _rounded(embeddings.rows_KE),
        "distances": _rounded(distances_MM),
    }


def _rounded(values: Any) -> Any:
    """Numbers and arrays for JSON; what is not finite becomes null."""
    if isinstance(values, np.ndarray) and values.ndim:
        return [_rounded(value) for value in values]
    return float(f"{values:.{_DIGITS}g}") if np.isfinite(values) else None
