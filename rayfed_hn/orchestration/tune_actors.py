"""Sites of a trial on actors of their own, within the room that Ray Tune reserves for the trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rayfed_hn.errors import ConfigError, FederationError
from rayfed_hn.federation.messages import Request
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.orchestration.actors import claim_device
from rayfed_hn.orchestration.executor import RayExecutor
from rayfed_hn.orchestration.hosts import Care
from rayfed_hn.orchestration.packing import Cluster, Packing, Place, pack
from rayfed_hn.orchestration.planned import of_packing, of_tasks
from rayfed_hn.orchestration.waiting import wait_for_start
from rayfed_hn.rooms import fit
from rayfed_hn.tuning.learning import Judged, Learning
from rayfed_hn.tuning.search import Search


class SiteActorDied(FederationError):
    """Trials keep nothing on disk: a trial that loses an actor begins anew."""


class _Sites:
    """Some sites of a trial, on all divisions of the cases that it is judged by.

    One process for all divisions, which take turns: on a GPU every process takes memory for itself.
    """

    def __init__(self, plans: Sequence[Plan], names: Sequence[str], gpus: float) -> None:
        device = claim_device(gpus)
        self._hosts = [SiteHost(plan, names, None, device) for plan in plans]

    def ready(self) -> None:
        """Answers once the actor has a place."""

    @ray.method(num_returns="streaming")
    def answers(self, requests: Sequence[Request], division: int) -> Iterator[list[np.ndarray]]:
        yield from self._hosts[division].answers(requests)


_SiteActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(_Sites)


@dataclass(frozen=True)
class _OnDivision:
    """An actor as the executor of one division sees it."""

    actor: Any
    division: int

    @property
    def answers(self) -> _OnDivision:
        return self

    def remote(self, requests: Sequence[Request]) -> Any:
        return self.actor.answers.remote(requests, self.division)


def share(search: Search, cluster: Cluster) -> tuple[Packing, int]:
    """What one trial asks for, and how many trials run at a time.

    Every actor has a core as long as there are enough; fewer trials at a time have more each.

    Raises:
        ConfigError: Not even one trial fits; says what would.
    """
    config, plan = search.config, search.plan
    for key in ("pin_label", "pin_resource"):
        if getattr(config.resources, key) is not None:
            raise ConfigError(
                f"resources.{key}: the sites of a trial live wherever there is room; leave it out, "
                "or set tune.actors=false"
            )
    if cluster.cpus > cluster.all_cpus:
        raise ConfigError(
            f"resources.cpus: got {cluster.cpus}, but the cluster has {cluster.all_cpus:g}; give "
            "at most so many"
        )
    some_pooled = any(dimension.key == "method.name" for dimension in search.dimensions)
    sites = plan.hospitals if some_pooled else plan.participants
    alone = pack(config, sites, cluster)
    number = len(alone.hosts)
    by_cpus = cluster.cpus // (number + 1)
    gpus = number * config.resources.gpus_per_site + config.resources.gpus_for_server
    most = int(cluster.gpus / gpus + 1e-6) if gpus else cluster.cpus
    wanted = config.tune.max_concurrent or max(1, by_cpus)
    at_a_time = max(1, min(wanted, most, cluster.cpus))
    while True:
        part = replace(
            cluster, cpus=cluster.cpus // at_a_time, memory_bytes=cluster.memory_bytes / at_a_time
        )
        packing = pack(config, sites, part)
        asks = [place.ask for place in packing.places] * at_a_time
        if at_a_time == 1 or None not in fit(asks, cluster.nodes):
            return packing, at_a_time
        at_a_time -= 1


def placement(search: Search) -> list[str]:
    """What the trials will run on, in lines for people.

    Raises:
        ConfigError: Not even one trial fits.
    """
    if not search.config.tune.actors:
        return of_tasks(search.config, search.num_trials, "trials")
    cluster = Cluster.joined(search.config)
    packing, at_a_time = share(search, cluster)
    trials = f"{search.num_trials} trials, {at_a_time} at a time; each:"
    return [trials, *of_packing(packing, cluster)]


def bundles(packing: Packing) -> tune.PlacementGroupFactory:
    """What is reserved for a trial before it starts: its own process, and every site actor."""
    return tune.PlacementGroupFactory([_asked(place) for place in (packing.centre, *packing.hosts)])


def _asked(place: Place) -> dict[str, float]:
    asked = {"CPU": place.options["num_cpus"], "GPU": place.gpus}
    return {name: value for name, value in asked.items() if value}


def on_actors(learning: Learning, packing: Packing) -> Iterator[Judged]:
    """The versions of a trial whose sites are actors; runs in the trial's own process.

    When an actor dies, all begin anew with the first version.

    Raises:
        SiteActorDied: That happened too often.
        FederationError: The actors did not start.
    """
    device = claim_device(packing.centre.gpus)
    left = learning.plans[0].config.resources.site_restarts
    while True:
        try:
            with _executors(learning.plans, packing) as executors:
                yield from learning.on(executors, device)
            return
        except SiteActorDied:
            if left == 0:
                raise
            left -= 1


@contextmanager
def _executors(plans: Sequence[Plan], packing: Packing) -> Iterator[list[RayExecutor]]:
    """Start the actors; an executor a division."""
    sites = list(dict.fromkeys(site for plan in plans for site in plan.participants))
    count = len(packing.hosts)
    actors = [_start(plans, sites[i::count], i, packing) for i in range(count)]
    try:
        ready = [actor.ready.remote() for actor in actors]
        wait_for_start(plans[0].config, packing.hosts, ready, packing.places)
        yield [
            RayExecutor(
                {s: _OnDivision(actors[i % count], number) for i, s in enumerate(sites)},
                plan.read,
                Care(_begin_anew, 1, plan.config.rounds.answer_timeout, end=_end),
            )
            for number, plan in enumerate(plans)
        ]
    finally:
        for actor in actors:
            ray.kill(actor)


def _start(plans: Sequence[Plan], names: Sequence[str], number: int, packing: Packing) -> Any:
    place, room = packing.hosts[number], get_current_placement_group()
    assert room is not None
    where = PlacementGroupSchedulingStrategy(room, placement_group_bundle_index=number + 1)
    actor = _SiteActor.options(**place.options, scheduling_strategy=where)
    return actor.remote(plans, names, place.gpus)


def _begin_anew(site: str) -> Any:
    raise SiteActorDied(f"the actor of site {site} died too often")


def _end(division: _OnDivision) -> None:
    ray.kill(division.actor)
