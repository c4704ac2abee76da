"""What will run where, in lines for people, before anything of it is started."""

from __future__ import annotations

from collections.abc import Sequence

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.orchestration.packing import Cluster, Packing, Place, pack
from rayfed_hn.rooms import Node

MANY = 24  # actors, of which not all are named any more


def of_training(config: Config, sites: Sequence[str]) -> list[str]:
    """Of the actors of one federation.

    Raises:
        ConfigError: They do not fit; says what would.
    """
    cluster = Cluster.joined(config)
    return of_packing(pack(config, sites, cluster), cluster)


def of_packing(packing: Packing, cluster: Cluster) -> list[str]:
    """Of actors that fit, or that an autoscaler is to make room for."""
    places = packing.places
    cpus = sum(place.options["num_cpus"] for place in places)
    gpus = sum(place.gpus for place in places)
    what = f"{len(places)} actors, {_asked(cpus, gpus)} together"
    if len(cluster.nodes) == 1 and places[0].node is not None:
        return [f"Placement: {what}, on one node that has {_has(cluster.nodes)}"]
    head = (
        f"Placement: {what}; {len(cluster.nodes)} nodes have {_has(cluster.nodes)}{_taken(cluster)}"
    )
    more = [f"  and {len(places) - MANY} more like these"] if len(places) > MANY else []
    return [head, *(_line(place) for place in places[:MANY]), *more]


def of_tasks(config: Config, count: int, what: str) -> list[str]:
    """Of processes with a core each that are started as others end.

    Raises:
        ConfigError: No node has a core.
    """
    cluster = Cluster.joined(config)
    at_a_time = min(count, cluster.cpus, sum(int(node.cpus) for node in cluster.nodes))
    if not at_a_time and count and not config.resources.autoscaling:
        raise ConfigError(
            f"resources: each of {count} {what} needs a node with 1 CPU, and no node has one; add "
            "nodes, or set resources.autoscaling=true if the cluster adds them by itself"
        )
    return [of_workers(count, what, at_a_time, 0.0, cluster)]


def of_workers(count: int, what: str, at_a_time: int, gpus: float, cluster: Cluster) -> str:
    """Of so many pieces of work, each on a core and a fraction of a GPU."""
    return (
        f"Placement: {count} {what}, {at_a_time} at a time with {_asked(1, gpus)} each; "
        f"{len(cluster.nodes)} node{'s' * (len(cluster.nodes) > 1)} with {_has(cluster.nodes)}"
        f"{_taken(cluster)}"
    )


def _taken(cluster: Cluster) -> str:
    """What others have of the cluster just now, for which a run would wait."""
    if not max(cluster.held):
        return ""
    return f", of which others hold {_asked(*cluster.held)} now"


def _line(place: Place) -> str:
    who = ", ".join(place.sites[:3]) or "server"
    who += f" and {len(place.sites) - 3} more sites" if len(place.sites) > 3 else ""
    asked = _asked(place.options["num_cpus"], place.gpus)
    pins = [f"{k}={v}" for k, v in place.options.get("label_selector", {}).items()]
    pins += list(place.options.get("resources", {}))
    if place.node is None:
        where = "a node that is still to come"
    else:
        where = place.node.name + ("" if pins else ", or wherever there is room")
    return f"  {who:28} {asked:20} {where}{f' ({pins[0]})' if pins else ''}"


def _asked(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")


def _has(nodes: Sequence[Node]) -> str:
    return _asked(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
