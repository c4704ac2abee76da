"""Which sites live together on an actor, and what actors ask of the cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayfed_hn.config import Config, ResourcesConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.orchestration.resources import num_cpus
from rayfed_hn.rooms import Ask, Node, fit, largest

OWN_ACTORS = 16  # so many sites have an actor each in any case
ACTOR_BYTES = 2**28  # of a process that has imported torch
PINNED = 0.001  # of a site's own resource: that there is some is what counts


@dataclass(frozen=True)
class Cluster:
    """What there is.

    Attributes:
        cpus: Cores that the run may use.
        nodes: All of them.
        memory_bytes: For processes, all nodes together.
        held: Cores and GPUs that others have just now.
    """

    cpus: int
    nodes: Sequence[Node]
    memory_bytes: float = math.inf
    held: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def joined(cls, config: Config) -> Cluster:
        """The cluster that this process has joined."""
        nodes = [_node(found) for found in ray.nodes() if found["Alive"]]
        there, free = ray.cluster_resources(), ray.available_resources()
        cpus, gpus = (there.get(name, 0.0) - free.get(name, 0.0) for name in ("CPU", "GPU"))
        return cls(num_cpus(config), nodes, there.get("memory", math.inf), (cpus, gpus))

    @property
    def gpus(self) -> int:
        """Whole GPUs."""
        return sum(node.gpus for node in self.nodes)

    @property
    def all_cpus(self) -> float:
        """Cores, whether the run may use them or not."""
        return sum(node.cpus for node in self.nodes)


def _node(found: Mapping[str, Any]) -> Node:
    there = found["Resources"]
    return Node(
        found["NodeManagerAddress"],
        there.get("CPU", 0.0),
        int(there.get("GPU", 0)),
        {name: value for name, value in there.items() if name not in ("CPU", "GPU")},
        found.get("Labels") or {},
        found["NodeID"],
    )


@dataclass(frozen=True)
class Place:
    """One actor.

    Attributes:
        sites: Who lives there; nobody on the central one.
        options: What it asks Ray for, as ``Actor.options`` takes it.
        node: One that has room for it beside all others; None: there is none yet.
    """

    sites: tuple[str, ...]
    options: Mapping[str, Any]
    node: Node | None = None

    @property
    def gpus(self) -> float:
        """Its GPU fraction."""
        return self.options["num_gpus"]

    @property
    def ask(self) -> Ask:
        """The same, to be counted."""
        pin = self.options.get("resources", {}), self.options.get("label_selector", {})
        return Ask(self.options["num_cpus"], self.gpus, *pin)

    @property
    def start(self) -> dict[str, Any]:
        """Its options, and that it is rather started on its node than on one that others need."""
        if self.node is None or self.ask.pinned:
            return dict(self.options)
        rather = NodeAffinitySchedulingStrategy(self.node.id, soft=True, _spill_on_unavailable=True)
        return {**self.options, "scheduling_strategy": rather}


@dataclass(frozen=True)
class Packing:
    """All actors of a run, which must fit at once: they keep what they ask for.

    Attributes:
        hosts: Of the sites.
        centre: Of the server.
    """

    hosts: tuple[Place, ...]
    centre: Place

    @property
    def places(self) -> tuple[Place, ...]:
        """All of them, the central one first."""
        return (self.centre, *self.hosts)

    @property
    def host_of(self) -> dict[str, int]:
        """Number of the host that each site lives on."""
        return {site: i for i, place in enumerate(self.hosts) for site in place.sites}


def pack(config: Config, sites: Sequence[str], cluster: Cluster) -> Packing:
    """Spread sites over actors.

    Raises:
        ConfigError: The GPU fractions do not fit, or no node is for a site; says what would.
    """
    resources = config.resources
    pins = [pin(resources, site) for site in sites]
    pinned = any(pins)
    count = len(sites) if pinned else _num_hosts(resources, len(sites), cluster)
    if pinned:
        check_pins(resources, sites, cluster)
    if not resources.autoscaling and not pinned:  # what is pinned is counted node by node below
        _check_gpus(resources, count, cluster)

    def packed(each: float) -> Packing:
        asked = {"num_cpus": each, "num_gpus": resources.gpus_per_site}
        hosts = [Place(tuple(sites[i::count]), asked | pins[i]) for i in range(count)]
        centre = {"num_cpus": each, "num_gpus": resources.gpus_for_server}
        return Packing(tuple(hosts), Place((), centre))

    if resources.autoscaling:  # nodes are made for what is asked for
        return packed(1.0)
    cpus = cluster.cpus
    most = 1.0 if cpus > count else int(1000 * cpus / (count + 1)) / 1000
    each = largest(cluster.nodes, most, count + 1, lambda share: _asks(packed(share)))
    if each is None:
        raise ConfigError(_no_room(packed(most), cluster))
    return _placed(packed(each), cluster)


def _asks(packing: Packing) -> list[Ask]:
    return [place.ask for place in packing.places]


def _placed(packing: Packing, cluster: Cluster) -> Packing:
    """The same with a node for each actor, as there is when nothing else runs on the cluster."""
    found = fit(_asks(packing), cluster.nodes)
    centre, *hosts = (
        replace(place, node=None if number is None else cluster.nodes[number])
        for place, number in zip(packing.places, found, strict=True)
    )
    return Packing(tuple(hosts), centre)


def _no_room(packing: Packing, cluster: Cluster) -> str:
    """Why a run is refused whose actors fit in sum, but not node by node."""
    place = next(place for place in _placed(packing, cluster).places if place.node is None)
    who = f"the actor of {', '.join(place.sites[:3])}" if place.sites else "the server's actor"
    nodes = [node for node in cluster.nodes if place.ask.may_live_on(node)]
    there = "; ".join(f"{n.name} has {n.cpus:g} CPUs and {n.gpus} GPUs" for n in nodes[:5])
    asked = f"{place.options['num_cpus']:g} CPU" + (f" and {place.gpus:g} GPU" * bool(place.gpus))
    remedy = "start the nodes with more, or take fewer with resources.sites_per_actor"
    if place.gpus:
        knob = "gpus_per_site" if place.sites else "gpus_for_server"
        remedy = f"give it less with resources.{knob} (0: CPU only), or its node a GPU"
    return (
        f"resources: no room for all {len(packing.places)} actors at once: {who} asks for {asked} "
        f"on one node, and all that it may live on are full or too small ({there}); {remedy}, or "
        "set resources.autoscaling=true if the cluster adds nodes by itself"
    )


def _num_hosts(resources: ResourcesConfig, num_sites: int, cluster: Cluster) -> int:
    if resources.sites_per_actor is not None:
        return math.ceil(num_sites / resources.sites_per_actor)
    room = max(1, int(min(cluster.memory_bytes / 2 / ACTOR_BYTES, num_sites)))
    if num_sites <= min(room, max(OWN_ACTORS, cluster.cpus)):
        return num_sites  # what happens to an actor happens to one site only
    return min(room, cluster.cpus)


def _check_gpus(resources: ResourcesConfig, count: int, cluster: Cluster) -> None:
    """Actors take their fraction from a single GPU each."""
    each, server, gpus = resources.gpus_per_site, resources.gpus_for_server, cluster.gpus
    if not each and not server:
        return
    if gpus == 0:
        raise ConfigError(
            f"resources.gpus_per_site={each:g}, resources.gpus_for_server={server:g}: the cluster "
            "has no GPU; set both to 0 (CPU only), start a node with one, or set "
            "resources.autoscaling=true if the cluster adds nodes by itself"
        )
    places = _places(each, server, gpus, count)
    if places >= count:
        return
    fits = max(n / 100 for n in range(100) if _places(n / 100, server, gpus, count) >= count)
    raise ConfigError(
        f"resources.gpus_per_site: {count} site actors with {each:g} GPU each"
        + (f" and the server with {server:g}" if server else "")
        + f" do not fit on the cluster's {gpus} GPUs, which take {places}; try "
        f"resources.gpus_per_site={fits:g}{'' if fits else ' (CPU only)'}, more sites an actor "
        "with resources.sites_per_actor, more nodes, or resources.autoscaling=true if the cluster "
        "adds them by itself"
    )


def _places(each: float, server: float, gpus: int, count: int) -> int:
    """Site actors that GPUs have room for, beside the server on the first."""
    if not each:
        return count
    return sum(
        math.floor(round((1 - (server if gpu == 0 else 0)) / each, 6)) for gpu in range(gpus)
    )


def pin(resources: ResourcesConfig, site: str) -> dict[str, Any]:
    """What an actor asks for so that it is started where its site's bags are."""
    pin: dict[str, Any] = {}
    if resources.pin_label is not None:
        pin["label_selector"] = {resources.pin_label: site}
    if resources.pin_resource is not None:
        pin["resources"] = {resources.pin_resource + site: PINNED}
    return pin


