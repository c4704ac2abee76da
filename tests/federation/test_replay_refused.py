"""Traces that cannot be followed, each refused with its reason."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from traces import ASYNC, recorded, written

from rayfed_hn.errors import ConfigError, FederationError
from rayfed_hn.federation.cell import cells
from rayfed_hn.federation.event_trace import RESUMED, Recorded, begin_line, read_trace
from rayfed_hn.federation.experiment import prepare, run_in_process
from rayfed_hn.federation.failures import failure_message
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.messages import (
    PrepareRequest,
    Request,
    StatisticsRequest,
    TrainRequest,
)
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.record import RunRecord
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.wire import Message
from rayfed_hn.loading import load

Lines = Sequence[Mapping[str, Any]]


@pytest.fixture(scope="module")
def trace(bag_root: Path) -> Lines:
    return recorded(make_plan(load(None, ASYNC), bag_root), seed=3)[1]


def following(bag_root: Path, folder: Path, lines: Lines, *words: str) -> Plan:
    path = written(folder, lines)
    return make_plan(load(None, [*ASYNC, f"rounds.replay={path}", *words]), bag_root)


def refusal(bag_root: Path, folder: Path, lines: Lines, *words: str) -> str:
    """Why nothing is started at all."""
    with pytest.raises(ConfigError) as error:
        following(bag_root, folder, lines, *words)
    assert str(error.value).startswith("rounds.replay: ")
    return str(error.value)


@pytest.mark.parametrize(
    "word",
    [
        *("rounds.cohort_size=1", "rounds.num_versions=8", "run.seed=1", "method.name=fedavg"),
        *("training.steps=3", "hypernetwork.rho=0.1", "model.dropout=0", "data.fold=1"),
        *("privacy.max_growth=9", "evaluation.readout=last", "data.positive_label=normal"),
    ],
)
def test_a_trace_of_other_settings(bag_root: Path, tmp_path: Path, trace: Lines, word: str) -> None:
    words = refusal(bag_root, tmp_path, trace, word)
    assert "its settings or bags are not those of this run" in words


def test_what_does_not_change_the_numbers_may_differ(
    bag_root: Path, tmp_path: Path, trace: Lines
) -> None:
    plan = following(bag_root, tmp_path, trace, "resources.sites_per_actor=2", "run.dir=elsewhere")
    assert plan.config.resources.sites_per_actor == 2


def test_a_trace_of_simulated_time(bag_root: Path, tmp_path: Path, trace: Lines) -> None:
    simulated = make_plan(load(None, [*ASYNC, "simulation.enabled=true"]), bag_root)
    begin = simulated.begin_line()
    assert begin["clock"] == "simulated"
    assert begin["settings"] == trace[0]["settings"]  # that is not why
    words = refusal(bag_root, tmp_path, [begin, *trace[1:]])
    assert "its time was simulated, and the same settings repeat it" in words


def test_a_trace_that_was_interrupted(bag_root: Path, tmp_path: Path, trace: Lines) -> None:
    resumed = RESUMED | {"made": 1, "time": 4.5, "asked_again": ["south"]}
    words = refusal(bag_root, tmp_path, [*trace[:3], resumed, *trace[3:]])
    assert "it was interrupted, and lost sites were asked again" in words
    # Where nobody was lost, what was in flight was asked again as it was, and can be followed.
    whole = [*trace[:3], resumed | {"asked_again": []}, *trace[3:]]
    followed = read_trace(written(tmp_path, whole), trace[0]["settings"])
    assert followed == list(trace[1:])


@pytest.mark.parametrize("cut", [0, 1])
def test_a_trace_without_its_beginning(
    bag_root: Path, tmp_path: Path, trace: Lines, cut: int
) -> None:
    lines = trace[1:] if cut else []
    assert "its beginning is missing" in refusal(bag_root, tmp_path, lines)


class Failing:
    """One site fails at one kind of request, from some turn on."""

    def __init__(self, plan: Plan, kind: type, site: str, turn: int) -> None:
        self.host = SiteHost(plan, plan.participants)
        self.kind, self.site, self.turn = kind, site, turn

    def answer(self, request: Request) -> Message:
        turn = request.turn if isinstance(request, TrainRequest) else self.turn
        if isinstance(request, self.kind) and request.site == self.site and turn >= self.turn:
            return failure_message(OSError("disk"))
        return self.host.answer(request)


@pytest.mark.parametrize("kind", [StatisticsRequest, PrepareRequest])
def test_a_trace_with_a_site_that_was_lost_before_training(
    bag_root: Path, tmp_path: Path, kind: type
) -> None:
    plan = make_plan(load(None, [*ASYNC, "rounds.num_versions=2"]), bag_root)
    server, executor = plan.server(), Recorded(InProcessExecutor(Failing(plan, kind, "south", 0)))
    prepare(plan, server, executor)
    lines = [plan.begin_line(), *executor.take()]
    assert [(line["event"], line.get("site")) for line in lines[1:]] == [("unprepared", "south")]
    for _ in run_federation(server, executor):
        lines += executor.take()
    assert [line["event"] for line in lines[2:]] == ["update"] * 4
    words = refusal(bag_root, tmp_path, lines, "rounds.num_versions=2")
    assert "a site was lost before training" in words


def test_a_run_directory_begins_with_what_another_run_must_share(
    bag_root: Path, tmp_path: Path
) -> None:
    plan = make_plan(load(None, ASYNC), bag_root)
    RunRecord(tmp_path, plan).begin(plan.server(), plan.begin_line())
    (line,) = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert line == {**plan.begin_line(), "made": 0}
    assert (line["event"], line["clock"]) == ("begin", "real")
    assert read_trace(tmp_path / "events.jsonl", line["settings"]) == []


# -- what shows only while it is followed ------------------------------------------------------


def test_a_trace_that_ends_early(bag_root: Path, tmp_path: Path, trace: Lines) -> None:
    with pytest.raises(FederationError, match="the trace ends before the last version"):
        run_in_process(following(bag_root, tmp_path, trace[:-4]))


@pytest.mark.parametrize(("event", "shift"), [("update", 1), ("update", -1), ("lost", 1)])
def test_an_answer_to_another_version(
    bag_root: Path, tmp_path: Path, trace: Lines, event: str, shift: int
) -> None:
    number = next(i for i, x in enumerate(trace) if x["event"] == event and x["version"] > 0)
    changed = {**trace[number], "version": trace[number]["version"] + shift}
    lines = [*trace[:number], changed, *trace[number + 1 :]]
    where = f"request {changed['turn']} for version {changed['version']}, which was not sent here"
    with pytest.raises(FederationError, match=where):
        run_in_process(following(bag_root, tmp_path, lines))


def test_a_site_that_answered_then_and_fails_now(
    bag_root: Path, tmp_path: Path, trace: Lines
) -> None:
    plan = following(bag_root, tmp_path, trace)
    server = plan.server()
    executor = plan.executor(InProcessExecutor(Failing(plan, TrainRequest, "north", 1)))
    prepare(plan, server, executor)
    says = "north answered its request 1 when the trace was written, and fails here"
    with pytest.raises(FederationError, match=says):
        list(run_federation(server, executor))


def test_many_runs_cannot_follow_one() -> None:
    config = load(None, ["rounds.replay=events.jsonl"])
    with pytest.raises(ConfigError, match=r"rounds\.replay: follows one run, and compare makes"):
        cells(config)
    assert len(cells(load(None, ["compare.seeds=2", "compare.folds=3"]))) == 2 * 3 * 3


# -- what is no trace --------------------------------------------------------------------------


BEGIN = json.dumps(begin_line("digest", False)) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]\n", "3\n", '{"event": "update"}\n', '{"event": "nap", "time": 1}\n'),
        '{"event": "update", "site": "a", "version": "0", "turn": 0, "time": 1}\n',
        '{"event": "back", "site": "a", "time": null}\n',
        '{"event": "begin", "settings": 3, "clock": "real", "time": 0}\n',
        '{"event": "unprepared", "time": 0}\n',
    ],
)
def test_what_is_no_trace_is_refused_by_its_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(BEGIN + text)
    with pytest.raises(ConfigError, match=r"rounds\.replay: .*cannot be read as events\.jsonl"):
        read_trace(path, "digest")
    with pytest.raises(ConfigError, match=r"rounds\.replay: .*cannot be read"):
        read_trace(tmp_path / "missing", "digest")
