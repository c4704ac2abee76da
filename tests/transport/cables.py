"""Streams in memory, with a clock of their own, that can be cut at any frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from rayfed_hn.errors import MessageError
from rayfed_hn.transport.frames import GREETING_BYTES, Assembler, Frame, pieces
from rayfed_hn.transport.links import Arrival, Closed, Opened, Received
from rayfed_hn.transport.site_agent import Reply


class Agent(Protocol):
    """A site's end: ``SiteAgent``, or a puppet."""

    def hello(self) -> Frame: ...

    def take(self, frame: Frame) -> Reply: ...


Fault = Callable[["Cables", str, Frame], bool]  # whether the frame is lost; may do anything else


@dataclass
class Cables:
    """``links.Transport`` without a network. Sites work when nobody else has anything to do.

    Attributes:
        fault: Asked before a site gets a frame.
        after: Asked when it has answered: whether its answer is lost.
        now: Seconds of the clock, which only waiting moves.
    """

    fault: Fault = lambda cables, site, frame: False
    after: Fault = lambda cables, site, frame: False
    now: float = 0.0
    limit: int = GREETING_BYTES
    agents: dict[str, Agent] = field(default_factory=dict)
    ended: dict[str, Reply] = field(default_factory=dict)
    _admitted: set[str] = field(default_factory=set)
    _made: int = 0
    _streams: dict[str, int] = field(default_factory=dict)
    _told: dict[str, int] = field(default_factory=dict)
    _arrivals: deque[Arrival] = field(default_factory=deque)
    _down: deque[tuple[str, Frame]] = field(default_factory=deque)
    _opened: deque[int] = field(default_factory=deque)
    _later: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def connect(self, site: str, agent: Agent) -> None:
        """A site dials in; an older stream of it is replaced."""
        self.cut(site)
        self.agents[site] = agent
        self._arrivals.append(Opened(site))
        self._made += 1
        self._streams[site] = self._made
        self._opened.append(self._made)
        self.up(site, agent.hello())

    def cut(self, site: str) -> None:
        """The stream breaks; what is under way on it is lost."""
        if self.agents.pop(site, None) is not None:
            del self._streams[site]
            self._admitted.discard(site)
            self._arrivals.append(Closed(site))
        self._down = deque(entry for entry in self._down if entry[0] != site)

    def at(self, moment: float, what: Callable[[], object]) -> None:
        """Something happens at this time of the clock."""
        self._later.append((moment, what))

    def up(self, site: str, frame: Frame) -> None:
        """A frame from a site."""
        self.raw(site, list(pieces(frame)))

    def raw(self, site: str, parts: list[bytes]) -> None:
        """Pieces from a site, whatever they are."""
        assembler = Assembler(self.limit if site in self._admitted else GREETING_BYTES)
        for piece in parts:
            try:
                frame = assembler.add(piece)
            except MessageError as error:
                del self.agents[site], self._streams[site]
                self._arrivals.append(Closed(site, str(error)))
                return
            if frame is not None:
                self._arrivals.append(Received(site, frame))

    def next(self, timeout: float | None) -> Arrival | None:
        until = None if timeout is None else self.now + timeout
        while not self._arrivals:
            if self._down:
                self._work(*self._down.popleft())
                continue
            due = min(self._later, key=lambda entry: entry[0], default=None)
            if due is not None and (until is None or due[0] <= until):
                self._later.remove(due)
                self.now = max(self.now, due[0])
                due[1]()
                continue
            assert until is not None, "this would wait for ever"
            self.now = until
            return None
        arrival = self._arrivals.popleft()
        if isinstance(arrival, Opened):
            self._told[arrival.site] = self._opened.popleft()
        elif isinstance(arrival, Closed):
            del self._told[arrival.site]
        return arrival

    def send(self, site: str, frame: Frame) -> None:
        if self._is_told(site):
            self._down.append((site, _through(frame)))

    def _is_told(self, site: str) -> bool:
        return site in self._streams and self._told.get(site) == self._streams[site]

    def close(self, site: str) -> None:
        if not self._is_told(site):
            return
        for entry in [entry for entry in self._down if entry[0] == site]:
            self._down.remove(entry)
            if site in self.agents:
                self._hear(site, self.agents[site].take(entry[1]))
        self.cut(site)

    def admit(self, site: str) -> None:
        if self._is_told(site):
            self._admitted.add(site)

    def allow(self, num_bytes: int) -> None:
        self.limit = max(num_bytes, GREETING_BYTES)

    def _work(self, site: str, frame: Frame) -> None:
        if self.fault(self, site, frame) or site not in self.agents:
            return
        reply = self.agents[site].take(frame)
        if not self.after(self, site, frame):
            self._hear(site, reply)

    def _hear(self, site: str, reply: Reply) -> None:
        if reply.frame is not None:
            self.up(site, reply.frame)
        if reply.ended:
            self.ended[site] = reply


def _through(frame: Frame) -> Frame:
    """As it is on the other side."""
    assembler = Assembler(2**40)
    (found,) = [f for f in map(assembler.add, pieces(frame)) if f is not None]
    return found
