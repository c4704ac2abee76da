"""An executor that lets real work run in parallel and delivers it in simulated order.

When a request is sent, the moment of its answer is known; so sites train whenever there is room for
them, and the server sees their answers in the order of the simulated clock. An asynchronous run
thereby repeats bit for bit on any number of workers.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from rayfed_hn.errors import FederationError
from rayfed_hn.federation.loop import Executor, Gathered
from rayfed_hn.federation.messages import (
    Deadline,
    Event,
    Request,
    SiteBack,
    SiteLost,
    TrainRequest,
)
from rayfed_hn.federation.site_clock import SiteClock

_Told = SiteLost | SiteBack | Deadline


class VirtualTime:
    """Wraps an executor; a request's answer comes when the site's clock says so.

    Args:
        inner: Does the work.
        clock: How long every site takes.

    Attributes:
        now: Simulated seconds since the start.
    """

    def __init__(self, inner: Executor, clock: SiteClock) -> None:
        self._inner = inner
        self._clock = clock
        self.now = 0.0
        self._worked: dict[str, float] = {}
        self._until: dict[str, float] = {}
        self._begun = 0.0
        self._queue: list[tuple[float, bool, int, TrainRequest | _Told]] = []
        self._sent = 0
        self._answers = Gathered(inner)

    @property
    def busy(self) -> dict[str, float]:
        """Simulated seconds that every site has worked until now."""
        return {s: t - max(0.0, self._until[s] - self.now) for s, t in self._worked.items()}

    def busy_share(self, num_sites: int) -> float:
        """Mean share of the time until now that sites were at work."""
        passed = self.now - self._begun
        return sum(self.busy.values()) / (num_sites * passed) if passed else 0.0

    @property
    def more_now(self) -> bool:
        return bool(self._queue) and self._queue[0][0] <= self.now

    def begin_at(self, seconds: float) -> None:
        self.now = self._begun = seconds

    def submit(self, requests: Sequence[Request]) -> None:
        training = [request for request in requests if isinstance(request, TrainRequest)]
        self._inner.submit([request for request in training if self._reaches(request)])
        # The clock stands still while sites prepare and are scored.
        self._answers.submit_aside([r for r in requests if not isinstance(r, TrainRequest)])

    def _reaches(self, request: TrainRequest) -> bool:
        """Whether a site can be asked; what comes of it is put in the queue."""
        work = self._clock.work(request.site, request.turn, self.now)
        end = self.now + work.seconds
        self._worked[request.site] = self._worked.get(request.site, 0.0) + work.seconds
        self._until[request.site] = end
        if work.back_at is None:
            self._at(end, request)
            return True
        why = "it dropped out (simulated)"
        self._at(end, SiteLost(request.site, request.version, why, request.turn, returns=True))
        self._at(work.back_at, SiteBack(request.site))
        return False

    def set_alarm(self, version: int, seconds: float) -> None:
        self._queue = [entry for entry in self._queue if not isinstance(entry[3], Deadline)]
        heapq.heapify(self._queue)
        self._at(self.now + seconds, Deadline(version))

    def _at(self, moment: float, what: TrainRequest | _Told) -> None:
        # Who answers at the very moment of a deadline is in time.
        entry = moment, isinstance(what, Deadline), self._sent, what
        heapq.heappush(self._queue, entry)
        self._sent += 1

    def next_event(self) -> Event:
        if self._answers.aside:
            return self._answers.next_aside()
        if not self._queue:
            raise FederationError("nothing is in flight; waiting would never end")
        self.now, _, _, what = heapq.heappop(self._queue)
        if not isinstance(what, TrainRequest):
            return what
        return self._answers.wait_for(what.site, what.turn)
