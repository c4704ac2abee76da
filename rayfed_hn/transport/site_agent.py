"""A site's end of a stream, without the stream: what it says to what it is told."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, FederationError, MessageError, RayfedError
from rayfed_hn.federation.cards import SiteCard
from rayfed_hn.federation.failures import failure_message, read_failure
from rayfed_hn.federation.messages import TrainRequest
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.promises import noise_multiplier
from rayfed_hn.federation.run_summary import bags_summary, plan_summary
from rayfed_hn.federation.site import note_failure
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.wire import Message
from rayfed_hn.files import write_text
from rayfed_hn.run_directory import known_run
from rayfed_hn.saving import saving
from rayfed_hn.transport.agreement import check_settings, own_card, stated_task
from rayfed_hn.transport.asked import Asked
from rayfed_hn.transport.frames import (
    GREETING_BYTES,
    Ending,
    Frame,
    Kind,
    end,
    read_end,
)
from rayfed_hn.transport.greetings import MAX_LIFE, Hello, Welcome, program
from rayfed_hn.transport.requests import Shapes, read_request

_AGAIN = "the same command with run.resume=true joins it again"
_WHY = {
    Ending.FAILED: "the run has failed at the server",
    Ending.REPLACED: "another process joined with this site's certificate; only one may",
    Ending.NOT_UNDERSTOOD: "the server did not understand; are both of one version?",
    Ending.OTHER_RUN: "run.dir is of another run than the server's; give another run.dir",
    Ending.FORGOTTEN: "the run has begun, and this folder knows nothing of it; give the run.dir "
    "that the site joined with, and run.resume=true",
    Ending.OTHER_BAGS: "these are other bags than those that the run began with; bring them back",
    Ending.GIVEN_UP: "the server has given this site up (resources.node_limit); its bags take no "
    "part from there on",
    Ending.NO_PART: "the site has no case to train on in this fold, and takes no part",
}


@dataclass(frozen=True)
class Reply:
    """What a site says to a frame.

    Attributes:
        frame: To be sent; None: nothing.
        ended: Whether that was all.
        error: Why, if that is no good end.
    """

    frame: Frame | None = None
    ended: bool = False
    error: RayfedError | None = None


class SiteAgent:
    """One site of a run: checks the server's settings, then answers its requests.

    Args:
        config: The site's own configuration.
        root: Its bag store.
        site: Its name.
        folder: Its run directory.
        device: Where it trains.
        tell: Called with what the operator should know, in a line.
        on_version: Called with the version that the site has trained for.

    Raises:
        ConfigError, DataError: The configuration or the bags cannot be used.
    """

    def __init__(
        self,
        config: Config,
        root: Path,
        site: str,
        folder: Path,
        device: str = "cpu",
        tell: Callable[[str], object] = lambda line: None,
        on_version: Callable[[int], object] = lambda version: None,
    ) -> None:
        self._config, self._root, self.site, self._folder = config, root, site, folder
        self._device, self._tell, self._on_version = device, tell, on_version
        self._task = stated_task(config)
        self.card: SiteCard = own_card(config, root, site)
        self._life = 1 + secrets.randbelow(MAX_LIFE)
        self._host: SiteHost | None = None
        self._run = known_run(folder)
        self._last: tuple[bytes, Message] | None = None
        self._shapes = Shapes.of(self._plan(""))
        self._asked = Asked(folder, config)
        self.num_answers = 0

    @property
    def limit(self) -> int:
        """Bytes of the longest frame that may come."""
        return max(GREETING_BYTES, self._shapes.request_bytes)

    def hello(self) -> Frame:
        """What is said first on every stream."""
        hello = Hello(self._life, self._run or "", program(), self.card)
        names = () if self._task.kind == "survival" else self._task.names
        return Frame(Kind.HELLO, hello.to_bytes(names))

    def take(self, frame: Frame) -> Reply:
        """What to say to a frame."""
        try:
            if frame.kind is Kind.WELCOME:
                return self._agree(Welcome.from_bytes(frame.payload))
            if frame.kind is Kind.END:
                return self._end(read_end(frame))
        except MessageError as error:
            return Reply(end(Ending.NOT_UNDERSTOOD), ended=True, error=error)
        except ConfigError as error:
            return Reply(end(Ending.OTHER_SETTINGS), ended=True, error=error)
        if self._host is None:
            error = MessageError(f"the server sent {frame.kind.name} before it said what it runs")
            return Reply(end(Ending.NOT_UNDERSTOOD), ended=True, error=error)
        return Reply(Frame(Kind.ANSWER, self._answer(frame, self._host), frame.number))

    def summary(self) -> dict[str, Any]:
        """What its networks need to be used later."""
        plan = self._plan(self._run or "")
        return {
            **plan_summary(plan),
            "sites": [bags_summary(plan, self.site)],
            "num_versions": self._config.rounds.num_versions,
        }

    def _agree(self, welcome: Welcome) -> Reply:
        check_settings(self._config, welcome.settings)
        if self._run not in (None, welcome.run):
            error = FederationError(_WHY[Ending.OTHER_RUN])
            return Reply(end(Ending.OTHER_RUN), ended=True, error=error)
        if self._host is None:
            knows = self._run is not None
            path = self._folder / "run_id"
            with saving(path):
                write_text(path, welcome.run)
            self._run = welcome.run
            plan = self._plan(welcome.run)
            self._host = SiteHost(plan, [self.site], self._folder, self._device, resume=knows)
            self._tell(f"{self.site} takes part in run {welcome.run}")
        else:
            self._tell(f"{self.site} is connected again")
        return Reply(Frame(Kind.READY))

    def _end(self, why: Ending) -> Reply:
        if why is Ending.FINISHED:
            return Reply(ended=True)
        words = _WHY.get(why, "the server says no more")
        again = f"; {_AGAIN}" if why is Ending.FAILED else ""
        return Reply(ended=True, error=FederationError(f"{words}{again}"))

    def _answer(self, frame: Frame, host: SiteHost) -> Message:
        """The answer; the last one is kept, in case it was lost on its way."""
        key = hashlib.sha256(bytes([frame.kind]) + frame.payload).digest()
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        try:
            request = read_request(frame, self.site, self._shapes)
            self._asked.check(request)
        except MessageError as error:
            self._tell(f"a request was refused: {error}")
            return failure_message(error, note_failure(self._plan("").log(self.site)))
        message = host.answer(request)
        if read_failure(message) is None:
            self._last = key, message
            self.num_answers += 1
            if isinstance(request, TrainRequest):
                self._on_version(request.version + 1)
        return message

    def _plan(self, run: str) -> Plan:
        """The run as this site sees it: it knows of no other."""
        config, card = self._config, self.card
        return Plan(
            (self.site,),
            (),
            self._task,
            card.feature_dim,
            {self.site: card.num_bags},
            0,
            card.digest,
            (),
            config,
            self._root,
            num_cases={self.site: card.num_cases},
            recipe=card.recipe,
            noise_multiplier=noise_multiplier(config),
            run_id=run,
            apart=True,
        )
