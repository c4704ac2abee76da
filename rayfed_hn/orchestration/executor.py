"""Moves the federation's messages over Ray calls."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from rayfed_hn.errors import FederationError
from rayfed_hn.federation.messages import (
    Deadline,
    Event,
    Request,
    SiteLost,
    TrainRequest,
    read_answer,
)


class RayExecutor:
    """Sites on actors; every call is answered by an event, a dead actor by ``SiteLost``.

    Args:
        hosts: The actor handle of every site; several sites may share one.
    """

    def __init__(self, hosts: Mapping[str, Any]) -> None:
        self._hosts = hosts
        self._in_flight: dict[ray.ObjectRef, Request] = {}
        self._alarm: tuple[int, float] | None = None
        self._start = time.monotonic()

    @property
    def now(self) -> float:
        return time.monotonic() - self._start

    @property
    def more_now(self) -> bool:
        return False  # no two moments of real time are the same

    def begin_at(self, seconds: float) -> None:
        self._start = time.monotonic() - seconds

    def submit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._in_flight[self._hosts[request.site].answer.remote(request)] = request

    def set_alarm(self, version: int, seconds: float) -> None:
        self._alarm = version, time.monotonic() + seconds

    def next_event(self) -> Event:
        if not self._in_flight:  # ray.wait([]) returns at once: a loop around it would spin
            raise FederationError("nothing is in flight; waiting would never end")
        left = None if self._alarm is None else max(0.0, self._alarm[1] - time.monotonic())
        ready, _ = ray.wait(list(self._in_flight), num_returns=1, timeout=left)
        if not ready and self._alarm is not None:
            version, self._alarm = self._alarm[0], None
            return Deadline(version)
        request = self._in_flight.pop(ready[0])
        try:
            message = ray.get(ready[0])
        except RayError as error:
            # Ray's texts hold addresses, paths and tracebacks: only the kind is passed on.
            why = f"its actor died ({type(error).__name__})"
            turn = request.turn if isinstance(request, TrainRequest) else 0
            return SiteLost(request.site, request.version, why, turn)
        return read_answer(request, message)
