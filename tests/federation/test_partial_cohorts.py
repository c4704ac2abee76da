"""Rounds in which only some sites take part: the equalities of complete rounds hold there too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_server import SITES, answer, lost, new_server
from whole_runs import final_networks, plan, sgd

from rayfed_hn.config import RoundsConfig
from rayfed_hn.federation.messages import Deadline, TrainRequest
from rayfed_hn.federation.rules.averaging import FedAvg
from rayfed_hn.federation.rules.base import Contribution
from rayfed_hn.federation.rules.generator import Hypernetwork, SiteFeatures

COHORT = pytest.mark.parametrize("cohort_size", [1, 2])


@pytest.fixture(autouse=True)
def plain_sgd(monkeypatch: pytest.MonkeyPatch) -> None:
    # Adam would amplify the different rounding of the sums.
    monkeypatch.setattr("rayfed_hn.models.cohort.train_locally", sgd)


def networks(bag_root: Path, cohort_size: int, *words: str) -> dict[str, np.ndarray]:
    cohort = [f"rounds.cohort_size={cohort_size}", "rounds.num_versions=7"]
    return final_networks(plan(bag_root, *cohort, *words))


@COHORT
def test_rho_0_is_fedavg(bag_root: Path, cohort_size: int) -> None:
    hypernetwork = networks(bag_root, cohort_size, "hypernetwork.rho=0")
    fedavg = networks(bag_root, cohort_size, "method.name=fedavg")
    for site, expected in fedavg.items():
        np.testing.assert_allclose(hypernetwork[site], expected, atol=1e-6)
    assert np.abs(fedavg["north"] - plan(bag_root).initial().numpy()).max() > 0.01


@COHORT
def test_rho_1_is_isolated_training(bag_root: Path, cohort_size: int) -> None:
    hypernetwork = networks(bag_root, cohort_size, "hypernetwork.rho=1")
    isolated = networks(bag_root, cohort_size, "method.name=local")
    for site, expected in isolated.items():
        np.testing.assert_allclose(hypernetwork[site], expected, atol=1e-5)
    values = np.stack(list(isolated.values()))
    assert np.ptp(values, axis=0).max() > 0.01  # they are not all alike


@COHORT
def test_between_the_two_a_site_moves_by_both(cohort_size: int) -> None:
    """(1 - rho) of the cohort's mean for all, and rho of its own update for who took part."""
    features = SiteFeatures("fixed", 3, 16, 0.01, 0)
    rule = Hypernetwork(torch.zeros(4), 3, features, 16, 0.25)
    sent = np.array([[4, 0, 0, 8], [0, 4, 0, 8]], np.float32)[:cohort_size]
    cohort = [Contribution(site, update) for site, update in enumerate(sent)]
    rule.apply(cohort, complete=False, among=cohort_size)
    base = {1: [3, 0, 0, 6], 2: [1.5, 1.5, 0, 6]}[cohort_size]
    for site in range(3):
        own = np.array([[1, 0, 0, 2], [0, 1, 0, 2]])[site] if site < cohort_size else 0
        expected = -np.array(base) - own
        np.testing.assert_allclose(rule.parameters_for(site), expected, atol=1e-6)


def moved(num_lost: int = 0, **rounds: Any) -> float:
    """The base's step after a version of updates of 1 from all who are asked, but for some."""
    config = RoundsConfig(**rounds, balance_arrivals=False)
    features = SiteFeatures("fixed", len(SITES), 16, 0.01, 0)
    rule = Hypernetwork(torch.zeros(2), len(SITES), features, 16, 0.0)
    server = new_server(config, rule)
    for number, request in enumerate(server.dispatch()):
        if not server.version:
            server.receive(lost(request, returns=True) if number < num_lost else answer(request))
    assert server.version == 1
    return -float(rule.theta_0[0])


def test_the_base_moves_by_the_mean_of_a_cohort_that_is_waited_for() -> None:
    assert moved() == moved(cohort_size=2) == moved(cohort_size=3, num_lost=1) == 1


def test_the_base_moves_by_a_share_for_every_update_where_nobody_waits() -> None:
    # Of four sites; that of a complete buffer is a synchronous round.
    steps = [moved(buffer_size=size) for size in (1, 2, 3, 4)]
    assert steps == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1])


class Told(FedAvg):
    """Keeps what it was told of every version."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(2))
        self.told: list[tuple[bool, int]] = []

    def apply(self, contributions: Sequence[Contribution], *, complete: bool, among: int) -> None:
        self.told.append((complete, among))


def told(order: str, **rounds: Any) -> list[tuple[bool, int]]:
    """Sites answer in this order; capitals are lost and come back at once, ! is a deadline."""
    rule, asked = Told(), dict[str, TrainRequest]()
    server = new_server(RoundsConfig(num_versions=9, **rounds), rule)
    for site in order:
        asked.update({request.site: request for request in server.dispatch()})
        if site == "!":
            server.receive(Deadline(server.version))
        elif site.isupper():
            server.receive(lost(asked.pop(site.lower()), returns=True))
        else:
            server.receive(answer(asked.pop(site)))
    return rule.told


def test_a_round_is_complete_if_all_who_are_there_answer_it_once_and_in_time() -> None:
    assert told("abcddcba") == [(True, 4), (True, 4)]
    assert told("abcDabc") == [(True, 3), (True, 3)]  # d is not there
    assert told("abcd", cohort_size=2, sampling="in_order") == [(False, 2), (False, 2)]
    assert told("abc!abcd", deadline=9.0) == [(False, 4), (False, 4)]  # d is late
    assert told("abcdabcd", deadline=9.0) == [(True, 4), (True, 4)]
    assert told("abcd", buffer_size=4) == [(True, 4)]
    assert told("abcabcd", buffer_size=4) == [(False, 4)]
    assert told("abcda", buffer_size=5) == [(False, 4)]  # a twice
    assert told("ab", buffer_size=1) == [(False, 4), (False, 4)]
