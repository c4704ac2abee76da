"""Moves the federation's messages over Ray calls."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from rayfed_hn.errors import FederationError, MessageError
from rayfed_hn.federation.loop import Read
from rayfed_hn.federation.messages import (
    CandidatesRequest,
    Deadline,
    Event,
    Request,
    SiteLost,
    TrainRequest,
    read_answer,
)

CALL_BYTES = 2**28  # of networks in one call


class RayExecutor:
    """Sites on actors; every request is answered by an event, a dead actor by ``SiteLost``.

    Requests to sites of one actor are one call: what several of them carry, such as a network that
    all sites share, travels once. Answers come back some at a time, while the actor works on.

    Args:
        hosts: The actor handle of every site; several sites may share one.
        read: From what was asked and what came back to an event.
    """

    def __init__(self, hosts: Mapping[str, Any], read: Read = read_answer) -> None:
        self._hosts, self._read = hosts, read
        self._calls: dict[Any, deque[Request]] = {}  # what is not answered yet, in order
        self._events: deque[Event] = deque()
        self._alarm: tuple[int, float] | None = None
        self._start = time.monotonic()

    @property
    def now(self) -> float:
        return time.monotonic() - self._start

    @property
    def more_now(self) -> bool:
        return False  # no two moments of real time are the same

    def state(self) -> dict[str, Any]:
        return {}

    def begin_at(self, seconds: float, state: Mapping[str, Any]) -> None:
        self._start = time.monotonic() - seconds

    def submit(self, requests: Sequence[Request]) -> None:
        shares: dict[Any, list[Request]] = {}
        for request in requests:
            shares.setdefault(self._hosts[request.site], []).append(request)
        for host, share in shares.items():
            for call in _calls(share):
                self._calls[host.answers.remote(call)] = deque(call)

    def set_alarm(self, version: int, seconds: float) -> None:
        self._alarm = version, time.monotonic() + seconds

    def next_event(self) -> Event:
        while not self._events:
            if not self._calls:  # ray.wait([]) returns at once: a loop around it would spin
                raise FederationError("nothing is in flight; waiting would never end")
            left = None if self._alarm is None else max(0.0, self._alarm[1] - time.monotonic())
            ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=left)
            if not ready and self._alarm is not None:
                version, self._alarm = self._alarm[0], None
                return Deadline(version)
            self._take(ready[0])
        return self._events.popleft()

    def _take(self, call: Any) -> None:
        """Turn the next answers of a call into events."""
        waiting = self._calls[call]
        try:
            messages = _checked(ray.get(next(call)), len(waiting))
        except (RayError, StopIteration, MessageError) as error:
            # Ray's texts hold addresses, paths and tracebacks: only the kind is passed on.
            self._events.extend(_lost(request, type(error).__name__) for request in waiting)
            waiting.clear()
        else:
            for message in messages:
                self._events.append(self._read(waiting.popleft(), message.data))
        if not waiting:
            del self._calls[call]


def _calls(requests: Sequence[Request]) -> Iterator[list[Request]]:
    """Requests that travel together: networks of a certain size at most, so that all find room."""
    call: list[Request] = []
    sizes: dict[int, int] = {}
    for request in requests:
        if isinstance(request, TrainRequest | CandidatesRequest):
            network = request.parameters
            if call and id(network) not in sizes and sum(sizes.values()) >= CALL_BYTES:
                yield call
                call, sizes = [], {}
            sizes[id(network)] = network.nbytes
        call.append(request)
    if call:
        yield call


def _checked(messages: Any, expected: int) -> list[np.ndarray]:
    """Answers as a host gives them, at most as many as are expected.

    Raises:
        MessageError: They are something else.
    """
    if not isinstance(messages, list) or not 0 < len(messages) <= expected:
        raise MessageError("not a list of answers")
    if not all(isinstance(m, np.ndarray) and m.dtype == np.uint8 and m.ndim == 1 for m in messages):
        raise MessageError("not answers in bytes")
    return messages


def _lost(request: Request, kind: str) -> SiteLost:
    turn = request.turn if isinstance(request, TrainRequest) else 0
    return SiteLost(request.site, request.version, f"its actor died ({kind})", turn)
