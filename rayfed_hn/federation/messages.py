"""What crosses the border of a site, and nothing else does.

Down goes a request with a parameter vector. Up comes one safetensors message of fixed tensors and
declared numbers: no pickle, no path, no slide name, no traceback. The receiver trusts none of it:
size, names, shapes, types and finiteness are checked before anything is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from rayfed_hn.errors import MessageError
from rayfed_hn.federation.failures import read_failure
from rayfed_hn.federation.score_messages import (
    CandidateMetrics,
    CandidatesRequest,
    EvaluateRequest,
    Scores,
)
from rayfed_hn.federation.statistics_messages import (
    FeatureStatistics,
    Prepared,
    PrepareRequest,
    StatisticsRequest,
)
from rayfed_hn.federation.wire import Draft, Message, all_finite, expect, open_message
from rayfed_hn.models.subspace import Subspace


@dataclass(frozen=True)
class TrainRequest:
    """Train this network on your bags.

    Attributes:
        site: Who is asked.
        version: The server's version that the parameters belong to.
        parameters: float32 (P,).
        turn: How many requests the site had before; everything random at the site follows from it.
    """

    site: str
    version: int
    parameters: np.ndarray
    turn: int


@dataclass(frozen=True)
class Update:
    """What a site learned: u = received - released parameters, after any noise.

    Attributes:
        site: Who sent it (known from the channel, not from the bytes).
        version, turn: Of the request that it answers.
        update: float32 (P,).
        train_loss: Mean over the local steps.
        validation_loss: Of the *received* network; NaN without validation bags.
        validation_metric: Of the received network; None where undefined.
        num_steps: Local gradient steps.
        seconds: Time the site took.
        signal_to_noise: Norm of what was learned over that of the noise; None without noise, and
            where metrics are withheld.
        clipped: Share of what was clipped that had to be scaled down; None likewise.
        releases: What the site has charged in this run, this one included; 0 where it charges not.
        epsilon: What that adds up to; None without formal guarantee.
    """

    SCALARS: ClassVar[tuple[str, ...]] = (
        "version",
        "turn",
        "train_loss",
        "validation_loss",
        "validation_metric",
        "num_steps",
        "seconds",
        "signal_to_noise",
        "clipped",
        "releases",
        "epsilon",
    )
    UNDEFINED: ClassVar[tuple[str, ...]] = (
        "validation_metric",
        "signal_to_noise",
        "clipped",
        "epsilon",
    )
    site: str
    version: int
    turn: int
    update: np.ndarray
    train_loss: float
    validation_loss: float
    validation_metric: float | None
    num_steps: int
    seconds: float
    signal_to_noise: float | None = None
    clipped: float | None = None
    releases: int = 0
    epsilon: float | None = None

    @classmethod
    def draft(cls, num_parameters: int) -> Draft:
        """A message whose ``update`` is still to be written."""
        return cls._draft(np.dtype(np.float32), (num_parameters,))

    @classmethod
    def _draft(cls, kind: np.dtype, shape: tuple[int, ...]) -> Draft:
        scalars = np.float64, (len(cls.SCALARS),)
        return Draft({"update": (kind, shape), "scalars": scalars})

    def to_bytes(self, draft: Draft | None = None) -> Message:
        """The message as it leaves the site.

        Args:
            draft: A message that may hold the update already.
        """
        draft = draft or self._draft(self.update.dtype, self.update.shape)
        if draft["update"] is not self.update:
            draft["update"][:] = self.update
        values = [getattr(self, name) for name in self.SCALARS]
        draft["scalars"][:] = [math.nan if value is None else float(value) for value in values]
        return draft.message

    @classmethod
    def from_bytes(cls, message: Message, site: str, num_parameters: int) -> Update:
        """Read a message from a site.

        Raises:
            MessageError: It is not an update of this network.
        """
        tensors = open_message(message, 4 * num_parameters)
        if len(tensors) > 2:
            raise MessageError(f"message of {len(tensors)} tensors; expected 2")
        update = expect(tensors, "update", np.float32, (num_parameters,))
        scalars = expect(tensors, "scalars", np.float64, (len(cls.SCALARS),))
        if not all_finite(update):
            raise MessageError("update holds a value that is not finite")
        values = dict(zip(cls.SCALARS, scalars.tolist(), strict=True))
        _check_scalars(values)
        known: dict[str, Any] = {name: int(values[name]) for name in _WHOLE}
        known |= {name: _defined(values[name]) for name in cls.UNDEFINED}
        return cls(**{**values, **known, "site": site, "update": update})


_WHOLE = ("version", "turn", "num_steps", "releases")


def _check_scalars(values: Mapping[str, float]) -> None:
    if not all(values[name] >= 0 and values[name].is_integer() for name in _WHOLE):
        raise MessageError(f"{', '.join(_WHOLE)} must be whole numbers")
    for name, most in (("validation_metric", 1.0), ("clipped", 1.0), ("signal_to_noise", math.inf)):
        if not (math.isnan(values[name]) or 0 <= values[name] <= most):
            raise MessageError(f"{name} must lie in 0 to {most:g}")
    if not (math.isnan(values["epsilon"]) or values["epsilon"] >= 0):
        raise MessageError("epsilon must be 0 or more")
    if not 0 <= values["seconds"] < math.inf:
        raise MessageError("seconds must be finite")


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


@dataclass(frozen=True)
class SiteLost:
    """A site did not answer, or cannot be reached; it is asked nothing until it is back.

    Attributes:
        site: Which.
        version, turn: Of the request that was not answered.
        reason: In words that name no slide.
        returns: Whether a ``SiteBack`` is to be expected.
    """

    site: str
    version: int
    reason: str
    turn: int = 0
    returns: bool = False


@dataclass(frozen=True)
class Refused:
    """An update was not taken; its site stays in the federation and is asked again.

    Attributes:
        site: Who sent it.
        version, turn: Of the request that it answers.
        reason: In words and numbers of the server's own; nothing that the site wrote.
    """

    site: str
    version: int
    turn: int
    reason: str


@dataclass(frozen=True)
class SiteBack:
    """A site that was lost can be asked again."""

    site: str


@dataclass(frozen=True)
class Deadline:
    """The time for the next version after ``version`` is over."""

    version: int


Request = TrainRequest | StatisticsRequest | PrepareRequest | CandidatesRequest | EvaluateRequest
Answer = Update | FeatureStatistics | Prepared | CandidateMetrics | Scores
Event = Answer | Refused | SiteLost | SiteBack | Deadline


def read_answer(request: Request, message: Message, subspace: Subspace | None = None) -> Event:
    """Turn a site's bytes into an event.

    An update that is not what was asked for is refused, and its site asked again: bytes may be
    damaged on their way. Where nothing is asked twice, a wrong answer means that the site is lost.

    Args:
        request: What was asked.
        message: What came back.
        subspace: Whose numbers updates are, if not of all parameters.
    """
    site, version = request.site, request.version
    turn = request.turn if isinstance(request, TrainRequest) else 0
    try:
        failure = read_failure(message)
        if failure is not None:
            return SiteLost(site, version, failure, turn)
        answer = _parse(request, message, subspace)
        if answer.version != version:
            raise MessageError(f"answers version {answer.version}, asked was {version}")
        if isinstance(answer, Update) and answer.turn != turn:
            raise MessageError(f"answers turn {answer.turn}, asked was {turn}")
    except MessageError as error:
        if isinstance(request, TrainRequest):
            return Refused(site, version, turn, str(error))
        return SiteLost(site, version, f"its answer was refused: {error}", turn)
    return answer


def _lifted(update: Update, subspace: Subspace) -> Update:
    numbers_K = torch.tensor(update.update)
    return replace(update, update=subspace.lift(numbers_K).numpy())


def _parse(request: Request, message: Message, subspace: Subspace | None) -> Answer:
    match request:
        case TrainRequest():
            size = request.parameters.size if subspace is None else subspace.dim
            update = Update.from_bytes(message, request.site, size)
            return update if subspace is None else _lifted(update, subspace)
        case StatisticsRequest():
            return FeatureStatistics.from_bytes(message, request.site, request.feature_dim)
        case PrepareRequest():
            return Prepared.from_bytes(message, request.site)
        case CandidatesRequest():
            return CandidateMetrics.from_bytes(message, request.site)
        case EvaluateRequest():
            return Scores.from_bytes(message, request.site)
