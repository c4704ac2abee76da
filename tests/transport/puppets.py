"""Sites that say what they are told to, for executors that are moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cables import Cables

from rayfed_hn.federation.cards import SiteCard
from rayfed_hn.federation.messages import Prepared, PrepareRequest, TrainRequest, Update
from rayfed_hn.federation.wire import Message
from rayfed_hn.transport.care import Care
from rayfed_hn.transport.executor import TransportExecutor
from rayfed_hn.transport.frames import Frame, Kind
from rayfed_hn.transport.greetings import Hello, Welcome, program
from rayfed_hn.transport.reception import CardFolder, Reception
from rayfed_hn.transport.requests import Shapes, read_request
from rayfed_hn.transport.site_agent import Reply

RUN = "0123456789abcdef" * 2
CLASSES = ("no", "yes")
SHAPES = Shapes(3, 2, 9)
HASH = "ab" * 32


def card(site: str, **other: Any) -> SiteCard:
    numbers: dict[str, Any] = {
        "num_known": 5,
        "num_unknown": 0,
        "num_unusable": 0,
        "num_cases": 3,
    } | other
    return SiteCard(
        site, HASH, HASH, 2, {"no": 2, "yes": 3}, {}, num_bags=(3, 1, 1), num_unnamed=0, **numbers
    )


class Puppet:
    """Answers with the turn it was asked for, as often as it is meant to.

    Args:
        site: Its name.
        life: Of its process.
        run: What its folder knows.
        silent: Says nothing to requests.
    """

    def __init__(self, site: str, life: int = 1, run: str = RUN, *, silent: bool = False) -> None:
        self.site, self.life, self.run, self.silent = site, life, run, silent
        self.asked: list[str] = []
        self.answer: Callable[[Frame], Message] = self._answer

    def hello(self) -> Frame:
        hello = Hello(self.life, self.run, program(), card(self.site))
        return Frame(Kind.HELLO, hello.to_bytes(CLASSES))

    def take(self, frame: Frame) -> Reply:
        if frame.kind is Kind.WELCOME:
            return Reply(Frame(Kind.READY))
        if frame.kind is Kind.END:
            return Reply(ended=True)
        self.asked.append(frame.kind.name)
        if self.silent:
            return Reply()
        return Reply(Frame(Kind.ANSWER, self.answer(frame), frame.number))

    def _answer(self, frame: Frame) -> Message:
        request = read_request(frame, self.site, SHAPES)
        if isinstance(request, PrepareRequest):
            return Prepared(self.site, request.version).to_bytes()
        assert isinstance(request, TrainRequest)
        update = request.parameters + np.float32(request.turn)
        about = self.site, request.version, request.turn
        return Update(*about, update, 0, 0, None, 1, 0.0).to_bytes()


def reception(cables: Cables, folder: Path, sites: Sequence[str]) -> tuple[Reception, list[str]]:
    told: list[str] = []
    kept = CardFolder(folder / "cards", CLASSES)
    return Reception(cables, sites, Welcome(RUN, {}), CLASSES, kept, told.append), told


def executor(
    cables: Cables, folder: Path, sites: Sequence[str], care: Care | None = None
) -> TransportExecutor:
    """Of sites that are all here."""
    desk, _ = reception(cables, folder, sites)
    desk.gather(100, cables.clock)
    desk.keep()
    return TransportExecutor(desk, sites, care=care, clock=cables.clock)


def request(site: str, turn: int = 0) -> TrainRequest:
    return TrainRequest(site, 7, np.zeros(3, np.float32), turn)
