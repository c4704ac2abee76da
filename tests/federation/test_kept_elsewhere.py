"""Sites on nodes that share no disk with the run: their bags come, and what they keep goes."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest

from rayfed_hn.federation.data import open_sites
from rayfed_hn.federation.experiment import finish, prepare, run_in_process
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.messages import Event, Request, Scores
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.loading import load
from rayfed_hn.storage.elsewhere import Share, bring_bags
from rayfed_hn.storage.mirror import Mirror
from rayfed_hn.storage.remote import Remote, remote_of

WORDS = ["rounds.num_versions=4", "training.steps=2", "model.standardise=none"]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bag_root: Path) -> Remote:
    """Object storage with the bags; on this machine there is nothing yet."""
    monkeypatch.setenv("RAYFED_HN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(bag_root, tmp_path / "made")
    remote = remote_of(f"file://{tmp_path}/storage")
    Mirror(tmp_path / "made", remote / "bags").push()
    return remote


def test_a_node_has_the_bags_of_its_own_sites_alone(there: Remote, bag_root: Path) -> None:
    root = (there / "bags").copy
    bring_bags(root, ["north"])
    assert [path.name for path in root.glob("site=*")] == ["site=north"]
    config = load(None, WORDS)
    own = open_sites(root, ["north"], config.data)["north"]
    all_there = open_sites(bag_root, ["north"], config.data)["north"]
    assert [entry.slide_id for entry in own.entries] == [e.slide_id for e in all_there.entries]
    bring_bags(bag_root, ["nobody"])  # of a plain folder there is nothing to bring


class Actors(InProcessExecutor):
    """Sites that answer as they do on actors, and can be moved to other machines."""

    def __init__(self, host: SiteHost, plan: Plan) -> None:
        super().__init__(host, plan.read)
        self.host, self._asked = host, deque[Request]()

    def submit(self, requests: Sequence[Request]) -> None:
        self._asked.extend(requests)

    def next_event(self) -> Event:
        request = self._asked.popleft()
        ((message,),) = self.host.answers([request])
        return self._read(request, message.data)


def test_a_site_goes_on_on_another_machine(there: Remote, bag_root: Path) -> None:
    """With what it has kept: averages of its networks, under the default readout."""
    config = load(None, WORDS)
    plan = make_plan(config, bag_root)
    run = there / "runs/one"
    server = plan.server()
    actors = Actors(SiteHost(plan, plan.participants, run.copy), plan)
    executor = plan.executor(actors)
    prepare(plan, server, executor)
    for report in run_federation(server, executor):
        if report.version == 2:
            shutil.rmtree(run.copy)
            actors.host = SiteHost(plan, plan.participants, run.copy, resume=True)
    outcome = finish(plan, server, executor)
    whole = run_in_process(plan)
    assert outcome.digest == whole.digest
    assert _mixtures(outcome.scores) == _mixtures(whole.scores)
    files = set(run.files())
    for site in plan.hospitals:
        assert f"sites/{site}/network_mixture.safetensors" in files


def _mixtures(scores: Sequence[Scores]) -> dict[str, bytes]:
    return {one.site: one.mixture_BE.tobytes() for one in scores}


def test_who_shares_a_disk_with_the_run_sends_nothing(there: Remote) -> None:
    run = there / "runs/two"
    own = run.copy / "sites" / "north"
    own.mkdir(parents=True)
    (own / "memory").write_text("1")
    (run.copy / "config.yaml").write_text("")
    Share(run.copy, lambda name: True).push()
    assert not run.files()
    (run.copy / "config.yaml").unlink()
    Share(run.copy, lambda name: name.startswith("sites/south/")).push()
    assert not run.files()
    Share(run.copy, lambda name: name.startswith("sites/north/")).push()
    assert set(run.files()) == {"sites/north/memory"}
    Share(None, lambda name: True).push()
