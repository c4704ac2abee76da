"""The byte form of requests. A site does not trust the server either: everything is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rayfed_hn.errors import MessageError
from rayfed_hn.federation.messages import (
    CandidatesRequest,
    EvaluateRequest,
    PrepareRequest,
    Request,
    StatisticsRequest,
    TrainRequest,
)
from rayfed_hn.federation.mixture import MARKS
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.score_messages import MAX_CANDIDATES
from rayfed_hn.federation.wire import (
    HEADER_LIMIT,
    MAX_BAGS,
    Draft,
    all_finite,
    expect,
    length,
    open_message,
    within,
)
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.standardise import Standardisation
from rayfed_hn.transport.frames import Frame, Kind

MOST_TURNS = 2**40  # of one site in one run
_SHARED = len(MARKS) + 1  # averages of the shared network, if there are any


@dataclass(frozen=True)
class Shapes:
    """What a site knows of the requests that may come.

    Attributes:
        num_parameters: P.
        feature_dim: D.
        num_versions: Of the run.
    """

    num_parameters: int
    feature_dim: int
    num_versions: int

    @classmethod
    def of(cls, plan: Plan) -> Shapes:
        """Of a run."""
        size = ParameterLayout.of(plan.model()).size
        return cls(size, plan.feature_dim, plan.config.rounds.num_versions)

    @property
    def request_bytes(self) -> int:
        """No request is longer."""
        networks = 4 * self.num_parameters * (1 + _SHARED)
        return max(networks, 8 * self.feature_dim, 8 * MAX_CANDIDATES) + HEADER_LIMIT + 64


def request_frame(request: Request, number: int) -> Frame:
    """A request as it is sent."""
    kind, tensors, numbers = _parts(request)
    shapes = {name: (np.dtype(array.dtype), array.shape) for name, array in tensors.items()}
    draft = Draft({**shapes, "numbers": (np.int64, (len(numbers),))})
    for name, array in tensors.items():
        draft[name][...] = array
    draft["numbers"][:] = numbers
    return Frame(kind, draft.message, number)


def _parts(request: Request) -> tuple[Kind, Mapping[str, np.ndarray], tuple[int, ...]]:
    match request:
        case TrainRequest(_, version, parameters, turn):
            return Kind.TRAIN, {"parameters": parameters}, (version, turn)
        case StatisticsRequest(_, version, feature_dim):
            return Kind.STATISTICS, {}, (version, feature_dim)
        case PrepareRequest(_, version, scale):
            tensors = {"centre": scale.centre_D, "deviation": scale.deviation_D}
            return Kind.PREPARE, tensors, (version,)
        case CandidatesRequest(_, version, parameters, shared_SP, turns_done):
            tensors = {"parameters": parameters, "shared": shared_SP}
            return Kind.CANDIDATES, tensors, (version, turns_done)
        case EvaluateRequest(_, version, mean_metric_C):
            return Kind.EVALUATE, {"mean_metric": mean_metric_C}, (version,)


def read_request(frame: Frame, site: str, shapes: Shapes) -> Request:
    """Turn the server's bytes into a request.

    Args:
        frame: What came.
        site: Who reads it.
        shapes: What may come.

    Raises:
        MessageError: It is no request of this run.
    """
    tensors = open_message(frame.payload, shapes.request_bytes)
    reader = _READERS.get(frame.kind)
    if reader is None:
        raise MessageError(f"a frame of kind {frame.kind.name} is no request")
    names, count, read = reader
    if tensors.keys() != {*names, "numbers"}:
        raise MessageError(f"a request to {frame.kind.name} has other tensors: {sorted(tensors)}")
    numbers = expect(tensors, "numbers", np.int64, (count,)).tolist()
    if not 0 <= numbers[0] <= shapes.num_versions:
        raise MessageError(f"version {numbers[0]} is none of 0 to {shapes.num_versions}")
    return read(tensors, numbers, site, shapes)


_Tensors = dict[str, np.ndarray]


def _network(tensors: _Tensors, shapes: Shapes) -> np.ndarray:
    network_P = expect(tensors, "parameters", np.float32, (shapes.num_parameters,))
    if not all_finite(network_P):
        raise MessageError("a network received holds a value that is not finite")
    return network_P


def _turn(number: int) -> int:
    if not 0 <= number <= MOST_TURNS:
        raise MessageError(f"turn {number} is none of 0 to {MOST_TURNS}")
    return number


def _train(tensors: _Tensors, numbers: list[int], site: str, shapes: Shapes) -> Request:
    if numbers[0] == shapes.num_versions:
        raise MessageError(f"asked to train for version {numbers[0]}, when all is over")
    return TrainRequest(site, numbers[0], _network(tensors, shapes), _turn(numbers[1]))


def _statistics(tensors: _Tensors, numbers: list[int], site: str, shapes: Shapes) -> Request:
    if numbers[1] != shapes.feature_dim:
        raise MessageError(f"asked for {numbers[1]} features; there are {shapes.feature_dim}")
    return StatisticsRequest(site, numbers[0], numbers[1])


def _prepare(tensors: _Tensors, numbers: list[int], site: str, shapes: Shapes) -> Request:
    centre_D, deviation_D = (
        expect(tensors, name, np.float32, (shapes.feature_dim,)) for name in ("centre", "deviation")
    )
    if not (all_finite(centre_D) and all_finite(deviation_D) and (deviation_D > 0).all()):
        raise MessageError("a scale received is not finite, or not above 0")
    return PrepareRequest(site, numbers[0], Standardisation(centre_D, deviation_D))


def _candidates(tensors: _Tensors, numbers: list[int], site: str, shapes: Shapes) -> Request:
    count = tensors["shared"].shape[:1]
    if count not in ((0,), (_SHARED,)):
        raise MessageError(f"{count} shared networks; expected 0 or {_SHARED}")
    shared_SP = expect(tensors, "shared", np.float32, (*count, shapes.num_parameters))
    if not all(all_finite(network_P) for network_P in shared_SP):
        raise MessageError("a network received holds a value that is not finite")
    network_P = _network(tensors, shapes)
    return CandidatesRequest(site, numbers[0], network_P, shared_SP, _turn(numbers[1]))


def _evaluate(tensors: _Tensors, numbers: list[int], site: str, shapes: Shapes) -> Request:
    metric_C = expect(tensors, "mean_metric", np.float64, length(tensors, "mean_metric"))
    if metric_C.size > MAX_CANDIDATES:
        raise MessageError(f"metrics of {metric_C.size} candidates; at most {MAX_CANDIDATES}")
    within(metric_C[~np.isnan(metric_C)], 0, 1, "a validation metric")
    return EvaluateRequest(site, numbers[0], metric_C)


_READERS = {
    Kind.TRAIN: (("parameters",), 2, _train),
    Kind.STATISTICS: ((), 2, _statistics),
    Kind.PREPARE: (("centre", "deviation"), 1, _prepare),
    Kind.CANDIDATES: (("parameters", "shared"), 2, _candidates),
    Kind.EVALUATE: (("mean_metric",), 1, _evaluate),
}


def answer_bytes(plan: Plan) -> int:
    """No answer of a site is longer."""
    return max(4 * ParameterLayout.of(plan.model()).size + 1024, 64 * MAX_BAGS) + HEADER_LIMIT
