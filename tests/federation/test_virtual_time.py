"""Simulated time: who is heard when, whatever really happens first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import Shuffled, Table, Watched, new_server, run

from rayfed_hn.config import RoundsConfig
from rayfed_hn.errors import FederationError
from rayfed_hn.federation.loop import Executor, run_federation
from rayfed_hn.federation.messages import CandidatesRequest, Event, SiteLost, TrainRequest, Update
from rayfed_hn.federation.virtual_time import VirtualTime


def plainly(durations: dict[str, list[float]], count: int) -> list[tuple[float, str]]:
    """The first answers of sites that never wait: the earliest one, of equals the first sent.

    Who answers at the same moment is asked again together, in the order of the names.
    """
    running = [(values[0], 0.0, site) for site, values in durations.items()]
    turns, found = dict.fromkeys(durations, 1), []
    while len(found) < count:
        first = min(running)
        running.remove(first)
        moment, _, site = first
        values = durations[site]
        running.append((moment + values[min(turns[site], len(values) - 1)], moment, site))
        turns[site] += 1
        found.append((moment, site))
    return found


seconds = st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 7.0]), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(st.tuples(seconds, seconds, seconds), st.integers(1, 4), st.integers(0, 99))
def test_answers_come_in_simulated_order_whatever_really_comes_first(
    durations: tuple[list[float], ...], buffer_size: int, seed: int
) -> None:
    table = dict(zip("abc", durations, strict=True))
    rounds = RoundsConfig(num_versions=6, buffer_size=buffer_size)
    clock = Table({site: [*values] for site, values in table.items()})
    _, reports, executor = run(clock, rounds, seed=seed)
    heard = [(now, event.site) for now, event in executor.seen if isinstance(event, Update)]
    assert heard == plainly(table, 6 * buffer_size)
    updates = [event for _, event in executor.seen if isinstance(event, Update)]
    turns = [[update.turn for update in updates if update.site == site] for site in "abc"]
    assert turns == [list(range(len(own))) for own in turns]
    assert [report.time for report in reports] == [
        heard[i][0] for i in range(buffer_size - 1, len(heard), buffer_size)
    ]


def test_waiting_for_nobody_is_an_error() -> None:
    with pytest.raises(FederationError, match="nothing is in flight"):
        VirtualTime(Shuffled(), Table({"a": [1.0]})).next_event()


def test_a_real_loss_is_heard_when_the_answer_would_have_come() -> None:
    class Failing(Shuffled):
        def answer(self, request: TrainRequest) -> Event:
            if (request.site, request.turn) == ("a", 1):
                return SiteLost("a", request.version, "its actor died", 1)
            return super().answer(request)

    clock = Table({"a": [2.0], "b": [3.0]})
    server = new_server(RoundsConfig(num_versions=3), {"a": 1, "b": 1})
    executor = Watched(VirtualTime(Failing(), clock))
    reports = list(run_federation(server, executor))
    lost = [(now, event) for now, event in executor.seen if isinstance(event, SiteLost)]
    assert [(now, event.reason) for now, event in lost] == [(5.0, "its actor died")]
    assert [r.num_alive for r in reports] == [2, 1, 1]


def test_scoring_comes_after_the_clock_has_stopped() -> None:
    class Scoring(Shuffled):
        def next_event(self) -> Event:
            request = self.waiting.pop()
            return SiteLost(request.site, request.version, "scored")

    inner: Any = Scoring()
    executor: Executor = VirtualTime(inner, Table({"a": [5.0]}))
    executor.submit([TrainRequest("a", 0, np.zeros(2, np.float32), 0)])
    executor.set_alarm(0, 9.0)
    executor.submit([CandidatesRequest("a", 0, np.zeros(2, np.float32), np.zeros((0, 2)), 1)])
    event = executor.next_event()
    assert isinstance(event, SiteLost)
    assert (event.reason, executor.now) == ("scored", 0.0)
