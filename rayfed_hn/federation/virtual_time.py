"""An executor that lets real work run in parallel and delivers it in simulated order.

When a request is sent, the moment of its answer is known; so sites train whenever there is room for
them, and the server sees their answers in the order of the simulated clock. An asynchronous run
thereby repeats bit for bit on any number of workers.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rayfed_hn.errors import FederationError
from rayfed_hn.federation.gathered import Gathered
from rayfed_hn.federation.loop import Executor
from rayfed_hn.federation.messages import (
    Deadline,
    Event,
    Request,
    SiteBack,
    SiteLost,
    TrainRequest,
)
from rayfed_hn.federation.site_clock import SiteClock


@dataclass(frozen=True)
class Answer:
    """That a site answers its request number ``turn``, whatever it says."""

    site: str
    turn: int


_Due = Answer | SiteLost | SiteBack | Deadline
_KINDS = {"answer": Answer, "lost": SiteLost, "back": SiteBack, "deadline": Deadline}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_Entry = tuple[float, bool, int, _Due]  # moment, whether it lets others go first, number


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
        self._queue: list[_Entry] = []
        self._sent = 0
        self._known: dict[tuple[str, int], bool] = {}  # in flight at a commit: whether it is asked
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

    def state(self) -> dict[str, Any]:
        return {
            "begun": self._begun,
            "worked": dict(self._worked),
            "until": dict(self._until),
            "sent": self._sent,
            "queue": [
                {"at": at, "number": number, "kind": _NAMES[type(what)], **asdict(what)}
                for at, _, number, what in sorted(self._queue, key=lambda entry: entry[:3])
            ],
        }

    def begin_at(self, seconds: float, state: Mapping[str, Any]) -> None:
        self.now, self._begun = seconds, state.get("begun", seconds)
        self._worked, self._until = dict(state.get("worked", {})), dict(state.get("until", {}))
        self._queue = [_entry(**about) for about in state.get("queue", [])]
        heapq.heapify(self._queue)
        self._sent = state.get("sent", 0)
        due = [what for *_, what in self._queue if isinstance(what, Answer | SiteLost)]
        self._known = {(what.site, what.turn): isinstance(what, Answer) for what in due}

    def submit(self, requests: Sequence[Request]) -> None:
        training = [request for request in requests if isinstance(request, TrainRequest)]
        self._inner.submit([request for request in training if self._reaches(request)])
        # The clock stands still while sites prepare and are scored.
        self._answers.submit_aside([r for r in requests if not isinstance(r, TrainRequest)])

    def _reaches(self, request: TrainRequest) -> bool:
        """Whether a site can be asked; what comes of it is put in the queue.

        What becomes of a request that was in flight at a commit is in the queue already.
        """
        known = self._known.pop((request.site, request.turn), None)
        if known is not None:
            return known
        work = self._clock.work(request.site, request.turn, self.now)
        end = self.now + work.seconds
        self._worked[request.site] = self._worked.get(request.site, 0.0) + work.seconds
        self._until[request.site] = end
        if work.back_at is None:
            self._at(end, Answer(request.site, request.turn))
            return True
        why = "it dropped out (simulated)"
        self._at(end, SiteLost(request.site, request.version, why, request.turn, returns=True))
        self._at(work.back_at, SiteBack(request.site))
        return False

    def set_alarm(self, version: int, seconds: float) -> None:
        self._queue = [entry for entry in self._queue if not isinstance(entry[3], Deadline)]
        heapq.heapify(self._queue)
        self._at(self.now + seconds, Deadline(version))

    def _at(self, moment: float, what: _Due) -> None:
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
        if not isinstance(what, Answer):
            return what
        return self._answers.wait_for(what.site, what.turn)


def _entry(at: float, number: int, kind: str, **what: Any) -> _Entry:
    due = _KINDS[kind](**what)
    return at, isinstance(due, Deadline), number, due
