"""A run that is made again is the run, on nobody's ground."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_federations import plan_of

from rayfed_hn.federation.exchanges import Exchange
from rayfed_hn.federation.experiment import Outcome, run_in_process
from rayfed_hn.federation.replay import replay, replay_of

BINARY = "task.classes=0,1"
MECHANISMS = {
    "none": (),
    "paper": ("privacy.noise_scale=0.1",),
    "site_ldp": ("privacy.mechanism=site_ldp", "privacy.target_epsilon=4"),
    "slide_dpsgd": (
        "privacy.mechanism=slide_dpsgd",
        "privacy.noise_multiplier=2",
        "training.class_balanced=false",
    ),
}


def digest_of(server: object) -> str:
    return Outcome(server, (), (), 0, 0.0, None).digest  # type: ignore[arg-type]


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("standardise", ["shared", "site"])
def test_the_same_bits_under_every_mechanism(
    tasks_root: Path, mechanism: str, standardise: str
) -> None:
    if mechanism == "slide_dpsgd" and standardise == "site":
        standardise = "none"  # private steps refuse scales that every site measures
    words = (BINARY, f"model.standardise={standardise}", *MECHANISMS[mechanism])
    plan = plan_of(tasks_root, *words)
    versions: list[int] = []
    server = replay(replay_of(plan), lambda _: None, lambda report: versions.append(report.version))
    assert digest_of(server) == run_in_process(plan).digest
    assert versions == [1, 2]


def test_nothing_is_charged_or_written_where_the_noise_was_real(tasks_root: Path) -> None:
    plan = plan_of(tasks_root, BINARY, *MECHANISMS["site_ldp"], "privacy.noise_source=os")
    plan = replace(plan, run_id="a real run")
    before = sorted(tasks_root.rglob("*"))
    one, other = (replay(replay_of(plan), lambda _: None) for _ in range(2))
    assert digest_of(one) == digest_of(other)  # from the seed
    assert sorted(tasks_root.rglob("*")) == before


def test_other_bags_and_another_seed(tasks_root: Path) -> None:
    plan = plan_of(tasks_root, BINARY, "model.standardise=none")
    bags = {name: plan.site_data(name) for name in plan.participants}

    def received(own: dict, seed: int | None) -> list[Exchange]:
        heard: list[Exchange] = []
        replay(replay_of(plan, own, seed), heard.append)
        return heard

    same, fewer = received(bags, None), dict(bags)
    fewer["a"] = replace(bags["a"], train=bags["a"].train[:2])
    assert replay_of(plan, fewer).num_bags["a"][0] == 2
    changed, other = received(fewer, None), received(bags, 9)
    assert np.array_equal(same[0].received, changed[0].received)
    assert not np.array_equal(same[0].update, changed[0].update)
    assert np.array_equal(same[1].update, changed[1].update)
    assert not np.array_equal(same[0].received, other[0].received)
