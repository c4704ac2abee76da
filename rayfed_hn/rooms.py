"""Which node of a cluster has room for which process: counted, before anything is started."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

_EXACT = 6  # digits to which room is counted: 1 - 0.9 is less than 0.1 to a computer


@dataclass(frozen=True)
class Node:
    """What a node has.

    Attributes:
        name: Its address, for people.
        cpus: Cores.
        gpus: Whole GPUs.
        resources: Custom resources by name.
        labels: What it is called.
        id: What the cluster knows it by.
    """

    name: str
    cpus: float
    gpus: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True)
class Ask:
    """What a process asks of its node.

    Attributes:
        cpus: Cores, or a fraction of one.
        gpus: Fraction of one GPU.
        resources: Custom resources by name.
        labels: Which its node must have.
    """

    cpus: float
    gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def pinned(self) -> bool:
        """Whether only some nodes will do."""
        return bool(self.resources or self.labels)

    def may_live_on(self, node: Node) -> bool:
        """Whether a node is one of those, however full it is."""
        labelled = all(node.labels.get(key) == value for key, value in self.labels.items())
        return labelled and all(node.resources.get(name) for name in self.resources)


def fit(asks: Sequence[Ask], nodes: Sequence[Node]) -> list[int | None]:
    """The number of a node for each process, all at once; None for those without room.

    Who is pinned comes first, then the others in order. Each takes the place that costs the last
    one's kind the least: exact where all that are not pinned are of one kind, but for a few before.
    """
    rooms = [_Room(node.cpus, [1.0] * node.gpus, dict(node.resources)) for node in nodes]
    found: list[int | None] = [None] * len(asks)
    if not asks:
        return found
    order = sorted(range(len(asks)), key=lambda i: not asks[i].pinned)
    kind = asks[order[-1]]
    for number in order:
        ask = asks[number]
        places = [
            (room.cost(ask, gpu, kind), i, gpu)
            for i, room in enumerate(rooms)
            if ask.may_live_on(nodes[i])
            for gpu in room.gpus_for(ask)
        ]
        if places:
            _, best, gpu = min(places)
            rooms[best].take(ask, gpu)
            found[number] = best
    return found


def shares(nodes: Sequence[Node], most: float, count: int) -> list[float]:
    """Fractions of a core that so many processes could have each, the largest first."""
    parts = {node.cpus / k for node in nodes for k in range(1, count + 1)}
    below = {math.floor(1000 * part) / 1000 for part in parts if part < most}
    return [most, *sorted((part for part in below if part > 0), reverse=True)]


def largest(
    nodes: Sequence[Node], most: float, count: int, asks_of: Callable[[float], Sequence[Ask]]
) -> float | None:
    """The largest fraction of a core with which all find room; None: not even the smallest.

    Args:
        nodes: Of the cluster.
        most: It is no larger.
        count: Of processes.
        asks_of: From a fraction to what all of them ask for.
    """
    tried = shares(nodes, most, count)
    low, high = 0, len(tried)
    while low < high:
        middle = (low + high) // 2
        if None in fit(asks_of(tried[middle]), nodes):
            low = middle + 1
        else:
            high = middle
    return tried[low] if low < len(tried) else None


@dataclass
class _Room:
    """What is left of a node; GPUs one by one, as a fraction is of one of them."""

    cpus: float
    gpus: list[float]
    resources: dict[str, float]

    def gpus_for(self, ask: Ask) -> list[int | None]:
        """The GPUs on which there is room; [None] if none is asked for, empty if there is none."""
        enough = all(self.resources.get(n, 0) >= v for n, v in ask.resources.items())
        if not enough or _times(self.cpus, ask.cpus) < 1:
            return []
        if not ask.gpus:
            return [None]
        return [i for i, free in enumerate(self.gpus) if _times(free, ask.gpus) >= 1]

    def capacity(self, ask: Ask) -> float:
        """How many of a kind have room, wherever they are pinned to."""
        on_gpus = sum(_times(free, ask.gpus) for free in self.gpus) if ask.gpus else math.inf
        return min(_times(self.cpus, ask.cpus), on_gpus)

    def cost(self, ask: Ask, gpu: int | None, kind: Ask) -> tuple[float, bool, float]:
        """What a place costs: room for others, then a node with GPUs, then the emptier node."""
        after = _Room(self.cpus, list(self.gpus), dict(self.resources))
        after.take(ask, gpu)
        lost = self.capacity(kind) - after.capacity(kind)
        return lost, bool(self.gpus) and not ask.gpus, after.cpus

    def take(self, ask: Ask, gpu: int | None) -> None:
        self.cpus -= ask.cpus
        if gpu is not None:
            self.gpus[gpu] -= ask.gpus
        for name, value in ask.resources.items():
            self.resources[name] -= value


def _times(room: float, each: float) -> float:
    return math.floor(round(room / each, _EXACT)) if each else math.inf
