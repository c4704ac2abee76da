"""The one federation loop, and the executor that needs no cluster.

The server decides; an executor moves messages. Whether sites are objects in this process or actors
on a cluster, the loop, the messages and the results are the same.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from rayfed_hn.errors import FederationError
from rayfed_hn.federation.messages import (
    CandidateMetrics,
    CandidatesRequest,
    Deadline,
    EvaluateRequest,
    Event,
    FeatureStatistics,
    PrepareRequest,
    Refused,
    Request,
    Scores,
    SiteBack,
    SiteLost,
    StatisticsRequest,
    Update,
    read_answer,
)
from rayfed_hn.federation.mixture import mean_metrics
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.versions import VersionReport
from rayfed_hn.federation.wire import Message
from rayfed_hn.models.standardise import agree
from rayfed_hn.points import APPLIED, EVALUATION, RECEIVED, reached

WAVE_BYTES = 2**29  # of networks that are under way to be scored


class Host(Protocol):
    """Whatever holds sites and hands a request to the one that it is for."""

    def answer(self, request: Request) -> Message: ...


Read = Callable[[Request, Message], Event]  # from what a site was asked and what it said


class Executor(Protocol):
    """Moves requests to sites and brings back one event for each."""

    @property
    def now(self) -> float:
        """Seconds since the start, of a clock on the wall or a simulated one."""
        ...

    @property
    def more_now(self) -> bool:
        """Whether another event of this very moment is at hand."""
        ...

    def state(self) -> dict[str, Any]:
        """What a commit must hold of the clock, ready for JSON; nothing in real time."""
        ...

    def begin_at(self, seconds: float, state: Mapping[str, Any]) -> None:
        """Let the clock of a run that goes on begin where it stopped.

        Requests that were in flight are submitted once more.

        Args:
            seconds: ``now`` at the commit.
            state: What ``state`` was at the commit.
        """
        ...

    def submit(self, requests: Sequence[Request]) -> None:
        """Send requests; returns without waiting for answers."""
        ...

    def next_event(self) -> Event:
        """Wait for whatever happens next.

        Raises:
            FederationError: Nothing is in flight, so that waiting would never end.
        """
        ...

    def set_alarm(self, version: int, seconds: float) -> None:
        """Send a ``Deadline`` of this version so many seconds from now, in place of any before."""
        ...


class Around:
    """Wraps an executor and changes nothing; what is to be different is overridden.

    Args:
        inner: Moves the messages.
    """

    def __init__(self, inner: Executor) -> None:
        self.inner = inner

    @property
    def now(self) -> float:
        return self.inner.now

    @property
    def more_now(self) -> bool:
        return self.inner.more_now

    def state(self) -> dict[str, Any]:
        return self.inner.state()

    def begin_at(self, seconds: float, state: Mapping[str, Any]) -> None:
        self.inner.begin_at(seconds, state)

    def submit(self, requests: Sequence[Request]) -> None:
        self.inner.submit(requests)

    def next_event(self) -> Event:
        return self.inner.next_event()

    def set_alarm(self, version: int, seconds: float) -> None:
        self.inner.set_alarm(version, seconds)


def run_federation(server: Server, executor: Executor) -> Iterator[VersionReport]:
    """Run until all versions are made, yielding a report after each."""
    deadline, alarmed = server.schedule.config.deadline, -1
    executor.submit(server.ask_again())
    while not server.finished:
        if deadline is not None and alarmed < server.version:
            alarmed = server.version
            executor.set_alarm(alarmed, deadline)
        if not executor.more_now:  # who answers together is asked together
            executor.submit(server.dispatch())
        event = executor.next_event()
        reached(RECEIVED)
        if not isinstance(event, Update | Refused | SiteLost | SiteBack | Deadline):
            raise FederationError(f"site {event.site} sent {type(event).__name__} during training")
        report = server.receive(event)
        if report is not None:
            reached(APPLIED)
            yield replace(report, time=executor.now)


def prepare_sites(server: Server, executor: Executor, feature_dim: int) -> None:
    """Let the sites agree on the scale of their features; a run that goes on has agreed before."""
    if server.standardisation is None:
        measured = _ask_all(
            executor, [StatisticsRequest(s, server.version, feature_dim) for s in server.alive]
        )
        for event in measured:
            if isinstance(event, SiteLost):
                server.lose(event)
        found = [event for event in measured if isinstance(event, FeatureStatistics)]
        server.standardisation = agree(
            [(one.mean_D, one.variance_D) for one in sorted(found, key=lambda one: one.site)]
        )
    scale = server.standardisation
    # Who is away but comes back is prepared too: its site may have been started anew.
    requests = [PrepareRequest(site, server.version, scale) for site in _reachable(server)]
    for event in _ask_all(executor, requests):
        if isinstance(event, SiteLost):
            server.lose(event)


def _reachable(server: Server) -> list[str]:
    """Sites that are not lost for good."""
    gone = {site for site, loss in server.away.items() if not loss.returns}
    return [site for site in server.sites if site not in gone]


def evaluate_sites(
    server: Server, executor: Executor, among: Collection[str] | None = None
) -> tuple[list[Scores], list[SiteLost]]:
    """Have every site that can be reached score its test bags.

    A site that is away but comes back is asked too: nothing waits for it any more.

    Args:
        server: At its last version.
        executor: Moves the messages.
        among: Ask these sites only; None: all.

    Returns:
        Scores in site order, and who was lost.
    """
    judged = _judged(server, executor, among)
    opinions = sorted((e for e in judged if isinstance(e, CandidateMetrics)), key=lambda e: e.site)
    # Where nothing is shared, the word of other sites is not either.
    alone = server.rule.shared() is None
    scored = _ask_all(executor, [
        EvaluateRequest(e.site, server.version, agreed_metrics([e] if alone else opinions))
        for e in opinions
    ])  # fmt: skip
    scores = sorted((e for e in scored if isinstance(e, Scores)), key=lambda e: e.site)
    return scores, [e for e in (*judged, *scored) if isinstance(e, SiteLost)]


def last_validation(server: Server, executor: Executor) -> float | None:
    """Validation metric of the last networks, mean over sites; None where it is nowhere defined.

    No test bag is scored. With averages (readout mixture) it would be of those. Who is lost here is
    lost to the server too: the mean is of the others.
    """
    judged = _judged(server, executor)
    for event in judged:
        if isinstance(event, SiteLost):
            server.lose(event)
    found = [float(e.mean[0]) for e in judged if isinstance(e, CandidateMetrics)]
    defined = [value for value in found if not np.isnan(value)]
    return sum(defined) / len(defined) if defined else None


def _judged(
    server: Server, executor: Executor, among: Collection[str] | None = None
) -> list[Event]:
    """What every site that can be reached says of its candidates."""
    reached(EVALUATION)
    sites = [site for site in _reachable(server) if among is None or site in among]
    shared_SP, turns = server.shared_candidates(), server.turns_done
    judged: list[Event] = []
    wave = max(1, WAVE_BYTES // (4 * server.rule.size))
    for start in range(0, len(sites), wave):  # all networks at once could fill the memory
        some = sites[start : start + wave]
        judged += _ask_all(executor, [
            CandidatesRequest(site, server.version, network, shared_SP, turns[site])
            for site, network in zip(some, server.networks(some), strict=True)
        ])  # fmt: skip
    return judged


def _ask_all(executor: Executor, requests: Sequence[Request]) -> list[Event]:
    """One answer to every request, by requests of one version.

    Deadlines, and answers to older requests that the last version did not wait for, pass by.
    """
    executor.submit(requests)
    waiting = {(request.site, request.version) for request in requests}
    answers: list[Event] = []
    while waiting:
        event = executor.next_event()
        if (
            not isinstance(event, Update | Refused | SiteBack | Deadline)
            and (event.site, event.version) in waiting
        ):
            waiting.remove((event.site, event.version))
            answers.append(event)
    return answers


def agreed_metrics(opinions: Sequence[CandidateMetrics]) -> np.ndarray:
    """Mean over all sites, whatever number of hospitals they speak for.

    Sites with another number of candidates than most have no say.
    """
    if not opinions:
        return np.zeros(0)
    widths = Counter(opinion.metric_OC.shape[1] for opinion in opinions)
    usual = widths.most_common(1)[0][0]
    return mean_metrics([o.mean for o in opinions if o.metric_OC.shape[1] == usual])


class InProcessExecutor:
    """Sites as plain objects, answering one after the other; time stands still."""

    more_now = False

    def __init__(self, host: Host, read: Read = read_answer) -> None:
        self.now = 0.0
        self._host, self._read = host, read
        self._waiting: deque[Request] = deque()

    def submit(self, requests: Sequence[Request]) -> None:
        self._waiting.extend(requests)

    def state(self) -> dict[str, Any]:
        return {}

    def begin_at(self, seconds: float, state: Mapping[str, Any]) -> None:
        self.now = seconds

    def set_alarm(self, version: int, seconds: float) -> None:
        pass  # sites answer at once, so no deadline is ever missed

    def next_event(self) -> Event:
        if not self._waiting:
            raise FederationError("nothing is in flight; waiting would never end")
        request = self._waiting.popleft()
        return self._read(request, self._host.answer(request))
