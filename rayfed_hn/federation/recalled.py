"""What a site is told again when its process was started anew, and what is said of one that is not.

Whatever carries the messages, a site that dies forgets what it was told between two updates.
"""

from __future__ import annotations

from collections.abc import Iterator

from rayfed_hn.federation.messages import (
    CandidatesRequest,
    EvaluateRequest,
    PrepareRequest,
    Request,
    SiteLost,
    TrainRequest,
)

RECALL_BYTES = 2**28  # of networks that are kept so that a site can be told them again


class Recalled:
    """What the process of a site has been told and would not know after a restart.

    The scale of the features, and the networks that are about to be scored; the latter up to
    ``RECALL_BYTES``, beyond which a site that dies in between is lost.
    """

    def __init__(self) -> None:
        self._told: dict[str, list[Request]] = {}
        self._owed: dict[str, list[Request]] = {}
        self._echoes: dict[int, Request] = {}
        self._seen: set[int] = set()  # arrays that many requests share count once
        self._bytes = 0

    def answered(self, request: Request) -> bool:
        """Take note; returns whether anybody waits for this answer."""
        if self._echoes.pop(id(request), None) is not None:
            return False
        if isinstance(request, PrepareRequest) or (
            isinstance(request, CandidatesRequest) and self._room(request)
        ):
            told = self._told.get(request.site, [])
            kept = [old for old in told if type(old) is not type(request)]
            self._told[request.site] = [*kept, request]
        return True

    def owe(self, request: PrepareRequest) -> None:
        """A site that is away is to be told this when it is back, before anything else."""
        self._told[request.site] = [request]
        self._owed[request.site] = [request]

    def echoes(self, request: Request) -> bool:
        """Whether a request was only sent to tell a site again what it knew."""
        return id(request) in self._echoes

    def restarted(self) -> None:
        """All of it is to be told again, when it is needed."""
        self._owed = {site: list(told) for site, told in self._told.items()}
        self._echoes.clear()

    def before(self, request: Request) -> Iterator[Request]:
        """What a site is to be told again before it is asked this."""
        owed = self._owed.get(request.site)
        if not owed:
            return
        for old in tuple(owed):
            if isinstance(old, PrepareRequest) or isinstance(request, EvaluateRequest):
                owed.remove(old)
                if not isinstance(request, PrepareRequest):
                    self._echoes[id(old)] = old
                    yield old

    def _room(self, request: CandidatesRequest) -> bool:
        arrays = [a for a in (request.parameters, request.shared_SP) if id(a) not in self._seen]
        needed = sum(array.nbytes for array in arrays)
        if self._bytes + needed > RECALL_BYTES:
            return False
        self._seen |= {id(array) for array in arrays}  # kept from here on: ids stay theirs
        self._bytes += needed
        return True


def lost(request: Request, reason: str, *, returns: bool = False) -> SiteLost:
    """What the server is told of a request that will not be answered."""
    turn = request.turn if isinstance(request, TrainRequest) else 0
    return SiteLost(request.site, request.version, reason, turn, returns)
