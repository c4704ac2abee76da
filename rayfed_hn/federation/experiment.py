"""A whole federation, from its plan to the test scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from rayfed_hn.federation.commits import digest_of
from rayfed_hn.federation.event_trace import Recorded
from rayfed_hn.federation.exchanges import Exchange, Overheard
from rayfed_hn.federation.loop import (
    Executor,
    InProcessExecutor,
    evaluate_sites,
    prepare_sites,
    run_federation,
)
from rayfed_hn.federation.messages import Scores, SiteLost
from rayfed_hn.federation.meter import Meter, MeteredExecutor
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.versions import VersionReport
from rayfed_hn.federation.virtual_time import VirtualTime
from rayfed_hn.models.tasks import Survival


@dataclass(frozen=True)
class Outcome:
    """What a finished federation leaves behind.

    Attributes:
        server: At its last version.
        scores: Of every participant that could still answer.
        lost: Everybody who was lost for good, and when.
        absences: Every time that a site was away and was to come back.
        seconds: From the start to the last version, by the executor's clock.
        busy_share: Mean share of that time that sites were at work; None in real time.
    """

    server: Server
    scores: tuple[Scores, ...]
    lost: tuple[SiteLost, ...]
    absences: tuple[SiteLost, ...]
    seconds: float
    busy_share: float | None

    @property
    def digest(self) -> str:
        """SHA-256 of the final state: equal runs have equal ones."""
        return digest_of(self.server.state())


def run_in_process(
    plan: Plan,
    on_version: Callable[[VersionReport], object] = lambda report: None,
    tell: Callable[[Exchange], object] | None = None,
    meter: Meter | None = None,
) -> Outcome:
    """Train and evaluate without a cluster.

    Args:
        plan: What.
        on_version: Called after every version.
        tell: Called with everything that passes between the server and its sites.
        meter: Counts what is moved; made with ``plan.read``.
    """
    torch.set_num_threads(1)  # before the server computes anything
    server = plan.server()
    host, read = SiteHost(plan, plan.participants), plan.read if meter is None else meter.read
    inner: Executor = InProcessExecutor(host, read)
    inner = inner if meter is None else MeteredExecutor(inner, meter)
    executor = plan.executor(inner if tell is None else Overheard(inner, tell))
    prepare(plan, server, executor)
    for report in run_federation(server, executor):
        on_version(report)
    return finish(plan, server, executor)


def prepare(plan: Plan, server: Server, executor: Executor) -> None:
    """What sites have to agree on before they train."""
    if plan.standardise == "shared":
        prepare_sites(server, executor, plan.feature_dim)


def finish(plan: Plan, server: Server, executor: Recorded) -> Outcome:
    """Score the test bags and close the books."""
    seconds, clock = executor.now, executor.inner
    share = clock.busy_share(len(server.sites)) if isinstance(clock, VirtualTime) else None
    scores, lost = evaluate_sites(server, executor)
    fitting = [s for s in scores if fits(plan, s)]
    reason = "its answer was refused: scores of other hospitals or of another task"
    odd = [SiteLost(s.site, s.version, reason) for s in scores if all(s is not f for f in fitting)]
    losses = (*server.lost_before, *server.lost)
    for_good = [loss for loss in losses if not loss.returns]
    absences = tuple(loss for loss in losses if loss.returns)
    missed = (*for_good, *lost, *odd)
    return Outcome(server, tuple(fitting), missed, absences, seconds, share)


def fits(plan: Plan, scores: Scores) -> bool:
    """Whether scores are of this site's hospitals and of this task."""
    task = plan.task
    return (
        len(scores.best_version_O) == len(plan.origins(scores.site))
        and scores.last_BE.shape[1] == task.num_evidence
        and bool((scores.label_B < len(task.names)).all())
        and (task.unit == "case" or not scores.whole_case_B.any())
        and (isinstance(task, Survival) or not scores.time_B.any())
    )
