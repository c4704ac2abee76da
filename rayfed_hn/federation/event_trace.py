"""What the server was told, in which order: written down, and followed exactly in another run.

In real time the order of answers depends on machines and cables. Everything else is derived from
the seed, so that a run which follows the order of another ends in the same bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, FederationError
from rayfed_hn.federation.gathered import Gathered
from rayfed_hn.federation.loop import Around, Executor
from rayfed_hn.federation.messages import (
    Deadline,
    Event,
    Refused,
    Request,
    SiteBack,
    SiteLost,
    TrainRequest,
    Update,
)
from rayfed_hn.federation.versions import VersionReport

RESUMED = {"event": "resumed"}
UNPREPARED = "unprepared"  # a site that was lost before training
SCREENED = "screened"  # an update that the server did not take: its own verdict, not an event


def settings_digest(config: Config, *found: str) -> str:
    """SHA-256 of what decides a run's numbers, but for the order of answers.

    Args:
        config: Of the run.
        found: What its bag store adds.
    """
    config = replace(config, rounds=replace(config.rounds, replay=None))
    sections = ("task", "model", "training", "method", "hypernetwork", "rounds", "privacy")
    values = [repr(getattr(config, name)) for name in (*sections, "evaluation")]
    values.append(repr((config.run.seed, config.data.folds, config.data.fold)))
    return hashlib.sha256("\n".join([*values, *found]).encode()).hexdigest()


def begin_line(settings: str, simulated: bool) -> dict[str, Any]:
    """The first line of a trace: what another run must have in common to follow it."""
    clock = "simulated" if simulated else "real"
    return {"event": "begin", "settings": settings, "clock": clock, "time": 0.0}


def verdicts(report: VersionReport, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lines of the updates that the server judged and did not take for a version.

    Args:
        report: Of the version.
        events: What came before it: messages that were refused unread have lines already.
    """
    told = {(e["site"], e["turn"]) for e in events if e["event"] == "refused"}
    return [
        {"event": SCREENED, **asdict(refused), "time": round(report.time, 6)}
        for refused in report.refused
        if (refused.site, refused.turn) not in told
    ]


class Recorded(Around):
    """Wraps an executor and notes every event of training.

    Args:
        inner: Moves the messages.
    """

    def __init__(self, inner: Executor) -> None:
        super().__init__(inner)
        self._lines: list[dict[str, Any]] = []
        self._aside: set[tuple[str, int]] = set()

    def submit(self, requests: Sequence[Request]) -> None:
        self._aside |= {(r.site, r.version) for r in requests if not isinstance(r, TrainRequest)}
        super().submit(requests)

    def next_event(self) -> Event:
        event = super().next_event()
        line = _line(event)
        key = getattr(event, "site", ""), getattr(event, "version", -1)
        if key in self._aside and not isinstance(event, Update | Refused | SiteBack | Deadline):
            self._aside.discard(key)
            line = line and {"event": UNPREPARED, "site": key[0]}
        if line is not None:
            self._lines.append(line | {"time": round(self.now, 6)})
        return event

    def take(self) -> list[dict[str, Any]]:
        """The events since the last call."""
        lines, self._lines = self._lines, []
        return lines


