"""Virtual sites are tested on cases that nobody trains on, and scored as any others are."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_federations import create, federation, write
from virtual_sites import virtual

from rayfed_hn.evaluation.many_sites import spread
from rayfed_hn.evaluation.metrics import auc
from rayfed_hn.federation.data import SiteData, open_sites
from rayfed_hn.federation.loop import InProcessExecutor
from rayfed_hn.federation.meter import Metered
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.virtual_plan import VirtualPlan
from rayfed_hn.federation.virtual_test import score_sites
from rayfed_hn.models.scoring import score_bags

WORDS = ("scale.test_sites=4", "scale.pool=60", "scale.test_bags=6")


def features(data: SiteData, part: str) -> set[bytes]:
    return {bag.features_ND.tobytes() for bag in getattr(data, part)}


def every(plan: VirtualPlan, part: str) -> set[bytes]:
    return set().union(*(features(plan.site_data(name), part) for name in plan.hospitals))


@pytest.mark.parametrize("partition", ["dirichlet", "size"])
def test_no_bag_that_any_site_trains_on_is_one_that_any_is_tested_on(
    tmp_path: Path, partition: str
) -> None:
    many = ["scale.test_sites=200", f"scale.partition={partition}"]
    plan = virtual(tmp_path, *WORDS, *many, num_sites=200)
    trained, held_out = every(plan, "train"), every(plan, "test")
    assert len(trained) == 48  # four fifths of the pool, all of which somebody drew
    assert len(held_out) == 12
    assert not trained & held_out


@pytest.mark.parametrize("partition", ["dirichlet", "size", "natural"])
def test_no_case_that_any_site_trains_on_is_one_that_any_is_tested_on(
    tmp_path: Path, partition: str
) -> None:
    """Cases have two slides each: a division by slide would be found out."""
    root = create(tmp_path)
    for site, number in itertools.product("ab", range(20)):
        write(root, site, f"{site}{number}", "01"[number // 2 % 2], case=f"{site}-{number // 2}")
    words = [f"data.bags={root}", f"scale.partition={partition}", "scale.test_sites=60"]
    plan = virtual(tmp_path, *words, "scale.test_bags=100", num_sites=60)
    case_of = {
        bags.load(i).features_ND.tobytes(): (name, entry.case_id)
        for name, bags in open_sites(root, ("a", "b"), plan.config.data).items()
        for i, entry in enumerate(bags.entries)
    }
    assert len(set(case_of.values())) == len(case_of) / 2
    trained, held_out = ({case_of[bag] for bag in every(plan, part)} for part in ("train", "test"))
    assert trained
    assert {name for name, _ in held_out} == {"a", "b"}
    assert not trained & held_out
    if partition == "natural":  # like one real site, in what it is tested on too
        for number, name in enumerate(plan.hospitals[:6]):
            data = plan.site_data(name)
            own = {case_of[bag][0] for bag in features(data, "train") | features(data, "test")}
            assert own == {"ab"[number % 2]}


def test_who_is_tested_and_on_what_is_the_same_for_every_method(tmp_path: Path) -> None:
    one, other = (virtual(tmp_path, *WORDS, method=m) for m in ("hypernetwork", "fedavg"))
    assert one.tested == other.tested
    assert len(set(one.tested)) == 4
    for name in one.hospitals:
        bags = one.site_data(name).test
        assert bool(bags) == (name in one.tested)
        labels = [bag.label for bag in bags]
        assert labels.count(0) == labels.count(1) == 3 * (name in one.tested)
        assert len(features(one.site_data(name), "test")) == len(bags)
        assert features(one.site_data(name), "test") == features(other.site_data(name), "test")
    assert virtual(tmp_path, *WORDS, "run.seed=1").tested != one.tested
    assert len(virtual(tmp_path, *WORDS, "scale.test_sites=100").tested) == 8


def ran(plan: VirtualPlan) -> Metered:
    host = SiteHost(plan, plan.participants)
    metered = Metered(
        plan, dict.fromkeys(plan.participants, 0), lambda read: InProcessExecutor(host, read)
    )
    assert len(list(metered.versions())) == plan.config.rounds.num_versions
    return metered


@pytest.mark.parametrize("method", ["hypernetwork", "fedavg", "local"])
def test_values_are_those_of_the_last_networks(tmp_path: Path, method: str) -> None:
    plan = virtual(tmp_path, *WORDS, "scale.cohort_size=3", method=method)
    run = ran(plan)
    found = score_sites(plan, run.server, run.executor)
    assert found is not None
    assert [site["site"] for site in found["by_site"]] == list(plan.tested)
    for site in found["by_site"]:
        bags = plan.site_data(site["site"]).test
        place = plan.hospitals.index(site["site"])
        network = torch.from_numpy(run.server.networks([site["site"]])[0].copy())
        evidence_BE = score_bags(plan.model(), network, bags, plan.task, "cpu").evidence_BE
        truth = np.array([bag.label for bag in bags])
        assert site["value"] == auc(truth, plan.task.predict(evidence_BE)[:, 0])
        assert site["updates"] == run.server.num_updates[plan.hospitals[place]]
    values = [site["value"] for site in found["by_site"]]
    assert (found["mean"], found["worst"]) == (pytest.approx(np.mean(values)), min(values))
    assert (found["sites"], found["scored"], found["bags"], found["lost"]) == (4, 4, 6, 0)
    assert found["trained"] == sum(site["updates"] > 0 for site in found["by_site"])


def test_labels_of_the_pool_are_learned(tmp_path: Path) -> None:
    words = ["scale.tiles=50", "scale.feature_dim=1024", "scale.pool=256", "scale.num_versions=20"]
    words += ["scale.test_bags=40"]
    plan = virtual(tmp_path, *WORDS, *words, "scale.steps=4", method="fedavg")
    before = plan.server()
    before.version = before.num_versions  # as it would be asked after its last one
    start = score_sites(plan, before, InProcessExecutor(SiteHost(plan, plan.participants)))
    run = ran(plan)
    end = score_sites(plan, run.server, run.executor)
    assert start is not None
    assert end is not None
    assert start["mean"] < 0.75
    assert end["mean"] > 0.85


def test_a_site_of_one_class_is_not_scored(tmp_path: Path) -> None:
    root = federation(tmp_path, {"a": tuple("0" * 10), "b": tuple("01" * 5)})
    words = [f"data.bags={root}", "scale.partition=natural", "scale.test_sites=4"]
    plan = virtual(tmp_path, *words, num_sites=4)
    run = ran(plan)
    found = score_sites(plan, run.server, run.executor)
    assert found is not None
    assert (found["sites"], found["scored"]) == (4, 2)
    assert [site["value"] is None for site in found["by_site"]] == [True, False] * 2
    assert found["mean"] is not None


def test_without_sites_to_test_there_is_nothing(tmp_path: Path) -> None:
    plan = virtual(tmp_path)
    run = ran(plan)
    assert score_sites(plan, run.server, run.executor) is None


def test_the_lowest_tenth_is_one_site_at_least() -> None:
    assert spread([]) == {"mean": None, "worst": None, "lowest_tenth": None}
    assert spread([0.5, 0.9]) == {"mean": 0.7, "worst": 0.5, "lowest_tenth": 0.5}
    values = [i / 20 for i in range(20)]
    found = spread(values)
    assert (found["worst"], found["lowest_tenth"]) == (0.0, 0.025)
    assert spread(values[:11])["lowest_tenth"] == 0.025
