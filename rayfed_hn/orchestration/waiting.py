"""Nothing waits for room for ever: neither actors nor work that is done piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from rayfed_hn.config import Config
from rayfed_hn.errors import NoRoom
from rayfed_hn.orchestration.packing import Cluster, Place

NAMED = 5  # of those who wait


@ray.remote(num_cpus=1, max_retries=-1)
def _is_there() -> None:
    """Answers once it has a place."""


_probe: Any = _is_there


def wait_for_start(
    config: Config, places: Sequence[Place], starting: Sequence[Any], together: Sequence[Place] = ()
) -> None:
    """Wait for what actors answer once they are there.

    Args:
        config: ``resources.start_limit``.
        places: Of the actors.
        starting: What each of them answers.
        together: All actors of the run, if there are more.

    Raises:
        NoRoom: They did not start in time; says who, and what may be the matter.
    """
    limit = config.resources.start_limit
    _, waiting = ray.wait(list(starting), num_returns=len(starting), timeout=limit)
    if not waiting:
        return
    cluster = Cluster.joined(config)
    late = [place for place, answer in zip(places, starting, strict=True) if answer in waiting]
    who = "; ".join(_who(place, cluster) for place in late[:NAMED])
    more = f"; and {len(late) - NAMED} more" if len(late) > NAMED else ""
    everybody = together or places
    raise NoRoom(
        f"{len(late)} of {len(starting)} actors found no room, or did not start, within "
        f"{limit:g} s (resources.start_limit): {who}{more}. All {len(everybody)} together need "
        f"{sum(place.options['num_cpus'] for place in everybody):g} CPU and "
        f"{sum(place.gpus for place in everybody):g} GPU at once. Start the nodes that are gone, "
        "wait for others ('ray status' shows what is taken) or add nodes, then give the same "
        "command again with run.resume=true; or ask for less (resources.sites_per_actor, "
        "resources.gpus_per_site)"
    )


def _who(place: Place, cluster: Cluster) -> str:
    name = ", ".join(place.sites[:3]) or "the server"
    if any(place.ask.may_live_on(node) for node in cluster.nodes):
        return name
    pins = [f"{k}={v}" for k, v in place.ask.labels.items()] or list(place.ask.resources)
    return f"{name}, whose node ({', '.join(pins)}) is gone"


def wait_for_a_place(config: Config, what: str, gpus: float = 0.0) -> None:
    """Wait until the first of many pieces of work has room: a core and a fraction of a GPU.

    Raises:
        NoRoom: It found none in time.
    """
    limit = config.resources.start_limit
    probe = _probe.options(num_gpus=gpus).remote()
    ready, _ = ray.wait([probe], timeout=limit)
    if not ready:
        ray.cancel(probe)
        asked = "1 CPU" + (f" and {gpus:g} GPU" if gpus else "")
        raise NoRoom(
            f"no {what} found room within {limit:g} s (resources.start_limit): no node has {asked} "
            "free. Wait for others ('ray status' shows what is taken) or add nodes, then give the "
            "same command again with run.resume=true"
        )