class Replay:
    """Wraps an executor and delivers events in the order of a trace.

    Args:
        inner: Does the work.
        trace: Lines of ``events.jsonl``.
    """

    more_now = False  # as in the real time that the trace is of

    def __init__(self, inner: Executor, trace: Sequence[Mapping[str, Any]]) -> None:
        self._answers = Gathered(inner)
        self._inner = inner
        self._trace: Iterator[Mapping[str, Any]] = iter(trace)
        self._lost = {(x["site"], x["turn"]) for x in trace if x["event"] == "lost"}
        self._asked: dict[tuple[str, int], int] = {}
        self.now = 0.0

    def submit(self, requests: Sequence[Request]) -> None:
        training = [request for request in requests if isinstance(request, TrainRequest)]
        self._asked |= {(request.site, request.turn): request.version for request in training}
        answered = [r for r in training if (r.site, r.turn) not in self._lost]
        self._inner.submit(answered)
        self._answers.submit_aside([r for r in requests if not isinstance(r, TrainRequest)])

    def state(self) -> dict[str, Any]:
        return {}

    def begin_at(self, seconds: float, state: Mapping[str, Any]) -> None:
        raise NotImplementedError("a replayed run is not resumed")

    def set_alarm(self, version: int, seconds: float) -> None:
        pass  # deadlines are in the trace

    def next_event(self) -> Event:
        if self._answers.aside:
            return self._answers.next_aside()
        line = next(self._trace, None)
        if line is None:
            raise FederationError(
                "rounds.replay: the trace ends before the last version; the run that wrote it was "
                "not finished, or had other settings"
            )
        self.now = line["time"]
        if line["event"] == "back":
            return SiteBack(line["site"])
        if line["event"] == "deadline":
            return Deadline(line["version"])
        site, turn = line["site"], line["turn"]
        if self._asked.get((site, turn)) != line["version"]:
            raise FederationError(
                f"rounds.replay: the trace has an answer of {site} to its request {turn} for "
                f"version {line['version']}, which was not sent here; give this run the settings "
                "of the run that wrote the trace"
            )
        if line["event"] == "lost":
            return SiteLost(site, line["version"], line["reason"], turn, line["returns"])
        answer = self._answers.wait_for(site, turn)
        if line["event"] == "refused" and not isinstance(answer, SiteLost):
            return Refused(site, line["version"], turn, line["reason"])
        if not isinstance(answer, Update):
            raise FederationError(
                f"rounds.replay: {site} answered its request {turn} when the trace was written, "
                "and fails here; site.log beside its bags says why"
            )
        return answer


def read_trace(path: Path, settings: str) -> list[dict[str, Any]]:
    """Read ``events.jsonl`` of a run.

    Args:
        path: The file.
        settings: Digest of what both runs must have in common.

    Raises:
        ConfigError: It is none, or of a run that cannot be followed: of other settings, in
            simulated time, that was interrupted while sites were lost, or that lost a site before
            training.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            _check(line)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"rounds.replay: {path} cannot be read as events.jsonl of a run ({error!r})"
        ) from error
    kinds = {line["event"] for line in lines}
    first = lines[0] if lines else {}
    for bad, why in (
        (first.get("event") != "begin", "its beginning is missing"),
        (
            first.get("clock") == "simulated",
            "its time was simulated, and the same settings repeat it; leave rounds.replay unset",
        ),
        (first.get("settings") != settings, "its settings or bags are not those of this run"),
        (
            any(line.get("asked_again") for line in lines),
            "it was interrupted, and lost sites were asked again when it went on",
        ),
        (UNPREPARED in kinds, "a site was lost before training"),
    ):
        if bad:
            raise ConfigError(f"rounds.replay: the run of {path} cannot be followed: {why}")
    return [line for line in lines[1:] if line["event"] not in (SCREENED, RESUMED["event"])]


_KEYS: dict[str, dict[str, type]] = {
    "update": {"site": str, "version": int, "turn": int},
    "lost": {"site": str, "version": int, "turn": int, "reason": str, "returns": bool},
    "refused": {"site": str, "version": int, "turn": int, "reason": str},
    "back": {"site": str},
    "deadline": {"version": int},
    "begin": {"settings": str, "clock": str},
    UNPREPARED: {"site": str},
    SCREENED: {"site": str, "version": int, "turn": int, "reason": str},
    RESUMED["event"]: {"asked_again": list},
}


def _check(line: Mapping[str, Any]) -> None:
    for key, kind in _KEYS[line["event"]].items():
        if not isinstance(line[key], kind):
            raise ValueError(f"{key} is {line[key]!r}")
    if not isinstance(line["time"], int | float):
        raise ValueError(f"time is {line['time']!r}")


def _line(event: Event) -> dict[str, Any] | None:
    kind = _KINDS.get(type(event))
    if kind is None:
        return None
    return {"event": kind} | {key: getattr(event, key) for key in _KEYS[kind]}


_KINDS: dict[type, str] = {
    Update: "update",
    Refused: "refused",
    SiteLost: "lost",
    SiteBack: "back",
    Deadline: "deadline",
}
