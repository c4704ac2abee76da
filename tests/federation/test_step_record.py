"""One line of a ladder from what its versions cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from virtual_sites import virtual

from rayfed_hn.federation.ladder import PHASES, step_record
from rayfed_hn.federation.meter import VersionCost
from rayfed_hn.machine import Memory
from rayfed_hn.models.parameters import ParameterLayout

TESTED = {"mean": 0.9, "lost": 2}


def cost(version: int, **values: float) -> VersionCost:
    usual = {
        "seconds": 1.0, "generation": 0.1, "pull_back": 0.2, "sending": 0.05, "reading": 0.05,
        "waiting": 0.5, "training": 0.3, "bytes_down": 100, "bytes_up": 50, "num_updates": 4,
        "num_lost": 0,
    }  # fmt: skip
    return VersionCost(version=version, **(usual | values))  # type: ignore[arg-type]


def test_a_step_of_the_ladder_is_medians_without_the_first_version(tmp_path: Path) -> None:
    plan = virtual(tmp_path, "scale.cohort_size=4")
    costs = [cost(1, seconds=9.0, num_lost=1), cost(2), cost(3, seconds=2.0), cost(4, num_lost=2)]
    low, high = ({"Ray itself": Memory(2, 10.0, 30.0), "driver": Memory(1, x, 9.0)} for x in (1, 5))
    row = step_record(plan, costs, [low, high, low, low], 2, 13.256, TESTED, 8e9)
    assert row["seconds_per_version"] == 1.0
    assert (row["seconds_lowest"], row["seconds_highest"]) == (1.0, 2.0)
    assert row["first_version_seconds"] == 9.0
    assert row["copy_bytes_per_second"] == 8_000_000_000
    assert row["updates_per_second"] == 4.0
    assert (row["bytes_down"], row["bytes_up"], row["lost_sites"]) == (
        100,
        50,
        5,
    )  # two of them when tested
    assert (row["method"], row["sites"], row["num_hosts"]) == ("hypernetwork", 8, 2)
    assert (row["cohort_size"], row["num_versions"]) == (4, 4)
    assert row["num_parameters"] == ParameterLayout.of(plan.model()).size
    assert row["memory"]["driver"] == {"processes": 1, "pss_mib": 5, "rss_mib": 9.0}
    assert (row["total_pss_mib"], row["total_rss_mib"], row["seconds"]) == (15.0, 39.0, 13.26)
    assert row["tested"] == TESTED
    assert tuple(row["phases"]) == PHASES
    assert row["phases"]["transport"] == pytest.approx(0.2)
    assert sum(row["phases"].values()) == pytest.approx(1.0)


def test_training_of_hosts_that_overlap_is_no_more_than_the_wait(tmp_path: Path) -> None:
    row = step_record(virtual(tmp_path), [cost(1), cost(2, training=0.7)], [], 2, 1.0, None, 8e9)
    assert row["phases"]["training"] == 0.5
    assert row["phases"]["transport"] == 0.0
    assert row["total_pss_mib"] == 0
    assert (row["tested"], row["lost_sites"]) == (None, 0)
