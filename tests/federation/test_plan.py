"""What is refused or set aside before a run starts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rayfed_hn.bags import store
from rayfed_hn.errors import DataError, SetAside
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.messages import SiteLost, TrainRequest, read_answer
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.loading import load

SHORT = ["rounds.num_versions=2", "training.steps=2", "model.standardise=site"]


@pytest.fixture
def own_root(bag_root: Path, tmp_path: Path) -> Path:
    shutil.copytree(bag_root, tmp_path / "bags")
    return tmp_path / "bags"


def damage(root: Path, site: str, number: int) -> None:
    path = store.SiteBags(root, site).entries[number].path
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_a_damaged_bag_is_set_aside_and_its_site_goes_on(own_root: Path) -> None:
    damage(own_root, "south", 0)
    plan = make_plan(load(None, SHORT), own_root)
    assert plan.hospitals == ("north", "south", "west")
    ((site, why),) = plan.set_aside
    assert (site, why.reason) == ("south", "1 of its bags cannot be read")
    assert "embed again" in why.remedy
    outcome = run_in_process(plan)
    assert not outcome.lost
    data = plan.site("south").data
    assert len(data.train) + len(data.validation) + len(data.test) == 9


def test_a_bag_that_is_damaged_after_planning_loses_only_its_site(own_root: Path) -> None:
    plan = make_plan(load(None, SHORT), own_root)
    for entry in store.SiteBags(own_root, "south").entries:
        entry.path.write_bytes(b"")
    outcome = run_in_process(plan)
    assert [(loss.site, loss.version) for loss in outcome.lost] == [("south", 0)]
    assert [scores.site for scores in outcome.scores] == ["north", "west"]


def test_values_that_are_not_finite_never_leave_a_site(bag_root: Path) -> None:
    plan = make_plan(load(None, SHORT), bag_root)
    host = SiteHost(plan, ["north"])
    theta = plan.initial().numpy()
    theta[3] = np.nan
    event = read_answer(request := TrainRequest("north", 0, theta, 0), host.answer(request))
    assert isinstance(event, SiteLost)
    assert "refused the request" in event.reason


def test_a_site_without_training_cases_is_set_aside(own_root: Path, bag_root: Path) -> None:
    kept = store.SiteBags(own_root, "west").entries[0]
    for entry in store.SiteBags(own_root, "west").entries[1:]:
        entry.path.unlink()
    idle = []
    for fold in range(5):
        plan = make_plan(load(None, [*SHORT, f"data.fold={fold}"]), own_root)
        idle += [(fold, why) for site, why in plan.set_aside if site == "west"]
    assert kept.case_id == "west-case-0"
    assert len(idle) == 1  # the fold in which its only case is test
    assert isinstance(idle[0][1], SetAside)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data.positive_label=cat"], "'cat' is no label of these bags; they have normal, tumour"),
    ],
)
def test_labels_that_do_not_fit_are_named(bag_root: Path, words: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        make_plan(load(None, words), bag_root)


def test_the_positive_label_can_be_chosen(bag_root: Path) -> None:
    assert make_plan(load(), bag_root).classes == ("normal", "tumour")
    chosen = make_plan(load(None, ["data.positive_label=normal"]), bag_root)
    assert chosen.classes == ("tumour", "normal")


def test_a_hospital_may_be_called_pooled(own_root: Path) -> None:
    for entry in store.SiteBags(own_root, "west").entries:
        bag = replace(store.SiteBags(own_root, "west").load(0), slide_id=entry.slide_id)
        store.write(own_root, replace(bag, site="pooled", case_id=f"pooled-{entry.slide_id}"))
    shutil.rmtree(own_root / "site=west")
    outcome = run_in_process(make_plan(load(None, [*SHORT, "method.name=fedavg"]), own_root))
    assert not outcome.lost
    assert [scores.site for scores in outcome.scores] == ["north", "pooled", "south"]


def test_why_a_site_failed_is_written_beside_its_bags_for_it_alone(own_root: Path) -> None:
    plan = make_plan(load(None, SHORT), own_root)
    for entry in store.SiteBags(own_root, "south").entries:
        entry.path.write_bytes(b"")
    run_in_process(plan)
    log = own_root / "site=south" / "site.log"
    assert "DataError" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("method", "noise"), [("hypernetwork", 0.1), ("local", 0), ("pooled", 0)])
def test_the_stated_noise_is_the_one_applied(bag_root: Path, method: str, noise: float) -> None:
    words = [*SHORT, f"method.name={method}", "privacy.noise_scale=0.1"]
    assert make_plan(load(None, words), bag_root).mechanism().noise_scale == noise
