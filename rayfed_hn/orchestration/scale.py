"""``scale``: a ladder of federations with more and more sites."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.json_lines import JsonLines
from rayfed_hn.federation.ladder import step_record
from rayfed_hn.federation.loop import InProcessExecutor
from rayfed_hn.federation.meter import Metered, VersionCost
from rayfed_hn.federation.record import package_versions, write_summary
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.virtual_plan import VirtualPlan, virtual_plan
from rayfed_hn.federation.virtual_pool import make_pool
from rayfed_hn.federation.virtual_test import score_sites
from rayfed_hn.machine import Memory, copy_bandwidth, memory_by_kind
from rayfed_hn.orchestration.actors import MeteredActor
from rayfed_hn.orchestration.crew import get, start_hosts
from rayfed_hn.orchestration.packing import Cluster, Packing, pack
from rayfed_hn.orchestration.planned import of_packing
from rayfed_hn.orchestration.waiting import wait_for_start

LOOK_SECONDS = 20.0  # looking at memory takes a core a while, which sites would be slower for

OnVersion = Callable[[VirtualPlan, VersionCost], object]


def plans(config: Config, folder: Path) -> list[VirtualPlan]:
    """Every step of the ladder, small ones first; nothing is started or written.

    Raises:
        ConfigError: A step would take too much memory, or the bags cannot be used.
    """
    for key in ("pin_label", "pin_resource"):
        if getattr(config.resources, key) is not None:
            raise ConfigError(f"resources.{key}: virtual sites live nowhere; leave it out of scale")
    if not config.scale.sites:
        raise ConfigError("scale.sites: names no number of sites; give some, such as 10,100")
    pool = make_pool(config, folder)
    ladder, methods = sorted(set(config.scale.sites)), dict.fromkeys(config.scale.methods)
    return [virtual_plan(config, pool, method, n) for n in ladder for method in methods]


def scale(
    config: Config, ladder: list[VirtualPlan], folder: Path, on_version: OnVersion
) -> dict[str, Any]:
    """Run every step, write ``scale.jsonl`` line by line and ``summary.json``; return the summary.

    Steps that the folder has already are not run again.

    Args:
        config: Checked configuration.
        ladder: From ``plans``.
        folder: The run directory.
        on_version: Called after each version, for progress.

    Raises:
        FederationError: The actors did not start, or all sites of a step were lost.
    """
    begun, lines = time.monotonic(), JsonLines(folder / "scale.jsonl")
    done = {(row["method"], row["sites"]): row for row in lines.keep(lambda row: True)}
    for plan in ladder:
        if _key(plan) not in done:
            done[_key(plan)] = _step(plan, on_version)
            lines.append([done[_key(plan)]])
    rows = [done[_key(plan)] for plan in ladder]
    degraded = any(row["lost_sites"] for row in rows)
    summary = {
        "verb": "scale",
        "status": "degraded" if degraded else "complete",
        "exit_code": 3 if degraded else 0,
        "partition": config.scale.partition,
        "steps": config.scale.steps,
        "where": config.scale.where,
        "rows": rows,
        "seconds": round(time.monotonic() - begun, 2),
        "versions": package_versions(),
    }
    write_summary(folder, summary)
    return summary


def complete(ladder: list[VirtualPlan], folder: Path) -> bool:
    """Whether the folder has every step already, so that nothing is left to run."""
    done = {(row["method"], row["sites"]) for row in JsonLines(folder / "scale.jsonl").read()}
    return all(_key(plan) in done for plan in ladder)


def _key(plan: VirtualPlan) -> tuple[str, int]:
    return plan.config.method.name, len(plan.hospitals)


def _step(plan: VirtualPlan, on_version: OnVersion) -> dict[str, Any]:
    begun = time.monotonic()
    bandwidth = copy_bandwidth()  # here, since what else runs on a machine changes
    found = measure(plan, on_version)
    seconds = time.monotonic() - begun
    return step_record(
        plan, found.costs, found.memory, found.num_hosts, seconds, found.tested, bandwidth
    )


@dataclass(frozen=True)
class Measured:
    """What was seen of a federation.

    Attributes:
        num_hosts: Processes that the sites were spread over.
        costs: Of every version.
        memory: After some versions, and the last.
        tested: How good its networks are, found out after all that.
    """

    num_hosts: int
    costs: list[VersionCost]
    memory: list[dict[str, Memory]]
    tested: dict[str, Any] | None


def measure(plan: VirtualPlan, on_version: OnVersion = lambda plan, cost: None) -> Measured:
    """Run a federation where ``scale.where`` says."""
    plan.pool.write()
    costs, memory, looked = [], [], time.monotonic()
    connected = _on_actors if plan.config.scale.where == "actors" else _in_process
    with connected(plan) as running:
        for cost in running.versions:
            costs.append(cost)
            last = cost.version == plan.config.rounds.num_versions
            if last or time.monotonic() - looked > LOOK_SECONDS:
                memory.append(memory_by_kind(_kind))
                looked = time.monotonic()
            on_version(plan, cost)
        return Measured(running.num_hosts, costs, memory, running.test())


@dataclass(frozen=True)
class _Running:
    """A federation that runs as its versions are taken, and can be tested after the last."""

    num_hosts: int
    versions: Iterator[VersionCost]
    test: Callable[[], dict[str, Any] | None]


@contextmanager
def _in_process(plan: VirtualPlan) -> Iterator[_Running]:
    host = SiteHost(plan, plan.participants)
    nowhere = dict.fromkeys(plan.participants, 0)
    run = Metered(plan, nowhere, lambda read: InProcessExecutor(host, read))
    yield _Running(1, run.versions(), lambda: score_sites(plan, run.server, run.executor))


def placement(ladder: list[VirtualPlan]) -> list[str]:
    """What the widest step will run on, in lines for people.

    Raises:
        ConfigError: The actors of a step do not fit.
    """
    if not ladder:
        return []
    cluster = Cluster.joined(ladder[0].config)
    packings = [_packing(plan, cluster) for plan in ladder]
    return of_packing(max(packings, key=lambda packing: len(packing.hosts)), cluster)


def _packing(plan: VirtualPlan, cluster: Cluster) -> Packing:
    # Virtual sites have nothing to lose with an actor: no more of them than can work at once.
    resources = plan.config.resources
    each = resources.sites_per_actor or -(-len(plan.hospitals) // cluster.cpus)
    config = replace(plan.config, resources=replace(resources, sites_per_actor=each))
    return pack(config, plan.participants, cluster)


@contextmanager
def _on_actors(plan: VirtualPlan) -> Iterator[_Running]:
    packing = _packing(plan, Cluster.joined(plan.config))
    hosts = start_hosts(plan, packing, None)
    handles = {site: hosts[number] for site, number in packing.host_of.items()}
    centre = MeteredActor.options(**packing.centre.start).remote(
        plan, handles, packing.host_of, packing.centre.gpus
    )
    try:
        starting = [centre.start.remote(), *(host.ready.remote() for host in hosts)]
        wait_for_start(plan.config, packing.places, starting)
        yield _Running(
            len(hosts),
            (get(reference) for reference in centre.run.remote()),
            lambda: get(centre.test.remote()),
        )
    finally:
        for actor in [centre, *hosts]:
            ray.kill(actor)


def _kind(command: str) -> str:
    """What a process of Ray is, by its command line."""
    if "ray::_Sites" in command:
        return "site actors"
    return "server actor" if "ray::_MeteredCentre" in command else "Ray itself"
