"""Whether the nodes of a cluster can file bags, asked before hours are spent on making them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayfed_hn.errors import ConfigError, StorageError
from rayfed_hn.storage.elsewhere import store_of

SECONDS = 120.0  # for a process to start on a busy node


@ray.remote(num_cpus=0, max_retries=0)
def _ask(root: Path, attempts: Path) -> str:
    """What keeps this node from filing bags; empty if nothing does."""
    try:
        return "" if store_of(root, attempts) else "does not have that folder on a disk of its own"
    except StorageError as error:
        return str(error)


_node: Any = _ask


def check_nodes(root: Path, attempts: Path) -> None:
    """See to it that every node that has cores sees the store, or can send to it.

    One that does not would take slides and give them back faster than any other node.

    Args:
        root: The bag store, or its copy.
        attempts: A folder below it that was made for this run.

    Raises:
        ConfigError: Names the nodes.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if len(nodes) == 1:
        return
    asked = {_told_by(node["NodeID"], root, attempts): node["NodeManagerAddress"] for node in nodes}
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=SECONDS)
    bad: dict[str, str] = {}
    for answer in ready:
        try:
            if why := ray.get(answer):
                bad[asked[answer]] = why
        except RayError:
            continue  # the node has just gone, or is about to
    if bad:
        first, why = next(iter(bad.items()))
        others = f" (nor {', '.join(list(bad)[1:])})" if len(bad) > 1 else ""
        raise ConfigError(
            f"data.bags: {root} cannot be used by node {first}{others}, which {why}; let it be a "
            "folder that all nodes share, or an address in object storage that all can reach"
        )


def _told_by(node: str, root: Path, attempts: Path) -> Any:
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    return _node.options(scheduling_strategy=where).remote(root.resolve(), attempts.resolve())
