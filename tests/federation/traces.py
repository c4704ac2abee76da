"""Runs in real time, and the traces that they leave."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rayfed_hn.federation.event_trace import Recorded
from rayfed_hn.federation.experiment import Outcome, finish, prepare
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.messages import Deadline, Event, Request, SiteLost, TrainRequest
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.site_host import SiteHost

ASYNC = [
    *("rounds.num_versions=9", "rounds.buffer_size=2", "rounds.max_staleness=3"),
    *("training.steps=2", "training.learning_rate=0.01"),
]


class Unordered(InProcessExecutor):
    """Real time: answers come in any order, deadlines pass, and one request is lost."""

    def __init__(self, plan: Plan, seed: int) -> None:
        super().__init__(SiteHost(plan, plan.participants))
        self._random = random.Random(seed)
        self._alarm: int | None = None
        self._answers = 0

    def set_alarm(self, version: int, seconds: float) -> None:
        self._alarm, self._answers = version, 0

    def submit(self, requests: Sequence[Request]) -> None:
        super().submit(requests)
        if requests and isinstance(requests[0], TrainRequest):
            self._random.shuffle(self._waiting)

    def next_event(self) -> Event:
        self.now += 1.5
        request = self._waiting[0]
        if isinstance(request, TrainRequest):
            if self._alarm is not None and self._answers == 1 and request.turn % 2:
                event, self._alarm = Deadline(self._alarm), None
                return event
            if (request.site, request.turn) == ("west", 1):
                self._waiting.popleft()
                return SiteLost("west", request.version, "cable", request.turn)
        self._answers += 1
        return super().next_event()


def recorded(plan: Plan, seed: int) -> tuple[Outcome, list[dict[str, Any]]]:
    server, executor = plan.server(), Recorded(Unordered(plan, seed))
    lines = [plan.begin_line()]
    prepare(plan, server, executor)
    for _ in run_federation(server, executor):
        lines += executor.take()
    return finish(plan, server, executor), lines


def written(folder: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    path = folder / "events.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
