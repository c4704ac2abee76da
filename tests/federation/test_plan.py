"""What is refused or set aside before a run starts."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rayfed_hn.bags import store
from rayfed_hn.errors import ConfigError, DataError, SetAside
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.messages import SiteLost, TrainRequest, read_answer
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.versions import VersionReport
from rayfed_hn.loading import load
from rayfed_hn.models.tasks import Binary

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
    assert make_plan(load(), bag_root).task == Binary(("normal", "tumour"))
    chosen = make_plan(load(None, ["data.positive_label=normal"]), bag_root)
    assert chosen.task == Binary(("tumour", "normal"))


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
    (loss,) = run_in_process(plan).lost
    log = own_root / "site=south" / "site.log"
    assert "DataError" in log.read_text()
    incident = loss.reason.rpartition("incident ")[2]
    assert len(incident) == 16
    assert f"incident {incident}\n" in log.read_text()  # what the server heard is found there
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("method", "noise"), [("hypernetwork", 0.1), ("local", 0), ("pooled", 0)])
def test_the_stated_noise_is_the_one_applied(bag_root: Path, method: str, noise: float) -> None:
    words = [*SHORT, f"method.name={method}", "privacy.noise_scale=0.1"]
    told = make_plan(load(None, words), bag_root).promise()
    assert told.get("noise_scale", 0) == noise


# -- files that cannot be used -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("simulation.durations", "site,seconds\nnorth,1\nsouth,1\n", "has no line of west"),
        ("simulation.durations", "site,seconds\nnorth,-1\n", "seconds of north are -1"),
        ("simulation.durations", "site;seconds\n", "must have the columns site,seconds"),
        ("simulation.durations", None, "does not exist; give a CSV with the columns site,seconds"),
        ("simulation.absences", "site,from,until\nnorth,3,2\n", "from must be before until"),
        ("rounds.replay", "no trace", "cannot be read as events.jsonl"),
        ("rounds.replay", None, "cannot be read as events.jsonl"),
    ],
)
def test_a_bad_file_is_an_error_before_anything_starts(
    bag_root: Path, tmp_path: Path, key: str, text: str | None, says: str
) -> None:
    path = tmp_path / "file"
    if text is not None:
        path.write_text(text)
    simulated = ["simulation.enabled=true"] if key.startswith("simulation") else []
    with pytest.raises(ConfigError, match=re.escape(says)) as error:
        make_plan(load(None, [*SHORT, *simulated, f"{key}={path}"]), bag_root)
    assert str(error.value).startswith(key)


# -- equal budgets -----------------------------------------------------------------------------


def steps_of(root: Path, *words: str) -> int:
    """Gradient steps of all sites in a run."""
    reports: list[VersionReport] = []
    run_in_process(make_plan(load(None, [*words, "model.standardise=site"]), root), reports.append)
    return sum(update.num_steps for report in reports for update in report.updates)


@pytest.fixture(scope="module")
def uneven_root(bag_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """North has 6 training bags, south 3 and west 3."""
    root = tmp_path_factory.mktemp("uneven") / "bags"
    shutil.copytree(bag_root, root)
    for site in ("south", "west"):
        for entry in store.SiteBags(root, site).entries[5:]:
            entry.path.unlink()
    return root


@pytest.mark.parametrize("rounds", [[], ["rounds.cohort_size=1"], ["rounds.buffer_size=1"]])
@pytest.mark.parametrize(("budget", "per_site"), [("steps=2", 2), ("epochs=1", 4)])
def test_pooled_training_takes_as_many_steps_as_the_federation(
    uneven_root: Path, rounds: list[str], budget: str, per_site: int
) -> None:
    words = [*rounds, f"training.{budget}", "rounds.num_versions=6", "rounds.sampling=in_order"]
    plan = make_plan(load(None, words), uneven_root)
    assert [num_train for num_train, _, _ in plan.num_bags.values()] == [6, 3, 3]
    pooled, federated = (
        steps_of(uneven_root, *words, f"method.name={method}") for method in ("pooled", "fedavg")
    )
    assert pooled == per_site * 6 * (1 if rounds else 3)
    assert federated == pooled
