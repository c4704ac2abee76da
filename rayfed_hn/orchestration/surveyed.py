"""Plans a run whose bags lie on the disks of its sites' own nodes: each site counts its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, DataError, NoRoom
from rayfed_hn.federation.cards import SiteCard
from rayfed_hn.federation.failures import read_failure
from rayfed_hn.federation.home import card_at_home
from rayfed_hn.federation.plan import Plan, make_plan, plan_of
from rayfed_hn.federation.survey import merge, task_of_cards
from rayfed_hn.orchestration.packing import Cluster, check_pins, pin

_card: Any = ray.remote(num_cpus=0, max_retries=1)(card_at_home)


def plan_where_bags_are(config: Config, root: Path) -> Plan:
    """The plan of a run, from bags that this process can open, or from the cards of their nodes.

    Raises:
        ConfigError, DataError: As ``make_plan`` says.
        NoRoom: A site's node did not answer in time.
    """
    if not config.resources.bags_on_nodes:
        return make_plan(config, root)
    cards = _cards(config, root, _sites(config))
    plan = plan_of(merge(config, cards, task_of_cards(config, cards)), config, root)
    plan.check()
    return plan


def _sites(config: Config) -> list[str]:
    resources = config.resources
    if resources.pin_label is None and resources.pin_resource is None:
        raise ConfigError(
            "resources.bags_on_nodes: which node is whose? Give resources.pin_label (such as "
            "hospital) or resources.pin_resource (such as site:)"
        )
    if config.method.name == "pooled":
        raise ConfigError(
            "method.name: pooled puts all bags in one place, and resources.bags_on_nodes leaves "
            "them where they are; choose another method, or bags on a disk that all nodes share"
        )
    if config.data.splits is not None:
        raise ConfigError(
            "data.splits: tables name slides of all sites, which no single node has; leave it out "
            "with resources.bags_on_nodes"
        )
    if both := sorted(set(resources.bags_on_nodes) & set(config.data.leave_out)):
        raise ConfigError(f"data.leave_out: {both[0]} is in resources.bags_on_nodes; take it out")
    sites = sorted(set(resources.bags_on_nodes))
    check_pins(resources, sites, Cluster.joined(config))
    return sites


def _cards(config: Config, root: Path, sites: list[str]) -> list[SiteCard]:
    calls = {
        site: _card.options(**pin(config.resources, site)).remote(config, root, site)
        for site in sites
    }
    limit = config.resources.start_limit
    _, waiting = ray.wait(list(calls.values()), num_returns=len(calls), timeout=limit)
    if waiting:
        away = ", ".join(site for site, call in calls.items() if call in waiting)
        for call in waiting:
            ray.cancel(call)
        raise NoRoom(
            f"within {limit:g} s (resources.start_limit) no node has counted the bags of {away}; "
            "is it there ('ray status')?"
        )
    return [_told(site, call, root) for site, call in calls.items()]


def _told(site: str, call: Any, root: Path) -> SiteCard:
    try:
        found: SiteCard | bytes = ray.get(call)
    except RayError as error:
        raise DataError(f"{site}: its bags could not be counted ({type(error).__name__})") from None
    if isinstance(found, bytes):
        raise DataError(f"{site}, data.bags={root} on its node: {read_failure(found)}")
    return found
