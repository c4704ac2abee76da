"""What wraps an executor hands everything on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayfed_hn.federation.loop import Around
from rayfed_hn.federation.messages import Deadline, Event, Request, StatisticsRequest


class Noted:
    now, more_now = 3.5, True

    def __init__(self) -> None:
        self.calls: list[object] = []

    def state(self) -> dict[str, Any]:
        return {"queue": [3]}

    def begin_at(self, seconds: float, state: Mapping[str, Any]) -> None:
        self.calls.append(("begin", seconds, state))

    def submit(self, requests: Sequence[Request]) -> None:
        self.calls.append(list(requests))

    def next_event(self) -> Event:
        return Deadline(7)

    def set_alarm(self, version: int, seconds: float) -> None:
        self.calls.append(("alarm", version, seconds))


def test_everything_is_handed_on() -> None:
    inner = Noted()
    around = Around(inner)
    requests = [StatisticsRequest("north", 0, 5)]
    around.begin_at(2.0, {"sent": 1})
    assert around.state() == {"queue": [3]}
    around.submit(requests)
    around.set_alarm(4, 5.0)
    assert (around.now, around.more_now, around.next_event()) == (3.5, True, Deadline(7))
    assert inner.calls == [("begin", 2.0, {"sent": 1}), requests, ("alarm", 4, 5.0)]
