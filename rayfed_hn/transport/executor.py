"""Moves the federation's messages to sites that are elsewhere."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rayfed_hn.errors import FederationError
from rayfed_hn.federation.loop import Read
from rayfed_hn.federation.messages import (
    Deadline,
    Event,
    PrepareRequest,
    Request,
    SiteBack,
    TrainRequest,
    read_answer,
)
from rayfed_hn.federation.recalled import lost
from rayfed_hn.transport.care import Care
from rayfed_hn.transport.frames import Ending
from rayfed_hn.transport.line import Line
from rayfed_hn.transport.reception import Answered, Gone, Here, News, Reception
from rayfed_hn.transport.requests import request_frame

TELL_SECONDS = 60.0  # of silence, after which somebody at the console wants to know


class TransportExecutor:
    """Sites behind streams; every request is answered by an event.

    A site whose stream breaks is asked again, once it has another, what it has not answered: it
    answers the same request with the same bytes. It is away until then if that takes long, and lost
    for good if it takes longer (``Care``).

    Args:
        reception: Admits sites, and carries frames.
        sites: Who takes part.
        read: From what was asked and what came back to an event.
        care: How long to wait for whom.
        clock: Seconds of a clock that is never put back.

    Attributes:
        restarts: How often the process of a site was started anew.
    """

    def __init__(
        self,
        reception: Reception,
        sites: Sequence[str],
        read: Read = read_answer,
        care: Care | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reception, self._read, self._clock = reception, read, clock
        self._care = care or Care()
        self._lines = {site: Line(site, since=clock()) for site in sites}
        for site, life in reception.present.items():
            if site in self._lines:
                self._lines[site].life, self._lines[site].here = life, True
        self._number = 0
        self._events: deque[Event] = deque()
        self._alarm: tuple[int, float] | None = None
        self._start = self._last = clock()
        self._waited = self._told = 0.0
        self.restarts: Counter[str] = Counter()

    @property
    def now(self) -> float:
        return self._clock() - self._start

    @property
    def more_now(self) -> bool:
        return False  # no two moments of real time are the same

    def state(self) -> dict[str, Any]:
        return {}

    def begin_at(self, seconds: float, state: Mapping[str, Any]) -> None:
        self._start = self._clock() - seconds

    def submit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            line = self._lines[request.site]
            if line.gone is not None:
                self._events.append(lost(request, line.gone))
            elif line.here:
                self._ask(line, request)
            else:
                line.waiting.append(request)
                if line.away is not None:
                    self._send_away(line)

    def set_alarm(self, version: int, seconds: float) -> None:
        self._alarm = version, self._clock() + seconds

    def next_event(self) -> Event:
        self._last = self._clock()
        while not self._events:
            if not any(line.under_way for line in self._lines.values()):
                gone = {line.gone for line in self._lines.values() if line.gone is not None}
                why = "".join(f"; a site was lost: {reason}" for reason in sorted(gone))
                raise FederationError(f"nothing is in flight; waiting would never end{why}")
            begun = self._clock()
            left, act = min(self._timers(), key=lambda timer: timer[0])
            news = self._reception.next(max(0.0, left))
            self._waited += self._clock() - begun
            if news is not None:
                self._take(news)
            elif self._clock() - begun >= left:
                act()
        return self._events.popleft()

    def _timers(self) -> Iterator[tuple[float, Callable[[], object]]]:
        """What is to be done if nothing happens, and in how many seconds."""
        now, care = self._clock(), self._care
        yield max(self._last, self._told) + TELL_SECONDS - now, self._tell
        if self._alarm is not None:
            yield self._alarm[1] - now, self._ring
        for line in self._lines.values():
            if line.gone is not None:
                continue
            if not line.here and (care.wait is None or line.away is not None):
                yield line.since + care.limit - now, partial(self._give_up, line)
            elif not line.here and care.wait is not None and line.under_way:
                yield line.since + care.wait - now, partial(self._send_away, line)
            elif line.asked and line.here and care.silence is not None:
                yield line.heard + care.silence - self._waited, partial(self._hang_up, line)

    def _tell(self) -> None:
        """Say on the console who is waited for; site names only."""
        self._told = self._clock()
        sites = [line.site for line in self._lines.values() if line.under_way]
        quiet = self._told - self._last
        print(f"nothing heard for {quiet:.0f} s; waiting for {', '.join(sites)}", flush=True)

    def _ring(self) -> None:
        if self._alarm is not None:
            self._events.append(Deadline(self._alarm[0]))
            self._alarm = None

    def _ask(self, line: Line, request: Request) -> None:
        if not line.asked:
            line.heard = self._waited - line.quiet
        self._reception.begin([line.site])
        for one in (*line.memory.before(request), request):
            self._number += 1
            line.asked[self._number] = one
            self._reception.send(line.site, request_frame(one, self._number))

    def _take(self, news: News) -> None:
        line = self._lines.get(news.site)
        if line is None:  # it has a card, but nothing to train on
            if isinstance(news, Here):
                self._reception.dismiss(news.site, Ending.NO_PART)
            return
        self._last = self._clock()
        match news:
            case Here():
                self._arrived(line, news.life)
            case Gone():
                line.broke(self._clock(), self._waited)
                if news.fault is not None:
                    self._trouble(line, "it sent what makes no sense")
            case Answered():
                self._answered(line, news)

    def _answered(self, line: Line, news: Answered) -> None:
        request = line.asked.pop(news.number, None)
        if request is None:
            return  # an answer that came twice, or that nobody waits for any more
        line.spoke(self._waited)
        if line.memory.answered(request):
            self._events.append(self._read(request, news.message))

    def _arrived(self, line: Line, life: int) -> None:
        anew = line.arrived(life, self._clock(), self._waited)
        if line.gone is not None:
            self._reception.dismiss(line.site, Ending.GIVEN_UP)
            return
        if anew:
            self.restarts[line.site] += 1
            if line.asked:
                self._trouble(line, "its process died")
            line.waiting, line.quiet = line.unanswered(), 0.0
            line.memory.restarted()
        if line.gone is not None:
            return
        self._events.extend(SiteBack(line.site) for _ in (line.away or ())[:1])
        line.away = None
        for number, request in line.asked.items():
            self._reception.send(line.site, request_frame(request, number))
        waiting, line.waiting = line.waiting, []
        for request in waiting:
            self._ask(line, request)

    def _hang_up(self, line: Line) -> None:
        """Close the stream of a site that says nothing; it may come back with an answer."""
        line.heard, line.quiet = self._waited, 0.0
        self._reception.drop(line.site)
        self._trouble(line, f"it did not answer within {self._care.silence:g} s")

    def _trouble(self, line: Line, what: str) -> None:
        line.troubles += 1
        if line.troubles > self._care.restarts:
            times = f", {line.troubles} times in a row" if line.troubles > 1 else ""
            self._lose(line, what + times)

    def _send_away(self, line: Line) -> None:
        """The others go on without a site that has no stream."""
        away = line.away or []
        for request in line.unanswered():
            # Who trains is missed for a while, and prepared later; nobody is scored later.
            later = isinstance(request, TrainRequest | PrepareRequest)
            loss = lost(request, "its site is away", returns=later)
            self._events.append(loss)
            if later:
                away = [loss]
            if isinstance(request, PrepareRequest):
                line.memory.owe(request)
        line.away = away

    def _give_up(self, line: Line) -> None:
        self._lose(line, f"its site did not come back within {self._care.limit:g} s")

    def _lose(self, line: Line, reason: str) -> None:
        line.gone = reason
        self._events.extend(lost(request, reason) for request in line.unanswered())
        # Who was to come back will not, and the server may have counted on it.
        away = line.away or ()
        self._events.extend(replace(loss, reason=reason, returns=False) for loss in away)
        line.away = None
        self._reception.dismiss(line.site, Ending.GIVEN_UP)
