"""Runs that wait for room end by themselves, and bags are counted on the nodes where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from command_line import run_verb
from ray.util import placement_group, remove_placement_group

from rayfed_hn.errors import ConfigError, DataError, NoRoom
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load
from rayfed_hn.orchestration.compare import compare
from rayfed_hn.orchestration.embed import embed
from rayfed_hn.orchestration.packing import Place
from rayfed_hn.orchestration.surveyed import plan_where_bags_are
from rayfed_hn.orchestration.train import train
from rayfed_hn.orchestration.waiting import wait_for_start

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
ON_NODES = ("resources.bags_on_nodes=north", "resources.pin_label=hospital")
OTHERS = "data.leave_out=[south,west]"


@pytest.fixture
def taken() -> Iterator[None]:
    """All of the cluster is another's."""
    other = placement_group([{"CPU": ray.cluster_resources()["CPU"]}])
    assert other.wait(30)
    yield
    remove_placement_group(other)


@pytest.mark.usefixtures("taken")
def test_a_run_does_not_wait_for_room_for_ever(bag_root: Path, tmp_path: Path) -> None:
    config = load(None, ["resources.start_limit=1"])
    with pytest.raises(
        NoRoom, match=r"4 of 4 actors found no room, .* 1 s .*: the server; .*2 CPU and 0 GPU"
    ):
        train(config, bag_root, tmp_path, lambda news: None)


@pytest.mark.usefixtures("taken")
def test_nor_do_cells_and_slides(bag_root: Path, tmp_path: Path) -> None:
    words = ["resources.start_limit=1", f"data.bags={tmp_path / 'bags'}"]
    with pytest.raises(NoRoom, match=r"no cell found room within 1 s .* no node has 1 CPU free"):
        compare(load(None, words), bag_root, tmp_path, lambda done, total: None)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("slide_id,path,case_id,site,label\na,a.tiff,c,north,x\n")
    with pytest.raises(NoRoom, match="no worker that embeds slides found room within 1 s"):
        embed(load(None, [*words, f"data.manifest={manifest}"]))


@pytest.mark.usefixtures("taken")
def test_whose_node_is_gone_is_said() -> None:
    task: Any = ray.remote(num_cpus=1)(lambda: None)
    never = [task.remote(), task.remote()]
    asked = {"num_cpus": 1.0, "num_gpus": 0.0}
    gone = Place(("north", "south"), {**asked, "label_selector": {"hospital": "burnt-down"}})
    says = (
        r"did not start, .*: the server; north, south, whose node \(hospital=burnt-down\) is gone\."
    )
    with pytest.raises(NoRoom, match=says):
        wait_for_start(load(None, ["resources.start_limit=0.1"]), [Place((), asked), gone], never)
    for answer in never:
        ray.cancel(answer)


def test_what_would_run_where_is_said_and_nothing_is_begun(
    bag_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    words = [f"data.bags={bag_root}", f"run.dir={run}"]
    space = "tune.space.privacy.noise_scale=grid(0,1)"
    for verb, more, says in (
        ("train", [], "Placement: 4 actors, 2 CPU together, on one node that has 2 CPU"),
        ("compare", [], "Placement: 45 cells, 2 at a time with 1 CPU each; 1 node with 2 CPU"),
        ("tune", [space], "Placement: 2 trials, 2 at a time with 1 CPU each; 1 node with 2 CPU"),
        ("scale", ["scale.where=actors", "scale.sites=[4]"], "Placement: 3 actors, "),
    ):
        bags = [word for word in words if verb != "scale" or not word.startswith("data")]
        assert run_verb(monkeypatch, verb, "--plan", *bags, *more) == 0
        assert says in capsys.readouterr().out
        assert not run.exists()
    assert run_verb(monkeypatch, "train", *words, "resources.gpus_per_site=0.5") == 2
    assert "has no GPU; set both to 0" in capsys.readouterr().err
    assert not run.exists()


def test_a_plan_of_cards_is_that_of_the_store(bag_root: Path) -> None:
    told = plan_where_bags_are(load(None, [*ON_NODES]), bag_root)  # the node is north's
    here = make_plan(load(None, [OTHERS]), bag_root)
    assert replace(told, config=here.config, notes=here.notes) == here


def test_bags_that_are_not_on_their_node(bag_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"north, data\.bags=.* could not read its bags; site\.log"):
        plan_where_bags_are(load(None, [*ON_NODES]), tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (ON_NODES[:1], "which node is whose"),
        ((*ON_NODES, "method.name=pooled"), "pooled puts all bags in one place"),
        ((*ON_NODES, "data.leave_out=[north]"), "north is in resources.bags_on_nodes"),
        (
            ("resources.bags_on_nodes=east,north", ON_NODES[1]),
            "no node has the label hospital=east; start that hospital's node",
        ),
        ((*ON_NODES, "data.splits=nowhere"), "tables name slides of all sites"),
    ],
)
def test_what_cannot_be_planned_on_nodes(bag_root: Path, words: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        plan_where_bags_are(load(None, list(words)), bag_root)
