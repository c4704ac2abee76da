"""The ladder of federations on actors, and the executor under it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import ray.cloudpickle
from virtual_sites import TINY, virtual

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.loop import Executor, InProcessExecutor, run_federation
from rayfed_hn.federation.messages import SiteLost, TrainRequest, Update
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.virtual_plan import VirtualPlan
from rayfed_hn.loading import load
from rayfed_hn.orchestration import scale as scale_module
from rayfed_hn.orchestration.crew import start_hosts
from rayfed_hn.orchestration.executor import RayExecutor
from rayfed_hn.orchestration.packing import Cluster, pack
from rayfed_hn.orchestration.scale import complete, plans, scale
from rayfed_hn.orchestration.train import train

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
# Workers cannot import this file.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
LADDER = {("hypernetwork", 4), ("fedavg", 4), ("hypernetwork", 8), ("fedavg", 8)}


def ladder(folder: Path, *words: str) -> tuple[Config, list[VirtualPlan]]:
    tests = ["scale.test_sites=3", "scale.pool=30"]
    config = load(None, [*TINY, *tests, "scale.sites=[8,4]", *words])
    return config, plans(config, folder)


def run(folder: Path, *words: str) -> tuple[dict[str, Any], list[tuple[str, int, int]]]:
    config, steps = ladder(folder, *words)
    seen: list[tuple[str, int, int]] = []
    summary = scale(
        config,
        steps,
        folder,
        lambda plan, cost: seen.append(
            (plan.config.method.name, len(plan.hospitals), cost.version)
        ),
    )
    return summary, seen


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "scale.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("where", ["actors", "process"])
def test_a_row_for_every_step(tmp_path: Path, where: str) -> None:
    summary, seen = run(tmp_path, f"scale.where={where}")
    assert [key[:2] for key in seen[::2]] == sorted(LADDER, key=lambda k: (k[1], k[0] == "fedavg"))
    assert [key[2] for key in seen] == [1, 2] * 4
    rows = summary["rows"]
    assert rows == written(tmp_path)
    assert {(row["method"], row["sites"]) for row in rows} == LADDER
    for row in rows:
        assert row.keys() == rows[0].keys()
        assert row["lost_sites"] == 0
        assert None not in row.values()
        assert row["tested"]["sites"] == row["tested"]["scored"] == 3
        assert 0 <= row["tested"]["worst"] <= row["tested"]["mean"] <= 1
    assert (summary["status"], summary["exit_code"]) == ("complete", 0)
    assert summary == json.loads((tmp_path / "summary.json").read_text())


def trained(plan: VirtualPlan, executor: Executor) -> np.ndarray:
    server = plan.server()
    assert [report.version for report in run_federation(server, executor)] == [1, 2]
    assert not server.lost
    return np.stack(server.networks(server.sites))


@contextmanager
def started(plan: VirtualPlan) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """The actors of a plan, by site and all of them."""
    packing = pack(plan.config, plan.participants, Cluster.joined(plan.config))
    hosts = start_hosts(plan, packing, None)
    try:
        ray.get([host.ready.remote() for host in hosts])
        yield {site: hosts[n] for site, n in packing.host_of.items()}, hosts
    finally:
        for host in hosts:
            ray.kill(host)


@pytest.mark.parametrize("method", ["hypernetwork", "fedavg"])
def test_actors_and_process_end_in_the_same_bits(tmp_path: Path, method: str) -> None:
    plan = virtual(tmp_path, method=method)
    whole = trained(plan, InProcessExecutor(SiteHost(plan, plan.participants)))
    assert not np.array_equal(whole[0], plan.initial().numpy())
    for each, count in ((8, 1), (4, 2), (2, 4)):
        packed = virtual(tmp_path, f"resources.sites_per_actor={each}", method=method)
        with started(packed) as (handles, hosts):
            assert len(hosts) == count
            assert np.array_equal(trained(packed, RayExecutor(handles)), whole)


def test_finished_steps_are_not_run_again(tmp_path: Path) -> None:
    words = ("scale.where=process", "run.resume=true", f"run.dir={tmp_path}")
    whole, _ = run(tmp_path, "scale.where=process")
    path = tmp_path / "scale.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:40])  # killed while it wrote the third
    assert not complete(ladder(tmp_path, *words)[1], tmp_path)
    summary, seen = run(tmp_path, *words)
    assert [key[:2] for key in seen[::2]] == [("hypernetwork", 8), ("fedavg", 8)]
    assert summary["rows"][:2] == whole["rows"][:2]  # with the seconds of then
    assert summary["rows"] == written(tmp_path)
    assert {(row["method"], row["sites"]) for row in summary["rows"]} == LADDER
    assert complete(ladder(tmp_path, *words)[1], tmp_path)
    again, seen = run(tmp_path, *words)
    assert not seen
    assert again["rows"] == summary["rows"]


def test_lost_sites_degrade_the_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = scale_module.start_hosts

    def start_and_kill(*args: Any) -> list[Any]:
        hosts = original(*args)
        ray.get([host.ready.remote() for host in hosts])
        ray.kill(hosts[1])
        return hosts

    monkeypatch.setattr(scale_module, "start_hosts", start_and_kill)
    summary, _ = run(tmp_path, "scale.methods=[fedavg]", "resources.sites_per_actor=2")
    assert [row["lost_sites"] for row in summary["rows"]] == [2, 2]
    assert (summary["status"], summary["exit_code"]) == ("degraded", 3)


def asked(plan: VirtualPlan) -> list[TrainRequest]:
    return [TrainRequest(site, 0, plan.initial().numpy(), 0) for site in plan.participants]


def test_a_host_that_is_dead_loses_its_sites(tmp_path: Path) -> None:
    plan = virtual(tmp_path, "resources.sites_per_actor=4")
    with started(plan) as (handles, hosts):
        ray.kill(hosts[0])
        executor = RayExecutor(handles)
        executor.submit(asked(plan))
        events = [executor.next_event() for _ in plan.participants]
    lost = [event for event in events if isinstance(event, SiteLost)]
    assert {event.site for event in lost} == {s for s in handles if handles[s] is hosts[0]}
    assert sum(isinstance(event, Update) for event in events) == 4
    for event in lost:
        assert event.reason == "its actor died (ActorDiedError)"
        assert "/" not in event.reason


class _Dies:
    """Answers two requests with what its host would, and dies."""

    def __init__(self, plan: VirtualPlan) -> None:
        self._host = SiteHost(plan, plan.participants)

    @ray.method(num_returns="streaming")
    def answers(self, requests: Sequence[TrainRequest]) -> Any:
        yield from self._host.answers(requests[:2])
        raise RuntimeError("/patients/jane")


def test_a_host_that_dies_loses_who_was_not_answered(tmp_path: Path) -> None:
    plan = virtual(tmp_path)
    host: Any = ray.remote(num_cpus=0.1)(_Dies).remote(plan)
    executor = RayExecutor(dict.fromkeys(plan.participants, host))
    executor.submit(asked(plan))
    events = [executor.next_event() for _ in plan.participants]
    ray.kill(host)
    assert [isinstance(event, Update) for event in events] == [True] * 2 + [False] * 6
    assert {e.site for e in events if isinstance(e, Update | SiteLost)} == set(plan.participants)
    for event in events[2:]:
        assert isinstance(event, SiteLost)
        assert event.reason.startswith("its actor died (")
        assert "/" not in event.reason
        assert "jane" not in event.reason


class _Counted:
    """A handle that counts calls on their way to the real one."""

    def __init__(self, host: Any) -> None:
        self.calls: list[list[str]] = []
        self.answers = self
        self._host = host

    def remote(self, requests: Sequence[TrainRequest]) -> Any:
        self.calls.append([request.site for request in requests])
        return self._host.answers.remote(requests)


def test_one_call_for_a_host(tmp_path: Path) -> None:
    plan = virtual(tmp_path, "resources.sites_per_actor=4")
    with started(plan) as (handles, hosts):
        counted = {host: _Counted(host) for host in hosts}
        executor = RayExecutor({site: counted[host] for site, host in handles.items()})
        executor.submit(asked(plan))
        events = [executor.next_event() for _ in plan.participants]
    assert all(isinstance(event, Update) for event in events)
    for host in hosts:
        assert counted[host].calls == [[s for s in plan.participants if handles[s] is host]]


PINS = ["resources.pin_label=hospital", "resources.pin_resource=site:"]


@pytest.mark.parametrize("pin", PINS)
def test_pinned_sites_train_where_they_live(bag_root: Path, tmp_path: Path, pin: str) -> None:
    words = ["rounds.num_versions=2", "training.steps=2", pin]
    with pytest.raises(ConfigError, match="south"):
        train(load(None, words), bag_root, tmp_path, lambda news: None)
    words += ["data.leave_out=[south,west]", "method.name=local"]
    summary = train(load(None, words), bag_root, tmp_path, lambda news: None)
    assert summary["status"] == "complete"
    assert [site["site"] for site in summary["sites"]] == ["north"]
