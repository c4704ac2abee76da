"""Clusters that there are not, to be counted on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rayfed_hn.orchestration.packing import Cluster
from rayfed_hn.rooms import Node


def one_node(
    cpus: int,
    gpus: int = 0,
    memory_bytes: float = math.inf,
    resources: Mapping[str, float] | None = None,
) -> Cluster:
    """All of it in one place."""
    return Cluster(cpus, [Node("here", cpus, gpus, resources or {})], memory_bytes)


def labelled(cpus: int, labels: Sequence[Mapping[str, str]]) -> Cluster:
    """A node for each of these, with so many cores; the run may use as many as one node has."""
    return Cluster(cpus, [Node(f"n{i}", cpus, labels=own) for i, own in enumerate(labels)])
