"""Which sites live together on an actor, and what actors ask of the cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from rayfed_hn.config import Config, ResourcesConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.orchestration.resources import num_cpus

OWN_ACTORS = 16  # so many sites have an actor each in any case
ACTOR_BYTES = 2**28  # of a process that has imported torch
PINNED = 0.001  # of a site's own resource: that there is some is what counts


@dataclass(frozen=True)
class Cluster:
    """What there is.

    Attributes:
        cpus: Cores that the run may use.
        gpus: Whole GPUs.
        memory_bytes: For processes, all nodes together.
        resources: Custom resources by name.
        labels: Labels of every node.
    """

    cpus: int
    gpus: int = 0
    memory_bytes: float = math.inf
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Sequence[Mapping[str, str]] = ()

    @classmethod
    def joined(cls, config: Config) -> Cluster:
        """The cluster that this process has joined."""
        found = ray.cluster_resources()
        return cls(
            num_cpus(config),
            int(found.get("GPU", 0)),
            found.get("memory", math.inf),
            found,
            [node.get("Labels") or {} for node in ray.nodes() if node["Alive"]],
        )


@dataclass(frozen=True)
class Place:
    """One actor.

    Attributes:
        sites: Who lives there; nobody on the central one.
        options: What it asks Ray for, as ``Actor.options`` takes it.
    """

    sites: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def gpus(self) -> float:
        """Its GPU fraction."""
        return self.options["num_gpus"]


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
    def host_of(self) -> dict[str, int]:
        """Number of the host that each site lives on."""
        return {site: i for i, place in enumerate(self.hosts) for site in place.sites}


def pack(config: Config, sites: Sequence[str], cluster: Cluster) -> Packing:
    """Spread sites over actors.

    Raises:
        ConfigError: The GPU fractions do not fit, or no node is for a site; says what would.
    """
    resources = config.resources
    pins = [_pin(resources, site) for site in sites]
    pinned = any(pins)
    count = len(sites) if pinned else _num_hosts(resources, len(sites), cluster)
    if pinned:
        _check_pins(resources, sites, cluster)
    _check_gpus(resources, count, cluster)
    cpus = cluster.cpus
    each = 1.0 if cpus > count else int(1000 * cpus / (count + 1)) / 1000
    asked = {"num_cpus": each, "num_gpus": resources.gpus_per_site}
    hosts = [Place(tuple(sites[i::count]), asked | pins[i]) for i in range(count)]
    centre = {"num_cpus": each, "num_gpus": resources.gpus_for_server}
    return Packing(tuple(hosts), Place((), centre))


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
            "has no GPU; set both to 0 (CPU only)"
        )
    places = _places(each, server, gpus, count)
    if places >= count:
        return
    fits = max(n / 100 for n in range(100) if _places(n / 100, server, gpus, count) >= count)
    raise ConfigError(
        f"resources.gpus_per_site: {count} site actors with {each:g} GPU each"
        + (f" and the server with {server:g}" if server else "")
        + f" do not fit on the cluster's {gpus} GPUs, which take {places}; try "
        f"resources.gpus_per_site={fits:g}{'' if fits else ' (CPU only)'}, or more sites an actor "
        "with resources.sites_per_actor"
    )


def _places(each: float, server: float, gpus: int, count: int) -> int:
    """Site actors that GPUs have room for, beside the server on the first."""
    if not each:
        return count
    return sum(
        math.floor(round((1 - (server if gpu == 0 else 0)) / each, 6)) for gpu in range(gpus)
    )


def _pin(resources: ResourcesConfig, site: str) -> dict[str, Any]:
    """What an actor asks for so that it is started where its site's bags are."""
    pin: dict[str, Any] = {}
    if resources.pin_label is not None:
        pin["label_selector"] = {resources.pin_label: site}
    if resources.pin_resource is not None:
        pin["resources"] = {resources.pin_resource + site: PINNED}
    return pin


def _check_pins(resources: ResourcesConfig, sites: Sequence[str], cluster: Cluster) -> None:
    """An actor that no node is for would wait for ever."""
    label, prefix = resources.pin_label, resources.pin_resource
    if resources.sites_per_actor not in (None, 1):
        raise ConfigError(
            f"resources.sites_per_actor: got {resources.sites_per_actor}, but sites that are "
            "pinned to nodes have an actor each; leave it out"
        )
    if label is not None:
        there = {labels.get(label) for labels in cluster.labels}
        away = [site for site in sites if site not in there]
        _missing("label", f"{label}=", away, "--labels={}")
    if prefix is not None:
        away = [site for site in sites if not cluster.resources.get(prefix + site)]
        _missing("resource", prefix, away, """--resources='{{"{}": 1}}'""")


def _missing(kind: str, prefix: str, sites: Sequence[str], option: str) -> None:
    if sites:
        first, others = prefix + sites[0], len(sites) - 1
        raise ConfigError(
            f"resources.pin_{kind}: no node has the {kind} {first}"
            + (f" (nor those of {others} other sites)" if others else "")
            + "; start that hospital's node with it: ray start --address=... "
            + option.format(first)
        )
