"""Who is asked, also by a server that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from small_server import SITES, SIZES, SYNCHRONOUS, answer, new_server

from rayfed_hn.config import RoundsConfig
from rayfed_hn.errors import DataError


def asked_in(config: RoundsConfig, sites: Sequence[str] = SITES) -> list[list[str]]:
    server, names = new_server(config, sites=sites), []
    while not server.finished:
        requests = server.dispatch()
        names.append([request.site for request in requests])
        for request in requests:
            server.receive(answer(request))
    return names


def test_in_order_everybody_has_a_turn() -> None:
    config = RoundsConfig(num_versions=5, cohort_size=1, sampling="in_order")
    assert asked_in(config) == [["a"], ["b"], ["c"], ["d"], ["a"]]
    pairs = asked_in(replace(config, cohort_size=2), "abc")
    assert pairs == [["a", "b"], ["a", "c"], ["b", "c"], ["a", "b"], ["a", "c"]]


def test_cohorts_are_drawn_evenly_or_by_size() -> None:
    config = RoundsConfig(num_versions=3000, cohort_size=1)
    even, sized = (
        [names[0] for names in asked_in(replace(config, sampling=sampling))]
        for sampling in ("uniform", "by_size")
    )
    for site in SITES:
        assert even.count(site) / 3000 == pytest.approx(1 / 4, abs=0.03)
        assert sized.count(site) / 3000 == pytest.approx(SIZES[site] / 30, abs=0.03)


def test_a_resumed_server_asks_whom_an_undisturbed_one_asks() -> None:
    config = RoundsConfig(num_versions=8, cohort_size=2)

    def run(interrupted: bool) -> tuple[list[tuple[str, int]], np.ndarray]:
        server, asked = new_server(config), []
        while not server.finished:
            if interrupted:
                state = {name: tensor.clone() for name, tensor in server.state().items()}
                version, server = server.version, new_server(config)
                server.resume(state, version, [])
            for request in server.dispatch():
                asked.append((request.site, request.turn))
                server.receive(answer(request, len(asked)))
        return asked, server.parameters_for("a")

    (asked, theta), (asked_again, theta_again) = run(False), run(True)
    assert asked == asked_again
    np.testing.assert_array_equal(theta, theta_again)


def test_a_server_goes_on_with_turns_that_no_site_has_had() -> None:
    # A fast site has had more turns than there are versions.
    config = RoundsConfig(num_versions=4, buffer_size=3)
    server = new_server(config, sites="ab")
    asked = {request.site: request for request in server.dispatch()}
    turns: set[int] = set()
    for _ in range(7):
        turns.add(asked["a"].turn)
        server.receive(answer(asked["a"]))
        asked |= {request.site: request for request in server.dispatch()}
    other = new_server(config, sites="ab")
    other.resume(server.state(), server.version, [])
    again = next(request for request in other.dispatch() if request.site == "a")
    assert again.turn not in turns
    assert again.version == server.version == 2


def test_a_checkpoint_of_other_sites_is_refused() -> None:
    state = new_server(SYNCHRONOUS, sites="ab").state()
    with pytest.raises(DataError, match="turns"):
        new_server(SYNCHRONOUS).resume(state, 1, [])
