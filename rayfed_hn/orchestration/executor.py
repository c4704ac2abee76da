"""Moves the federation's messages over Ray calls."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from rayfed_hn.errors import FederationError, MessageError
from rayfed_hn.federation.loop import Read
from rayfed_hn.federation.messages import (
    CandidatesRequest,
    Deadline,
    Event,
    PrepareRequest,
    Request,
    SiteBack,
    TrainRequest,
    read_answer,
)
from rayfed_hn.federation.recalled import lost
from rayfed_hn.orchestration.hosts import Care, Host, hosts_of

CALL_BYTES = 2**28  # of networks in one call
_NAMED = 5  # sites in one line
TELL_SECONDS = 60.0  # of silence, after which somebody at the console wants to know


class RayExecutor:
    """Sites on actors; every request is answered by an event.

    Requests to sites of one actor are one call: what several of them carry, such as a network that
    all sites share, travels once. Answers come back some at a time, while the actor works on.

    An actor that dies is started anew, if there is a way to, and asked again what it has not
    answered: a site answers the same request with the same bytes. Its sites are lost (``SiteLost``)
    when that happens too often in a row; they are away until ``SiteBack`` when their node is.

    Args:
        hosts: The actor handle of every site; several sites may share one.
        read: From what was asked and what came back to an event.
        care: What is done about actors that die.

    Attributes:
        restarts: How often the actor of a site was started anew.
    """

    def __init__(
        self, hosts: Mapping[str, Any], read: Read = read_answer, care: Care | None = None
    ) -> None:
        self._hosts, self._read, self._care = hosts_of(hosts), read, care or Care()
        self._all = tuple(dict.fromkeys(self._hosts.values()))
        self._under_way: dict[Any, Host] = {}  # calls, and actors that are starting
        self._events: deque[Event] = deque()
        self._alarm: tuple[int, float] | None = None
        self._start = time.monotonic()
        self._waited = 0.0  # seconds: only who is waited for can be silent
        self._told, self._last, self._waiting = 0.0, time.monotonic(), False
        self.restarts: Counter[str] = Counter()

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
        shares: dict[Host, list[Request]] = {}
        for request in requests:
            shares.setdefault(self._hosts[request.site], []).append(request)
        for host, share in shares.items():
            if host.gone is not None:
                self._events.extend(lost(request, host.gone) for request in share)
            elif host.starting is None:
                self._call(host, share)
            else:
                host.waiting += share
                if host.away is not None:
                    self._send_away(host)

    def set_alarm(self, version: int, seconds: float) -> None:
        self._alarm = version, time.monotonic() + seconds

    def next_event(self) -> Event:
        while not self._events:
            if not self._under_way:  # ray.wait([]) returns at once: a loop around it would spin
                gone = {host.gone for host in self._all if host.gone is not None}
                why = "".join(f"; a site was lost: {reason}" for reason in sorted(gone))
                raise FederationError(f"nothing is in flight; waiting would never end{why}")
            left, act = min(self._timers(), key=lambda timer: timer[0], default=(None, None))
            left = None if left is None else max(0.0, left)
            begun = time.monotonic()
            self._last = self._last if self._waiting else begun
            self._waiting = True
            ready, _ = ray.wait(list(self._under_way), num_returns=1, timeout=left)
            self._waited += time.monotonic() - begun
            if ready:
                self._take(ready[0])
            elif act is not None:
                act()
        self._waiting = False
        return self._events.popleft()

    def _timers(self) -> Iterator[tuple[float, Callable[[], object]]]:
        """What is to be done if nothing happens, and in how many seconds."""
        now, care = time.monotonic(), self._care
        yield max(self._last, self._told) + TELL_SECONDS - now, self._tell
        if self._alarm is not None:
            yield self._alarm[1] - now, self._ring
        for host in self._all:
            if host.starting is not None and (care.wait is None or host.away is not None):
                yield host.since + care.limit - now, partial(self._give_up, host)
            elif host.starting is not None and care.wait is not None:
                yield host.since + care.wait - now, partial(self._send_away, host)
            elif host.calls and care.silence is not None:
                yield host.heard + care.silence - self._waited, partial(self._end, host)

    def _tell(self) -> None:
        """Say on the console who is waited for; site names only."""
        self._told = time.monotonic()
        sites = [site for host in dict.fromkeys(self._under_way.values()) for site in host.sites]
        named = ", ".join(sites[:_NAMED]) + (" and others" if len(sites) > _NAMED else "")
        quiet = self._told - self._last
        print(f"nothing heard for {quiet:.0f} s; waiting for {named}", flush=True)

    def _ring(self) -> None:
        if self._alarm is not None:
            self._events.append(Deadline(self._alarm[0]))
            self._alarm = None

    def _call(self, host: Host, requests: Sequence[Request]) -> None:
        if not host.calls:
            host.heard = self._waited
        whole = [one for request in requests for one in (*host.memory.before(request), request)]
        for share in _calls(whole):
            call = host.actor.answers.remote(share)
            host.calls[call], self._under_way[call] = deque(share), host

    def _take(self, reference: Any) -> None:
        """Turn the next answers of a call into events, or take note that an actor is there."""
        host, self._last = self._under_way[reference], time.monotonic()
        if reference == host.starting:
            self._started(host)
            return
        waiting = host.calls[reference]
        try:
            messages = _checked(ray.get(next(reference)), len(waiting))
        except (RayError, StopIteration, MessageError) as error:
            # Ray's texts hold addresses, paths and tracebacks: only the kind is passed on.
            kind = type(error).__name__
            if self._care.renew is not None and _is_death(error):
                self._died(host, kind)
                return
            reason = f"its actor died ({kind})"
            self._events.extend(lost(r, reason) for r in waiting if not host.memory.echoes(r))
            waiting.clear()
        else:
            host.heard = self._waited
            for message in messages:
                request = waiting.popleft()
                if host.memory.answered(request):
                    host.deaths, host.silent = 0, False
                    self._events.append(self._read(request, message.data))
        if not waiting:
            del host.calls[reference], self._under_way[reference]

    def _died(self, host: Host, kind: str) -> None:
        """Start the actor anew; its sites are asked again once it has a place."""
        for reference in (*host.calls, host.starting):
            self._under_way.pop(reference, None)
        host.waiting, host.starting = host.unanswered(), None
        host.deaths += 1
        self._care.end(host.actor)  # which may only have been out of reach
        if host.deaths > self._care.restarts:
            what = f"its actor died ({kind})"
            if host.silent:
                what = f"it did not answer within {self._care.silence:g} s"
            self._lose(host, f"{what}, {host.deaths} times in a row" if host.deaths > 1 else what)
            return
        assert self._care.renew is not None
        host.actor = self._care.renew(host.sites[0])
        host.starting, host.since = host.actor.ready.remote(), time.monotonic()
        self._under_way[host.starting] = host
        host.memory.restarted()
        self.restarts.update(host.sites)

    def _started(self, host: Host) -> None:
        try:
            ray.get(host.starting)
        except RayError as error:
            self._died(host, type(error).__name__)
            return
        del self._under_way[host.starting]
        host.starting = None
        self._events.extend(SiteBack(site) for site in host.away or ())
        host.away = None
        waiting, host.waiting = host.waiting, []
        if waiting:
            self._call(host, waiting)

    def _end(self, host: Host) -> None:
        """End an actor that says nothing; its calls then say that it has died."""
        host.silent, host.heard = True, self._waited
        self._care.end(host.actor)

    def _send_away(self, host: Host) -> None:
        """The others go on without sites whose actor has no place."""
        host.away = host.away or {}
        for request in host.waiting:
            # Who trains is missed for a while, and prepared later; nobody is scored later.
            later = isinstance(request, TrainRequest | PrepareRequest)
            loss = lost(request, "its node is away", returns=later)
            self._events.append(loss)
            if later:
                host.away[request.site] = loss
            if isinstance(request, PrepareRequest):
                host.memory.owe(request)
        host.waiting.clear()

    def _give_up(self, host: Host) -> None:
        """Wait no longer for a place."""
        self._under_way.pop(host.starting)
        host.starting = None
        self._care.end(host.actor)
        self._lose(host, f"its node did not come back within {self._care.limit:g} s")

    def _lose(self, host: Host, reason: str) -> None:
        host.gone = reason
        self._events.extend(lost(request, reason) for request in host.waiting)
        # Who was to come back will not, and the server may have counted on it.
        away = (host.away or {}).values()
        self._events.extend(replace(loss, reason=reason, returns=False) for loss in away)
        host.waiting.clear()
        host.away = None


def _is_death(error: Exception) -> bool:
    """Whether an actor has died or is out of reach; an error raised within it would come again."""
    return isinstance(error, RayError) and not isinstance(error, RayTaskError)


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
