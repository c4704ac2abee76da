"""Moves the federation's messages over Ray calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from rayfed_hn.errors import FederationError
from rayfed_hn.federation.messages import Event, Request, SiteLost, read_answer


class RayExecutor:
    """Sites on actors; every call is answered by an event, a dead actor by ``SiteLost``.

    Args:
        hosts: The actor handle of every site; several sites may share one.
    """

    def __init__(self, hosts: Mapping[str, Any]) -> None:
        self._hosts = hosts
        self._in_flight: dict[ray.ObjectRef, Request] = {}

    def submit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._in_flight[self._hosts[request.site].answer.remote(request)] = request

    def next_event(self) -> Event:
        if not self._in_flight:  # ray.wait([]) returns at once: a loop around it would spin
            raise FederationError("nothing is in flight; waiting would never end")
        ready, _ = ray.wait(list(self._in_flight), num_returns=1)
        request = self._in_flight.pop(ready[0])
        try:
            message = ray.get(ready[0])
        except RayError as error:
            # Ray's texts hold addresses, paths and tracebacks: only the kind is passed on.
            return SiteLost(
                request.site, request.version, f"its actor died ({type(error).__name__})"
            )
        return read_answer(request, message)