def check_pins(resources: ResourcesConfig, sites: Sequence[str], cluster: Cluster) -> None:
    """See to it that there is a node for every site that is pinned to one.

    Raises:
        ConfigError: There is none; the site's actor would wait for ever.
    """
    label, prefix = resources.pin_label, resources.pin_resource
    if resources.sites_per_actor not in (None, 1):
        raise ConfigError(
            f"resources.sites_per_actor: got {resources.sites_per_actor}, but sites that are "
            "pinned to nodes have an actor each; leave it out"
        )
    if resources.autoscaling:
        return
    if label is not None:
        there = {node.labels.get(label) for node in cluster.nodes}
        away = [site for site in sites if site not in there]
        _missing("label", f"{label}=", away, "--labels={}")
    if prefix is not None:
        there = {name for node in cluster.nodes for name, value in node.resources.items() if value}
        away = [site for site in sites if prefix + site not in there]
        _missing("resource", prefix, away, """--resources='{{"{}": 1}}'""")


def _missing(kind: str, prefix: str, sites: Sequence[str], option: str) -> None:
    if sites:
        first, others = prefix + sites[0], ", ".join(sites[1:])
        raise ConfigError(
            f"resources.pin_{kind}: no node has the {kind} {first}"
            + (f" (nor that of {others})" if others else "")
            + "; start that hospital's node with it: ray start --address=... "
            + option.format(first)
        )
