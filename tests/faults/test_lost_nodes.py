"""A site's node goes away and comes back: its actor is started on it again, and nothing is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from disturbed import SHORT
from ray.cluster_utils import Cluster

from rayfed_hn.errors import FederationError
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.loading import load
from rayfed_hn.orchestration import crew as crew_module
from rayfed_hn.orchestration.actors import Progress, _Sites
from rayfed_hn.orchestration.train import train

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
LABEL = "hospital"
WORDS = (*SHORT[:-1], f"resources.pin_label={LABEL}", "resources.cpus=4", "rounds.num_versions=60")
FAST = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}


class Nodes:
    """A head, which has no site's label, and a node for every site; one goes and comes back."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.nodes = cluster, dict[str, Any]()

    def add(self, site: str) -> None:
        self.nodes[site] = self.cluster.add_node(num_cpus=2, labels={LABEL: site})

    def lose(self, site: str) -> None:
        self.cluster.remove_node(self.nodes[site], allow_graceful=False)

    def all_there(self) -> None:
        """Bring back whom another test has left out."""
        there = {node["Labels"].get(LABEL) for node in ray.nodes() if node["Alive"]}
        for site in self.nodes.keys() - there:
            self.add(site)
        self.cluster.wait_for_nodes()

    def where(self, site: str) -> str:
        """The id of the node that a site's label is on now."""
        (found,) = (n for n in ray.nodes() if n["Alive"] and n["Labels"].get(LABEL) == site)
        return found["NodeID"]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    if ray.is_initialized():
        pytest.skip("needs a cluster of its own: run this file in a process of its own")
    head = {"num_cpus": 2, "_system_config": FAST, "labels": {LABEL: "west"}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False, include_dashboard=False)
    nodes = Nodes(cluster)
    for site in ("north", "south"):
        nodes.add(site)
    cluster.wait_for_nodes()
    yield nodes
    ray.shutdown()
    cluster.shutdown()


def run(root: Path, folder: Path, on_version: Any, *words: str) -> dict[str, Any]:
    folder.mkdir()
    return train(load(None, [*WORDS, *words]), root, folder, on_version)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to which every site actor writes on which node it is."""
    path = tmp_path / "places"

    class Placed(_Sites):
        def __init__(self, plan: Plan, names: Sequence[str], *others: Any) -> None:
            with path.open("a") as file:
                file.write(f"{names[0]} {ray.get_runtime_context().get_node_id()}\n")
            super().__init__(plan, names, *others)

    actor: Any = ray.remote(max_restarts=0, max_task_retries=0)(Placed)
    monkeypatch.setattr(crew_module, "SiteActor", actor)
    return path


def test_a_node_that_comes_back_in_time_changes_nothing(
    bag_root: Path, tmp_path: Path, nodes: Nodes, places: Path
) -> None:
    words = ("simulation.enabled=true", "simulation.slowest=3")
    expected_places = [(site, nodes.where(site)) for site in ("north", "south", "west")]

    def on_version(news: Progress) -> None:
        if news.version == 5:  # the run goes on meanwhile
            nodes.lose("south")
            time.sleep(4.0)
            nodes.add("south")

    summary = run(bag_root, tmp_path / "run", on_version, *words)
    expected = run_in_process(make_plan(load(None, [*WORDS, *words]), bag_root))
    assert summary["digest"] == expected.digest
    assert (summary["status"], summary["restarts"]) == ("complete", {"south": 1})
    found = [tuple(line.split()) for line in places.read_text().splitlines()]
    assert sorted(found[:3]) == expected_places
    assert found[3:] == [("south", nodes.where("south"))]
    assert found[3] not in expected_places  # it is another node


@pytest.mark.parametrize("returns", [True, False])
def test_the_others_go_on_without_a_node_that_is_away(
    bag_root: Path, tmp_path: Path, nodes: Nodes, returns: bool
) -> None:
    alive: list[int] = []

    def on_version(news: Progress) -> None:
        alive.append(news.num_alive)
        if news.version == 5:
            nodes.lose("north")
        elif news.version == 40 and returns:
            nodes.add("north")
            time.sleep(15.0)  # the run is at work meanwhile
        else:
            time.sleep(0.05)

    words = ("resources.node_wait=3", "rounds.num_versions=400")
    summary = run(bag_root, tmp_path / "run", on_version, *words)
    assert 2 in alive
    assert summary["absences"] == 1
    if returns:
        assert alive[-1] == 3
        assert (summary["status"], summary["exit_code"]) == ("degraded", 3)  # versions lack it
        assert [away["site"] for away in summary["absent"]] == ["north"]
        assert summary["lost_sites"] == []
        return
    assert alive[-1] == 2
    assert (summary["status"], summary["exit_code"]) == ("degraded", 3)
    assert [loss["site"] for loss in summary["lost_sites"]] == ["north"]
    assert summary["lost_sites"][0]["reason"] == "its node is away"


def test_a_node_that_is_given_up_counts_against_the_minimum(
    bag_root: Path, tmp_path: Path, nodes: Nodes
) -> None:
    nodes.all_there()

    def on_version(news: Progress) -> None:
        if news.version == 5:
            nodes.lose("north")
        time.sleep(0.05)

    words = ("resources.node_wait=2", "resources.node_limit=5", "rounds.min_sites=3")
    reason = "2 of 3 sites are left .* its node did not come back within 5 s"
    with pytest.raises(FederationError, match=reason):
        run(bag_root, tmp_path / "run", on_version, *words, "rounds.num_versions=1000")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
