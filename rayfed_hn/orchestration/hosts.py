"""The actors that sites live on: how they are started, die, and are started again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from rayfed_hn.config import Config
from rayfed_hn.federation.messages import (
    CandidatesRequest,
    EvaluateRequest,
    PrepareRequest,
    Request,
    SiteLost,
    TrainRequest,
)

RECALL_BYTES = 2**28  # of networks that are kept so that a site can be told them again


@dataclass(frozen=True)
class Home:
    """How the actor of some sites is started, the first time and in place of a dead one.

    Attributes:
        sites: Who lives there.
        actor: Its class, as Ray has it, with its options.
        arguments: Of its constructor, but for the last one: whether it takes up what sites kept.
    """

    sites: tuple[str, ...]
    actor: Any
    arguments: tuple[Any, ...]

    def start(self, resume: bool) -> Any:
        """A new actor; it may wait for a place."""
        return self.actor.remote(*self.arguments, resume)


@dataclass(frozen=True)
class Care:
    """What is done about actors of sites that die, are silent, or have no place.

    Attributes:
        renew: Starts the actor that a site lives on anew; None: who dies stays dead.
        restarts: Deaths in a row, without an answer in between, that are made good.
        silence: Seconds that an actor with requests may say nothing.
        wait: Seconds that a new actor may wait for its place before its sites count as away; None:
            they do not, as simulated time stands still meanwhile.
        limit: Seconds after which its sites are lost for good.
        end: Ends an actor that is silent or out of reach.
    """

    renew: Callable[[str], Any] | None = None
    restarts: int = 0
    silence: float | None = None
    wait: float | None = None
    limit: float = 3600.0
    end: Callable[[Any], object] = ray.kill

    @classmethod
    def of(cls, config: Config, homes: Iterable[Home]) -> Care:
        """As a run is configured."""
        home_of = {site: home for home in homes for site in home.sites}
        resources, rounds = config.resources, config.rounds
        all_wait = config.simulation.enabled or rounds.replay is not None
        return cls(
            lambda site: home_of[site].start(resume=True),
            resources.site_restarts,
            rounds.answer_timeout,
            None if all_wait else min(resources.node_wait, resources.node_limit),
            resources.node_limit,
        )


@dataclass(eq=False)
class Host:
    """An actor through all its lives, and what its sites were asked.

    Attributes:
        actor: The handle of the present life.
        sites: Who lives there.
        calls: What is not answered yet, by call, in order.
        starting: What a new actor answers once it has a place; None: it is there.
        since: When it was started anew, by the clock of the process.
        waiting: What is asked once it is there.
        heard: When it said something last or was asked while idle, by the clock of the executor.
        deaths: Since its last answer.
        silent: It was ended for its silence.
        away: What was told of sites that are expected back; None as long as nobody is away.
        gone: Why its sites are lost for good.
    """

    actor: Any
    sites: tuple[str, ...]
    calls: dict[Any, deque[Request]] = field(default_factory=dict)
    starting: Any = None
    since: float = 0.0
    waiting: list[Request] = field(default_factory=list)
    heard: float = 0.0
    deaths: int = 0
    silent: bool = False
    away: dict[str, SiteLost] | None = None
    gone: str | None = None
    memory: Recalled = field(default_factory=lambda: Recalled())

    def unanswered(self) -> list[Request]:
        """Everything that it was asked in vain, in order; its calls are forgotten."""
        asked = [r for call in self.calls.values() for r in call if not self.memory.echoes(r)]
        found = [*asked, *self.waiting]
        self.calls.clear()
        self.waiting.clear()
        return found


class Recalled:
    """What the process of a site has been told and would not know after a restart.

    The scale of the features, and the networks that are about to be scored; the latter up to
    ``RECALL_BYTES``, beyond which a site that dies in between is lost.
    """

    def __init__(self) -> None:
        self._told: dict[str, list[Request]] = {}
        self._owed: dict[str, list[Request]] = {}
        self._echoes: dict[int, Request] = {}
        self._seen: set[int] = set()  # arrays that many requests share count once
        self._bytes = 0

    def answered(self, request: Request) -> bool:
        """Take note; returns whether anybody waits for this answer."""
        if self._echoes.pop(id(request), None) is not None:
            return False
        if isinstance(request, PrepareRequest) or (
            isinstance(request, CandidatesRequest) and self._room(request)
        ):
            told = self._told.get(request.site, [])
            kept = [old for old in told if type(old) is not type(request)]
            self._told[request.site] = [*kept, request]
        return True

    def owe(self, request: PrepareRequest) -> None:
        """A site that is away is to be told this when it is back, before anything else."""
        self._told[request.site] = [request]
        self._owed[request.site] = [request]

    def echoes(self, request: Request) -> bool:
        """Whether a request was only sent to tell a site again what it knew."""
        return id(request) in self._echoes

    def restarted(self) -> None:
        """All of it is to be told again, when it is needed."""
        self._owed = {site: list(told) for site, told in self._told.items()}
        self._echoes.clear()

    def before(self, request: Request) -> Iterator[Request]:
        """What a site is to be told again before it is asked this."""
        owed = self._owed.get(request.site)
        if not owed:
            return
        for old in tuple(owed):
            if isinstance(old, PrepareRequest) or isinstance(request, EvaluateRequest):
                owed.remove(old)
                if not isinstance(request, PrepareRequest):
                    self._echoes[id(old)] = old
                    yield old

    def _room(self, request: CandidatesRequest) -> bool:
        arrays = [a for a in (request.parameters, request.shared_SP) if id(a) not in self._seen]
        needed = sum(array.nbytes for array in arrays)
        if self._bytes + needed > RECALL_BYTES:
            return False
        self._seen |= {id(array) for array in arrays}  # kept from here on: ids stay theirs
        self._bytes += needed
        return True


def hosts_of(handles: Mapping[str, Any]) -> dict[str, Host]:
    """The host of every site; sites with the same handle share one."""
    sites: dict[Any, list[str]] = {}
    for site, handle in handles.items():
        sites.setdefault(handle, []).append(site)
    hosts = {handle: Host(handle, tuple(names)) for handle, names in sites.items()}
    return {site: hosts[handle] for site, handle in handles.items()}


def lost(request: Request, reason: str, *, returns: bool = False) -> SiteLost:
    """What the server is told of a request that will not be answered."""
    turn = request.turn if isinstance(request, TrainRequest) else 0
    return SiteLost(request.site, request.version, reason, turn, returns)
