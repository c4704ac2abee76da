"""Sites on nodes that share no disk with the run: their bags come, and what they keep goes."""

from __future__ import annotations

import math
import os
import shutil
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rayfed_hn.errors import StorageAway, StorageError
from rayfed_hn.federation.data import open_sites
from rayfed_hn.federation.experiment import finish, prepare, run_in_process
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.messages import Event, Request, Scores, SiteLost, StatisticsRequest
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.loading import load
from rayfed_hn.storage import elsewhere as elsewhere_module
from rayfed_hn.storage.claim import CLAIM, SET_ASIDE, TakenUp, take, token_of
from rayfed_hn.storage.elsewhere import Share, bring_bags
from rayfed_hn.storage.mirror import POINTER, Mirror
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
    plan = replace(make_plan(config, bag_root), holder="of another machine")
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


def test_what_is_here_counts_where_the_run_is_and_nothing_elsewhere(there: Remote) -> None:
    """Which only the token of whoever has taken it up says: what is there may be of other days."""
    run, north = there / "runs/two", "sites/north/memory"
    take(run, run.copy)
    old = token_of(run.copy)
    own = run.copy / north
    own.parent.mkdir(parents=True)
    own.write_text("1")
    (run.copy / "config.yaml").write_text("")
    Share(run.copy, lambda name: True).push()
    Share(None, lambda name: True, "token").push()
    assert set(run.files()) == {CLAIM}
    here = Share(run.copy, lambda name: name.startswith("sites/north/"), old)
    here.push()
    assert set(run.files()) == {CLAIM, north}
    run.write(north, b"from a node where the site was in between")
    own.with_name("log").write_text("new here")
    here.pull()
    assert own.read_text() == "from a node where the site was in between"
    assert own.with_name("log").read_text() == "new here"
    own.write_text("1")
    token = _taken_up_elsewhere(run)
    run.write(north, b"newer, from another node")
    share = Share(run.copy, lambda name: name.startswith("sites/north/"), token)
    share.pull()
    assert own.read_text() == "newer, from another node"
    own.write_text("3")
    share.push()
    assert run.read(north) == b"3"
    (aside,) = (Path(os.environ["RAYFED_HN_CACHE"]) / SET_ASIDE).iterdir()
    assert (aside / north).read_text() == "1"


@pytest.mark.usefixtures("impatient")
def test_where_the_run_is_storage_may_be_away_for_a_while(
    there: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has taken the run up sends what is there when storage is back."""
    run = there / "runs/six"
    take(run, run.copy)
    (run.copy / "sites").mkdir()
    (run.copy / "sites" / "memory").write_text("1")
    share = Share(run.copy, lambda name: True, token_of(run.copy))
    tried = _break(monkeypatch, 1)
    share.push()
    assert (len(tried), set(run.files())) == (1, {CLAIM})
    share.push()
    assert "sites/memory" in run.files()


def _taken_up_elsewhere(run: Remote) -> str:
    """By another machine; returns its token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYFED_HN_CACHE", os.environ["RAYFED_HN_CACHE"] + "-of-another")
        take(run, run.copy)
        return token_of(run.copy)


def test_only_what_is_of_ones_own_is_sent(there: Remote) -> None:
    run = there / "runs/three"
    own = run.copy / "sites" / "north"
    own.mkdir(parents=True)
    (own / "memory").write_text("1")
    Share(run.copy, lambda name: name.startswith("sites/south/"), "token").push()
    assert not run.files()
    Share(run.copy, lambda name: name.startswith("sites/north/"), "token").push()
    assert set(run.files()) == {"sites/north/memory"}


def test_a_node_of_a_run_that_was_taken_up_sends_nothing_more(there: Remote) -> None:
    run = there / "runs/four"
    pointer = run.copy / POINTER
    pointer.parent.mkdir(parents=True)
    pointer.write_text("1")
    share = Share(run.copy, lambda name: True, _taken_up_elsewhere(run))
    share.push()
    assert run.read(POINTER) == b"1"
    pointer.write_text("2")
    take(run, there.copy)
    with pytest.raises(TakenUp):
        share.push()
    assert run.read(POINTER) == b"1"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(elsewhere_module, "RETRY_SECONDS", 0.2)


def _break(patch: pytest.MonkeyPatch, times: float) -> list[str]:
    """Let storage be away for so many uploads; returns those that were tried."""
    upload, tried = Remote.upload, []

    def away(self: Remote, source: Path, name: str) -> None:
        tried.append(name)
        if len(tried) <= times:
            raise StorageError(f"{self.uri}: no network")
        upload(self, source, name)

    patch.setattr(Remote, "upload", away)
    return tried


@pytest.mark.usefixtures("impatient")
def test_storage_that_is_away_is_waited_for_within_bounds(
    there: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = there / "runs/five"
    (run.copy / "sites").mkdir(parents=True)
    (run.copy / "sites" / "memory").write_text("1")
    share = Share(run.copy, lambda name: True, "token")
    tried = _break(monkeypatch, 2)
    share.push()
    assert len(tried) == 3
    assert run.read("sites/memory") == b"1"
    (run.copy / "sites" / "memory").write_text("2")
    tried = _break(monkeypatch, math.inf)
    with pytest.raises(StorageAway, match=r"no network; tried for 0.2 s.*'rayfed-hn resume file:"):
        share.push()
    number = len(tried)
    assert number > 2
    with pytest.raises(StorageAway):
        share.push()
    assert len(tried) == number + 1  # and is not waited for again before it is back


@pytest.mark.usefixtures("impatient")
def test_sites_that_cannot_send_what_they_keep_say_so(
    there: Remote, bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bag_root, tmp_path / "bags")
    config = load(None, [*WORDS, "model.standardise=shared"])
    plan = replace(make_plan(config, tmp_path / "bags"), holder="token")
    run = there / "runs/six"
    request = StatisticsRequest("north", 0, plan.feature_dim)
    host = SiteHost(plan, plan.participants, run.copy)
    (run.copy / "sites" / "north").mkdir(parents=True)
    (run.copy / "sites" / "north" / "memory").write_text("1")
    with monkeypatch.context() as broken:
        _break(broken, math.inf)
        ((message,),) = host.answers([request])
    _is_away(plan.read(request, message.data))
    assert "no network" in (tmp_path / "bags" / "site=north" / "site.log").read_text()
    ((message,),) = host.answers([request])
    assert not isinstance(plan.read(request, message.data), SiteLost)
    with monkeypatch.context() as broken:
        broken.setattr(Mirror, "pull", _away)
        host = SiteHost(plan, plan.participants, run.copy, resume=True)
        ((message,),) = host.answers([request])
    _is_away(plan.read(request, message.data))


def _away(*given: object, **named: object) -> None:
    raise StorageError("no network")


def _is_away(event: Event) -> None:
    assert isinstance(event, SiteLost)
    assert "could not keep its files in object storage" in event.reason
    assert "actor died" not in event.reason
