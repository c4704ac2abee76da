"""A server between two versions, as a commit has it and as it goes on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.errors import DataError
from rayfed_hn.federation.commits import Commit
from rayfed_hn.federation.messages import SiteLost, Update
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.versions import Asked, InFlight

_SENT = "in_flight."  # networks that were sent: tensors in_flight.<number>


def about_server(server: Server) -> dict[str, Any]:
    """Who is away or was lost, and how; ready for JSON."""
    return {
        "away": [asdict(loss) for loss in server.away.values()],
        "lost": [asdict(loss) for loss in server.lost],
        "lost_before": [asdict(loss) for loss in server.lost_before],
    }


def networks_of(server: Server) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Networks in flight, each of them once, and the requests that they were sent with."""
    numbers: dict[str, int] = {}
    seen: dict[int, str] = {}  # a network that many were sent is looked at once
    tensors: dict[str, Tensor] = {}
    requests: list[dict[str, Any]] = []
    for one in server.in_flight():
        if id(one.network) not in seen:
            seen[id(one.network)] = _sha256(one.network)
        digest = seen[id(one.network)]
        if digest not in numbers:
            numbers[digest] = len(numbers)
            tensors[f"{_SENT}{numbers[digest]}"] = torch.tensor(one.network)
        requests.append({"site": one.site, **asdict(one.asked), "network": numbers[digest]})
    return tensors, requests


def resume_server(server: Server, commit: Commit) -> list[str]:
    """Put a server where it was.

    Under the simulated clock, sites that are away come back when they would have. All others that
    were lost may be well again by now.

    Returns:
        The lost sites that are asked again.

    Raises:
        DataError: The commit is of another federation.
    """
    about = commit.about
    in_flight = [_in_flight(commit, **request) for request in about["in_flight"]]
    own = {k: v for k, v in commit.tensors.items() if not k.startswith(_SENT)}
    lost = [SiteLost(**loss) for loss in (*about["lost_before"], *about["lost"])]
    away = [SiteLost(**loss) for loss in about["away"]]
    expected = [loss for loss in away if loss.returns and about["clock"]]
    if unknown := {x.site for x in (*in_flight, *away)} - set(server.sites):
        raise DataError(
            f"checkpoint: it has site {min(unknown)}, which is none of this run; it belongs to "
            "another federation"
        )
    server.resume(own, commit.version, lost, in_flight, expected)
    return sorted({loss.site for loss in away} - {loss.site for loss in expected})


def _in_flight(commit: Commit, site: str, network: int, **asked: int) -> InFlight:
    vector = commit.tensors[f"{_SENT}{network}"].numpy()
    return InFlight(site, Asked(**asked), vector)


def update_digests(updates: Sequence[Update]) -> list[dict[str, Any]]:
    """What a version was made of: every update with its SHA-256."""
    return [
        {"site": u.site, "version": u.version, "turn": u.turn, "sha256": _sha256(u.update)}
        for u in updates
    ]


def _sha256(vector: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(vector).data).hexdigest()
