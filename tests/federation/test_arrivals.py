"""What an update counts, by when it arrives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_server import SITES, SIZES, SYNCHRONOUS, answer, lost, new_server

from rayfed_hn.config import RoundsConfig
from rayfed_hn.federation.messages import SiteBack, TrainRequest
from rayfed_hn.federation.rules.averaging import Local
from rayfed_hn.federation.rules.base import Contribution

LATE_1 = 2**-0.5
ARRIVALS = [
    # answers, buffer, exponent, balanced; per version: factors of its updates, in site order
    ("abab", 1, 0.5, False, [[1], [LATE_1], [LATE_1], [LATE_1]]),
    ("aaab", 1, 1.0, False, [[1], [1], [1], [1 / 4]]),
    # a is one of one since it was asked, of two sites: 1/2. b is one of four: 4/2, and at most 1,
    # the number of updates, so that no site goes further than to its own network.
    ("aaab", 1, 0.0, True, [[1 / 2], [1 / 2], [1 / 2], [1]]),
    ("aaab", 1, 1.0, True, [[1 / 2], [1 / 2], [1 / 2], [2 / 4]]),
    # a is four of four: 4/4/2 each; then three of four since it was asked: 4/3/2 each, and b one of
    # eight: 8/1/2, and at most 2, the number of sites
    ("aaaaaaab", 4, 0.0, True, [[1 / 2] * 4, [2 / 3, 2 / 3, 2 / 3, 2]]),
    # a is asked again as soon as it has answered, before there is a new version
    ("abba", 2, 0.5, False, [[1, 1], [LATE_1, 1]]),
    # a is two of two: 2/2/2 each; then one of two, its own and b's: 2/1/2. b is one of four: 4/1/2,
    # and one version late
    ("aaba", 2, 1.0, True, [[1 / 2, 1 / 2], [1, 2 / 2]]),
    # a is two of five, 5/2/2 each; b three of five, 5/3/2 each
    ("aabbb", 5, 3.0, True, [[5 / 4, 5 / 4, 5 / 6, 5 / 6, 5 / 6]]),
]


@pytest.mark.parametrize(("arrivals", "buffer", "exponent", "balanced", "factors"), ARRIVALS)
def test_discounts_and_weights_are_a_table_written_by_hand(
    arrivals: str, buffer: int, exponent: float, balanced: bool, factors: list[list[float]]
) -> None:
    config = RoundsConfig(
        num_versions=9,
        buffer_size=buffer,
        staleness_exponent=exponent,
        balance_arrivals=balanced,
    )
    server = new_server(config, sites="ab")
    asked = {request.site: request for request in server.dispatch()}
    theta, made = 0.0, 0
    for number, site in enumerate(arrivals):
        # All updates of a version are alike, so that their order does not matter.
        report = server.receive(answer(asked[site], 1.0 + made))
        asked |= {request.site: request for request in server.dispatch()}
        if report is not None:
            assert number == buffer * report.version - 1
            # Divided by the number of updates, not by the sum of the factors.
            theta -= sum(factors[made]) / buffer * (1.0 + made)
            made += 1
            np.testing.assert_allclose(server.parameters_for("a"), theta, rtol=1e-6)
    assert made == len(factors)


def test_a_late_buffer_moves_less_than_a_fresh_one() -> None:
    config = RoundsConfig(buffer_size=2, staleness_exponent=0.5, balance_arrivals=False)
    server = new_server(config, sites="abcd")
    a, b, c, d = server.dispatch()
    for request in (a, b):
        server.receive(answer(request))
    np.testing.assert_allclose(server.parameters_for("a"), -1)
    for request in (c, d):
        server.receive(answer(request))
    # A weighted mean would have moved by 1 again.
    np.testing.assert_allclose(server.parameters_for("a"), -1 - 2**-0.5, rtol=1e-6)


def test_a_lost_site_does_not_shrink_the_step_of_the_others() -> None:
    server = new_server(SYNCHRONOUS)
    for number in range(3):
        for request in server.dispatch():
            gone = number == 0 and request.site == "d"
            server.receive(lost(request) if gone else answer(request))
    np.testing.assert_array_equal(server.parameters_for("a"), [-3, -3])


# -- rounds in which nobody is late ------------------------------------------------------------


@pytest.mark.parametrize("order", ["abcd", "dcba", "cadb"])
def test_rounds_with_a_deadline_that_all_keep_are_rounds_without(order: str) -> None:
    """Who answers first is not fast: all answer once a round."""

    def final(**rounds: Any) -> np.ndarray:
        server = new_server(RoundsConfig(num_versions=3, **rounds))
        for number in range(3):
            asked = {request.site: request for request in server.dispatch()}
            for site in order:
                server.receive(answer(asked[site], SIZES[site] + number))
        return server.parameters_for("a")

    np.testing.assert_allclose(final(deadline=60.0), final(), rtol=1e-6)
    np.testing.assert_allclose(final(), [-(3 * 7.5 + 3)] * 2)  # the mean of 5, 9, 2 and 14 is 7.5


# -- who comes late, or comes back -------------------------------------------------------------


EVERY_ONE = RoundsConfig(num_versions=10**6, buffer_size=1, staleness_exponent=0.0)


@pytest.mark.parametrize("before", [0, 3])
def test_who_was_away_for_long_counts_as_who_was_not(before: int) -> None:
    server = new_server(EVERY_ONE)
    asked = {request.site: request for request in server.dispatch()}

    def theta() -> float:
        return float(server.parameters_for("a")[0])

    def answered(site: str, value: float = 1.0) -> float:
        """How far all are moved."""
        start = theta()
        server.receive(answer(asked[site], value))
        asked.update({request.site: request for request in server.dispatch()})
        return start - theta()

    for _ in range(before):
        answered("d")
    server.receive(lost(asked.pop("d"), returns=True))
    for _ in range(50):
        for site in "abc":
            answered(site)
    server.receive(SiteBack("d"))
    asked.update({request.site: request for request in server.dispatch()})
    assert "d" in asked
    # One update since it was asked, its own, of four sites.
    assert answered("d", 8.0) == pytest.approx(8 / 4)
    for site in "abcd":  # three others and its own
        assert answered(site) == pytest.approx(4 / 4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(SITES), st.sampled_from(["answer"] * 6 + ["lose", "back"]))),
    st.integers(1, 3),
)
def test_no_site_moves_the_others_beyond_its_own_network(
    events: list[tuple[str, str]], buffer_size: int
) -> None:
    """Whoever answers however late: of a buffer, the others move at most by the sum of its u."""
    server = new_server(replace(EVERY_ONE, buffer_size=buffer_size))
    asked: dict[str, TrainRequest] = {}
    for number, (site, kind) in enumerate(events):
        asked.update({request.site: request for request in server.dispatch()})
        before = float(server.parameters_for("a")[0])
        if kind == "back":
            server.receive(SiteBack(site))
        elif site in asked and kind == "lose":
            server.receive(lost(asked.pop(site), returns=True))
        elif site in asked:
            report = server.receive(answer(asked.pop(site), number + 1))
            moved = before - float(server.parameters_for("a")[0])
            if report is None:
                assert moved == 0
                continue
            longest = sum(float(update.update[0]) for update in report.updates)
            assert 0 < moved <= longest * (1 + 1e-5)


# -- isolated sites ----------------------------------------------------------------------------


def test_isolated_sites_do_not_overshoot_in_a_buffer_larger_than_their_number() -> None:
    """Every update is the whole way to the site's target, from the network that it was sent."""
    targets = {"a": 3.0, "b": -5.0}
    server = new_server(
        RoundsConfig(num_versions=30, buffer_size=7), Local(torch.zeros(2), 2), sites="ab"
    )
    rng, asked = np.random.default_rng(0), dict[str, TrainRequest]()
    while not server.finished:
        asked.update({request.site: request for request in server.dispatch()})
        site = str(rng.choice(["a", "a", "a", "b"]))
        sent = float(asked[site].parameters[0])
        server.receive(answer(asked.pop(site), 0.9 * (sent - targets[site])))
        for name, target in targets.items():
            assert abs(float(server.parameters_for(name)[0]) - target) <= abs(target) * 1.0001
    for name, target in targets.items():
        assert float(server.parameters_for(name)[0]) == pytest.approx(target, rel=1e-3)


def test_of_several_updates_of_an_isolated_site_the_mean_counts() -> None:
    rule = Local(torch.zeros(2), 3)
    sent = [(1, [4.0, 0.0]), (1, [8.0, 6.0]), (2, [1.0, 1.0])]
    rule.apply(
        [Contribution(site, np.array(u, np.float32), 0.1, 3.0) for site, u in sent],
        complete=False,
        among=3,
    )
    found = [rule.parameters_for(site).tolist() for site in range(3)]
    assert found == [[0, 0], [-6, -3], [-1, -1]]
