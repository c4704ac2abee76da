"""The centre of a run: it holds the server, runs the loop and commits every version.

What carries the messages, and whether it lives on an actor or in a process of its own, is not its
concern.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rayfed_hn.federation.board import write_board
from rayfed_hn.federation.exchanges import FOLDER, ExchangeFiles, Overheard
from rayfed_hn.federation.experiment import Outcome, finish, prepare
from rayfed_hn.federation.loop import Executor, run_federation
from rayfed_hn.federation.messages import Refused, SiteLost
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.record import RunRecord
from rayfed_hn.federation.results import score_records, site_rows
from rayfed_hn.federation.site_map import write_site_map
from rayfed_hn.kept_memory import keep_memory


@dataclass(frozen=True)
class Progress:
    """What the driver is told after each version; the ratios are means over its updates.

    ``restarts`` says how often the actor of a site was started anew, ``centre_restarts`` how often
    the central one was, which only the driver knows.
    """

    version: int
    num_alive: int
    validation_metric: float | None
    signal_to_noise: float | None = None
    restarts: Mapping[str, int] = field(default_factory=dict)
    centre_restarts: int = 0


@dataclass(frozen=True)
class Result:
    """What the driver is told at the end."""

    rows: list[dict[str, Any]]
    best_versions: dict[str, int]
    lost: tuple[SiteLost, ...]
    digest: str
    num_versions: int
    num_updates: dict[str, int]
    num_refused: int
    refused: tuple[Refused, ...]
    absences: tuple[SiteLost, ...]
    seconds: float
    busy_share: float | None
    restarts: Mapping[str, int] = field(default_factory=dict)


class Centre:
    """Runs one federation to its end.

    Args:
        plan: What.
        folder: The run directory.
        calls: Moves the messages.
        restarts: How often the process of a site was started anew, as whoever moves them counts.
        resume: Go on from the last commit.
        device: Where the server computes.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        calls: Executor,
        restarts: Mapping[str, int],
        resume: bool,
        device: str = "cpu",
    ) -> None:
        torch.set_num_threads(1)
        keep_memory()
        self._plan = plan
        self._record = RunRecord(folder, plan)
        self._server = plan.server(device)
        self._resume = resume
        self._restarts = restarts
        if plan.config.run.keep_messages:
            calls = Overheard(calls, ExchangeFiles(folder / FOLDER).write)
        self._executor = plan.executor(calls)

    def start(self) -> int:
        """Take up the last commit, if asked to; returns the version to go on from."""
        if not self._resume or not self._record.resume(self._server, self._executor):
            self._record.begin(self._server, self._plan.begin_line())
        return self._server.version

    def run(self) -> Iterator[Progress | Result]:
        """Yield what a driver is told after every version, and the result last."""
        prepare(self._plan, self._server, self._executor)
        for report in run_federation(self._server, self._executor):
            self._record.commit(self._server, report, self._executor)
            news = Progress(
                report.version,
                report.num_alive,
                report.mean_validation_metric,
                report.mean_signal_to_noise,
                dict(self._restarts),
            )
            del report  # with its updates, before the next version has its own
            yield news
        outcome = finish(self._plan, self._server, self._executor)
        self._record.scores(score_records(self._plan, outcome.scores))
        self._record.finish(self._server.version, outcome.scores)
        folder, rows = self._record.folder, site_rows(self._plan, outcome.scores)
        sites = write_site_map(folder, self._server)
        write_board(folder / "tensorboard", self._plan.config, rows, sites)
        yield _result(self._plan, outcome, self._restarts)


def _result(plan: Plan, outcome: Outcome, restarts: Mapping[str, int]) -> Result:
    return Result(
        rows=site_rows(plan, outcome.scores),
        best_versions={
            hospital: int(version)
            for scores in outcome.scores
            for hospital, version in zip(
                plan.origins(scores.site), scores.best_version_O, strict=True
            )
        },
        lost=outcome.lost,
        digest=outcome.digest,
        num_versions=outcome.server.version,
        num_updates=outcome.server.num_updates,
        num_refused=outcome.server.num_refused,
        refused=outcome.server.refused,
        absences=outcome.absences,
        seconds=outcome.seconds,
        busy_share=outcome.busy_share,
        restarts=dict(restarts),
    )
