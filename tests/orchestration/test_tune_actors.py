"""Trials whose sites are actors: results of the route in process, within the room there is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from clusters import one_node
from ray.util import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, NoRoom
from rayfed_hn.loading import load
from rayfed_hn.orchestration import tune_actors
from rayfed_hn.orchestration.packing import Cluster, Packing
from rayfed_hn.orchestration.tune import try_all
from rayfed_hn.orchestration.tune_actors import SiteActorDied, bundles, on_actors, share
from rayfed_hn.tuning.learning import Judged, Learning
from rayfed_hn.tuning.search import Search
from rayfed_hn.tuning.trials import trial_config

pytestmark = pytest.mark.ray
WORDS = ("rounds.num_versions=2", "training.steps=2", "tune.search=grid", "tune.actors=true")
PAIR = ("privacy.noise_scale=0.3", "tune.space.method.name=grid(hypernetwork, pooled)")
SPACE = ("tune.space.privacy.noise_scale=grid(0, 0.3)",)

QUARTERS = {"gpus_per_site": 0.25, "gpus_for_server": 0.25}


def config(*words: str) -> Config:
    return load(None, [*WORDS, *(words or SPACE)])


def search_of(root: Path, **resources: Any) -> Search:
    asked = config()
    changed = replace(asked, resources=replace(asked.resources, **resources))
    return replace(Search.of(asked, root), config=changed)


@pytest.mark.usefixtures("ray_session")
def test_results_are_those_of_the_route_in_process(bag_root: Path, tmp_path: Path) -> None:
    search = Search.of(config(*PAIR, "resources.sites_per_actor=2"), bag_root)
    records = try_all(search, bag_root, tmp_path, lambda done, news: None)
    assert len(records) == 2
    for trial, record in zip(search.trials, records, strict=True):
        judged = list(Learning(trial_config(search.config, trial.settings), bag_root))
        assert record["status"] == "finished"
        assert record["curve"] == [one.mean for one in judged]
        values = [division["validation_metric"] for division in record["by_division"]]
        assert values == list(judged[-1].by_division)


@ray.remote(num_cpus=0.1)
def judged_although_killed(
    asked: Config, root: Path, packing: Packing, deaths: int
) -> tuple[list[Judged], int]:
    """In a process as a trial's: an actor is killed after every first version, so many times."""
    started, original = [], tune_actors._start

    def start(*arguments: Any) -> Any:
        started.append(original(*arguments))
        return started[-1]

    tune_actors._start = start
    found: list[Judged] = []
    for one in on_actors(Learning(asked, root), packing):
        del found[one.version :]
        found.append(one)
        if one.version == 0 and deaths:
            deaths -= 1
            ray.kill(started[-1])
    return found, len(started)


def in_room(search: Search, asked: Config, root: Path, deaths: int) -> tuple[list[Judged], int]:
    packing, _ = share(search, one_node(2))
    room = placement_group(bundles(packing).bundles)
    where = PlacementGroupSchedulingStrategy(room, placement_group_bundle_index=0)
    try:
        task: Any = judged_although_killed.options(scheduling_strategy=where)
        return ray.get(task.remote(asked, root, packing, deaths))
    finally:
        remove_placement_group(room)


@pytest.mark.usefixtures("ray_session")
def test_a_trial_that_loses_an_actor_begins_anew(bag_root: Path) -> None:
    search = search_of(bag_root, site_restarts=1, sites_per_actor=2)
    asked = trial_config(search.config, search.trials[1].settings)
    found, started = in_room(search, asked, bag_root, deaths=1)
    assert found == list(Learning(asked, bag_root))
    assert started == 4


def test_it_begins_anew_so_often_and_not_for_ever(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[None] = []

    @contextmanager
    def dying(*_: object) -> Iterator[None]:
        begun.append(None)
        tune_actors._begin_anew("north")
        yield

    search = search_of(bag_root, site_restarts=2)
    monkeypatch.setattr(tune_actors, "_executors", dying)
    with pytest.raises(SiteActorDied, match="the actor of site north died too often"):
        list(on_actors(Learning(search.config, bag_root), share(search, one_node(2))[0]))
    assert len(begun) == 3


@pytest.mark.usefixtures("ray_session")
def test_nobody_waits_for_ever_for_a_place(bag_root: Path, tmp_path: Path) -> None:
    taken = placement_group([{"CPU": 1}])
    assert taken.wait(30)
    try:
        with pytest.raises(NoRoom, match=r"no trial could start .* asks for 2 CPU, .* 1 CPU"):
            try_all(
                search_of(bag_root, start_limit=1.0), bag_root, tmp_path, lambda done, news: None
            )
    finally:
        remove_placement_group(taken)
    left = [group["state"] for group in placement_group_table().values()]
    assert set(left) == {"REMOVED"}


def test_a_cluster_without_room_is_refused_before_anything_starts(bag_root: Path) -> None:
    with pytest.raises(ConfigError, match="the cluster has no GPU; set both to 0"):
        share(search_of(bag_root, gpus_per_site=0.5), one_node(2))
    with pytest.raises(ConfigError, match=r"which take 2; try resources.gpus_per_site=0.33,"):
        share(search_of(bag_root, gpus_per_site=0.5), one_node(2, gpus=1))
    with pytest.raises(ConfigError, match=r"resources.cpus: got 8, .* has 2; give at most"):
        share(search_of(bag_root), replace(one_node(2), cpus=8))
    with pytest.raises(ConfigError, match=r"resources.pin_label: .* tune.actors=false"):
        share(search_of(bag_root, pin_label="hospital"), one_node(2))


@pytest.mark.parametrize(
    ("cluster", "resources", "at_a_time", "each", "server"),
    [
        (one_node(2), {}, 1, (0.5, 0.0), 0.0),
        (one_node(9), {}, 2, (1.0, 0.0), 0.0),
        (one_node(2), {"sites_per_actor": 3}, 1, (1.0, 0.0), 0.0),
        (one_node(16, gpus=1), QUARTERS, 1, (1.0, 0.25), 0.25),
        (one_node(16, gpus=2), QUARTERS, 2, (1.0, 0.25), 0.25),
        (one_node(16, gpus=3), {"sites_per_actor": 3, "gpus_per_site": 0.6}, 3, (1.0, 0.6), 0.0),
    ],
)  # fmt: skip
def test_trials_at_a_time_and_what_each_asks_for(
    bag_root: Path,
    cluster: Cluster,
    resources: dict[str, Any],
    at_a_time: int,
    each: tuple[float, float],
    server: float,
) -> None:
    packing, number = share(search_of(bag_root, **resources), cluster)
    assert number == at_a_time
    first, *others = bundles(packing).bundles
    assert len(others) == (1 if "sites_per_actor" in resources else 3)
    assert {(one["CPU"], one.get("GPU", 0.0)) for one in others} == {each}
    assert first.get("GPU", 0.0) == server
    assert number * sum(one["CPU"] for one in (first, *others)) <= cluster.cpus
