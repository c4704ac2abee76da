"""A run that follows the order of another one ends in the same bits."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayfed_hn.errors import ConfigError, FederationError
from rayfed_hn.federation.event_trace import RESUMED, Recorded, read_trace
from rayfed_hn.federation.experiment import Outcome, finish, prepare, run_in_process
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.messages import Deadline, Event, Request, SiteLost, TrainRequest
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.loading import load

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
    lines: list[dict[str, Any]] = []
    prepare(plan, server, executor)
    for _ in run_federation(server, executor):
        lines += executor.take()
    return finish(plan, server, executor), lines


@pytest.mark.parametrize(
    "words",
    [
        [*ASYNC, "method.name=hypernetwork", "rounds.deadline=60"],
        [*ASYNC, "method.name=fedper", "training.keep_optimiser=true"],
        [*ASYNC, "method.name=pfedhn"],
    ],
)
def test_a_replayed_run_ends_in_the_same_bits(
    bag_root: Path, tmp_path: Path, words: list[str]
) -> None:
    plan = make_plan(load(None, words), bag_root)
    first, lines = recorded(plan, seed=3)
    other, _ = recorded(plan, seed=4)
    assert first.digest != other.digest, "the order makes no difference: nothing is shown here"
    assert [loss.site for loss in first.lost] == ["west"]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = run_in_process(make_plan(load(None, [*words, f"rounds.replay={path}"]), bag_root))
    assert again.digest == first.digest
    assert [loss.site for loss in again.lost] == ["west"]
    for one, two in zip(first.scores, again.scores, strict=True):
        np.testing.assert_array_equal(one.last_B, two.last_B)
        np.testing.assert_array_equal(one.mixture_B, two.mixture_B)


@pytest.fixture(scope="module")
def trace(bag_root: Path) -> list[dict[str, Any]]:
    return recorded(make_plan(load(None, ASYNC), bag_root), seed=3)[1]


def replay(bag_root: Path, path: Path, lines: list[dict[str, Any]], *words: str) -> Outcome:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run_in_process(
        make_plan(load(None, [*ASYNC, f"rounds.replay={path}", *words]), bag_root)
    )


def test_a_trace_that_ends_early_is_an_error(
    bag_root: Path, tmp_path: Path, trace: list[dict[str, Any]]
) -> None:
    with pytest.raises(FederationError, match="the trace ends before the last version"):
        replay(bag_root, tmp_path / "events", trace[:-4])


def test_a_trace_of_other_settings_is_an_error(
    bag_root: Path, tmp_path: Path, trace: list[dict[str, Any]]
) -> None:
    with pytest.raises(FederationError, match="give this run the settings of the run that wrote"):
        replay(bag_root, tmp_path / "events", trace, "rounds.cohort_size=1")


def test_a_run_that_was_interrupted_cannot_be_followed(
    bag_root: Path, tmp_path: Path, trace: list[dict[str, Any]]
) -> None:
    with pytest.raises(ConfigError, match="was interrupted and went on"):
        replay(bag_root, tmp_path / "events", [*trace[:3], RESUMED, *trace[3:]])


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]\n", "3\n", '{"event": "update"}\n', '{"event": "nap", "time": 1}\n'),
        '{"event": "update", "site": "a", "version": "0", "turn": 0, "time": 1}\n',
        '{"event": "back", "site": "a", "time": null}\n',
    ],
)
def test_what_is_no_trace_is_refused_by_its_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"rounds\.replay: .*cannot be read as events\.jsonl"):
        read_trace(path)
    with pytest.raises(ConfigError, match=r"rounds\.replay"):
        read_trace(tmp_path / "missing")
