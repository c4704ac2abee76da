"""The actors that sites live on: how they are started, die, and are started again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from rayfed_hn.config import Config
from rayfed_hn.federation.messages import Request, SiteLost
from rayfed_hn.federation.recalled import Recalled


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
    memory: Recalled = field(default_factory=Recalled)

    def unanswered(self) -> list[Request]:
        """Everything that it was asked in vain, in order; its calls are forgotten."""
        asked = [r for call in self.calls.values() for r in call if not self.memory.echoes(r)]
        found = [*asked, *self.waiting]
        self.calls.clear()
        self.waiting.clear()
        return found


def hosts_of(handles: Mapping[str, Any]) -> dict[str, Host]:
    """The host of every site; sites with the same handle share one."""
    sites: dict[Any, list[str]] = {}
    for site, handle in handles.items():
        sites.setdefault(handle, []).append(site)
    hosts = {handle: Host(handle, tuple(names)) for handle, names in sites.items()}
    return {site: hosts[handle] for site, handle in handles.items()}
