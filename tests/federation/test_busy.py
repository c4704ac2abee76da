"""How busy sites are, by hand and for six hospitals."""

from __future__ import annotations

import pytest
from simulated import Shuffled, Table, new_server, run

from rayfed_hn.config import RoundsConfig, SimulationConfig
from rayfed_hn.federation.loop import run_federation
from rayfed_hn.federation.site_clock import SiteClock, Work
from rayfed_hn.federation.virtual_time import VirtualTime


def test_busy_is_a_hand_computation() -> None:
    clock = Table({"a": [2.0, 4.0], "b": [5.0], "c": [Work(1.0, 3.5), 10.0]})
    server = new_server(RoundsConfig(num_versions=99, buffer_size=50), dict.fromkeys("abc", 1))
    executor, seen = VirtualTime(Shuffled(), clock), []
    for _ in range(5):
        executor.submit(server.dispatch())
        server.receive(executor.next_event())  # type: ignore[arg-type]
        seen.append((executor.now, executor.busy))
    assert seen == [
        (1.0, {"a": 1.0, "b": 1.0, "c": 1.0}),  # c drops out
        (2.0, {"a": 2.0, "b": 2.0, "c": 1.0}),
        (3.5, {"a": 3.5, "b": 3.5, "c": 1.0}),  # c is back
        (5.0, {"a": 5.0, "b": 5.0, "c": 2.5}),
        (6.0, {"a": 6.0, "b": 6.0, "c": 3.5}),
    ]
    assert executor.busy_share(3) == pytest.approx((6 + 6 + 3.5) / (3 * 6))


def test_whom_a_round_waits_for_is_busy_and_the_others_are_not() -> None:
    _, _, executor = run(Table({"a": [1.0], "b": [4.0]}), RoundsConfig(num_versions=3), "ab")
    assert executor.now == 12.0
    assert executor.inner.busy == {"a": 3.0, "b": 12.0}


def test_no_time_has_no_share() -> None:
    assert VirtualTime(Shuffled(), Table({"a": [1.0]})).busy_share(3) == 0.0


SIX_SITES: dict[str, int] = dict(zip("uvwxyz", (311, 196, 206, 162, 162, 51), strict=True))


@pytest.mark.parametrize(
    ("buffer_size", "low", "high"),
    [(None, 0.58, 0.59), (1, 0.95, 1.0), (2, 0.95, 1.0)],
)
def test_six_hospitals_are_busy_only_if_they_do_not_wait(
    buffer_size: int | None, low: float, high: float
) -> None:
    config = SimulationConfig(enabled=True, duration="constant", seconds_per_bag=0.5)
    server = new_server(RoundsConfig(num_versions=60, buffer_size=buffer_size), SIX_SITES)
    executor = VirtualTime(Shuffled(), SiteClock(config, SIX_SITES, 0))
    *_, last = run_federation(server, executor)
    assert low <= executor.busy_share(6) <= high
    if buffer_size is None:  # every round takes as long as its slowest site
        assert last.time == pytest.approx(60 * 0.5 * 311)
        assert executor.busy == pytest.approx({s: 30.0 * n for s, n in SIX_SITES.items()})
