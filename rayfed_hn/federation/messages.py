"""What crosses the border of a site, and nothing else does.

Down goes a request with a parameter vector. Up comes one safetensors message of fixed tensors and
declared numbers: no pickle, no path, no slide name, no traceback. The receiver trusts none of it:
size, names, shapes, types and finiteness are checked before anything is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as _parse
from safetensors.numpy import save as _serialise

from rayfed_hn.errors import DataError, MessageError, SetAside

_HEADER_LIMIT = 4096  # more than any header of ours
MAX_BAGS = 1_000_000  # scores in one message


@dataclass(frozen=True)
class TrainRequest:
    """Train this network on your bags.

    Attributes:
        site: Who is asked.
        version: The server's version that the parameters belong to.
        parameters: float32 (P,).
    """

    site: str
    version: int
    parameters: np.ndarray


@dataclass(frozen=True)
class EvaluateRequest:
    """Score your test bags; ``parameters`` (P,) is the last network."""

    site: str
    version: int
    parameters: np.ndarray


@dataclass(frozen=True)
class Update:
    """What a site learned: u = received - released parameters, after any noise.

    Attributes:
        site: Who sent it (known from the channel, not from the bytes).
        version: Of the request that it answers.
        update: float32 (P,).
        train_loss: Mean over the local steps.
        validation_loss: Of the *received* network; NaN without validation bags.
        validation_auc: Of the received network; None where undefined.
        num_steps: Local gradient steps.
        seconds: Time the site took.
    """

    SCALARS: ClassVar[tuple[str, ...]] = (
        "version",
        "train_loss",
        "validation_loss",
        "validation_auc",
        "num_steps",
        "seconds",
    )
    site: str
    version: int
    update: np.ndarray
    train_loss: float
    validation_loss: float
    validation_auc: float | None
    num_steps: int
    seconds: float

    def to_bytes(self) -> bytes:
        """The message as it leaves the site."""
        values = [getattr(self, name) for name in self.SCALARS]
        scalars = [math.nan if value is None else float(value) for value in values]
        return _serialise({"update": self.update, "scalars": np.array(scalars)})

    @classmethod
    def from_bytes(cls, message: bytes, site: str, num_parameters: int) -> Update:
        """Read a message from a site.

        Raises:
            MessageError: It is not an update of this network.
        """
        tensors = _open(message, 4 * num_parameters)
        update = _expect(tensors, "update", np.float32, (num_parameters,))
        scalars = _expect(tensors, "scalars", np.float64, (len(cls.SCALARS),))
        if not np.isfinite(update).all():
            raise MessageError("update holds a value that is not finite")
        values = dict(zip(cls.SCALARS, scalars.tolist(), strict=True))
        whole = (values["version"], values["num_steps"])
        if not all(v >= 0 and float(v).is_integer() for v in whole):
            raise MessageError("version and num_steps must be whole numbers")
        auc = values["validation_auc"]
        if not (math.isnan(auc) or 0 <= auc <= 1) or not math.isfinite(values["seconds"]):
            raise MessageError("validation_auc must lie in 0 to 1 and seconds be finite")
        return cls(
            site=site,
            version=int(values["version"]),
            update=update,
            train_loss=values["train_loss"],
            validation_loss=values["validation_loss"],
            validation_auc=None if math.isnan(auc) else auc,
            num_steps=int(values["num_steps"]),
            seconds=values["seconds"],
        )


@dataclass(frozen=True)
class Scores:
    """Test scores of a site under each readout. Slides and cases are salted hashes.

    Attributes:
        site: Who sent it.
        version: Of the last network.
        validation_auc: Of the last network, mean over origins; None where undefined.
        best_version_O: Version that each of its O origins chose on its validation bags, int64.
        origin_B: Which of the site's origins each bag is from (pooled training has several), int64.
        slide_B, case_B: Opaque numbers, int64.
        label_B: Class index, int64.
        last_B, best_B: Probability of class 1 under each readout, float32.
    """

    site: str
    version: int
    validation_auc: float | None
    best_version_O: np.ndarray
    origin_B: np.ndarray
    slide_B: np.ndarray
    case_B: np.ndarray
    label_B: np.ndarray
    last_B: np.ndarray
    best_B: np.ndarray

    _COLUMNS: ClassVar[tuple[tuple[str, type], ...]] = (
        ("origin_B", np.int64),
        ("slide_B", np.int64),
        ("case_B", np.int64),
        ("label_B", np.int64),
        ("last_B", np.float32),
        ("best_B", np.float32),
    )

    def to_bytes(self) -> bytes:
        """The message as it leaves the site."""
        versions = np.array([self.version, *self.best_version_O])
        auc = np.array([math.nan if self.validation_auc is None else self.validation_auc])
        columns = {name: getattr(self, name).astype(kind) for name, kind in self._COLUMNS}
        return _serialise({"versions": versions, "validation_auc": auc, **columns})

    @classmethod
    def from_bytes(cls, message: bytes, site: str) -> Scores:
        """Read a message from a site. Raises ``MessageError`` if it is not one of scores."""
        tensors = _open(message, 64 * MAX_BAGS)
        versions = _expect(tensors, "versions", np.int64, _length(tensors, "versions"))
        num_bags = _length(tensors, "label_B")
        columns = {name: _expect(tensors, name, kind, num_bags) for name, kind in cls._COLUMNS}
        origin_B = columns["origin_B"]
        if len(versions) < 2 or ((origin_B < 0) | (origin_B >= len(versions) - 1)).any():
            raise MessageError("a bag is from an origin that is not declared")
        auc = float(_expect(tensors, "validation_auc", np.float64, (1,))[0])
        _within(columns["last_B"], 0, 1, "a score")
        _within(columns["best_B"], 0, 1, "a score")
        _within(columns["label_B"], 0, 1, "a label")
        _within(versions[1:], 0, versions[0], "a best version")
        if not math.isnan(auc):
            _within(np.array([auc]), 0, 1, "the validation AUC")
        version = int(versions[0])
        return cls(site, version, None if math.isnan(auc) else auc, versions[1:], **columns)


@dataclass(frozen=True)
class SiteLost:
    """A site did not answer and is out of the federation from here on.

    Attributes:
        site: Which.
        version: Of the request that was not answered.
        reason: In words that name no slide.
    """

    site: str
    version: int
    reason: str


Request = TrainRequest | EvaluateRequest
Event = Update | Scores | SiteLost


def failure_message(error: Exception) -> bytes:
    """What a site says when it could not answer: one code, since texts may name a patient."""
    codes = [i for i, (kinds, _) in enumerate(_FAILURES) if isinstance(error, kinds)]
    return _serialise({"failure": np.array([codes[0]])})


_FAILURES: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((MemoryError,), "the site ran out of memory"),
    ((DataError, SetAside, OSError), "the site could not read its bags"),
    ((MessageError, ValueError), "the site refused the request"),
    ((Exception,), "the site failed"),
)


def read_answer(request: Request, message: bytes) -> Event:
    """Turn a site's bytes into an event; whatever is wrong with them means that it is lost."""
    site, version = request.site, request.version
    try:
        failure = _open(message, 4 * request.parameters.size + 64 * MAX_BAGS).get("failure")
        if failure is not None:
            code = int(_expect({"failure": failure}, "failure", np.int64, (1,))[0])
            if not 0 <= code < len(_FAILURES):
                raise MessageError("unknown failure code")
            return SiteLost(
                site, version, f"{_FAILURES[code][1]}; site.log beside its bags says why"
            )
        if isinstance(request, EvaluateRequest):
            answer = Scores.from_bytes(message, site)
        else:
            answer = Update.from_bytes(message, site, request.parameters.size)
        if answer.version != version:
            raise MessageError(f"answers version {answer.version}, asked was {version}")
    except MessageError as error:
        return SiteLost(site, version, f"its answer was refused: {error}")
    return answer


def _open(message: bytes, payload_limit: int) -> dict[str, np.ndarray]:
    if len(message) > payload_limit + _HEADER_LIMIT:
        raise MessageError(
            f"message of {len(message):,} bytes; at most {payload_limit + _HEADER_LIMIT:,} allowed"
        )
    try:
        return _parse(message)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise MessageError(f"message is not safetensors ({type(error).__name__})") from None


def _within(values: np.ndarray, low: float, high: float, what: str) -> None:
    if not ((values >= low) & (values <= high)).all():  # false for NaN too
        raise MessageError(f"{what} is not within {low:g} to {high:g}")


def _length(tensors: dict[str, np.ndarray], name: str) -> tuple[int, ...]:
    """The shape of a vector of any length; a missing tensor is refused later, by its name."""
    return (tensors[name].size,) if name in tensors else (0,)


def _expect(
    tensors: dict[str, np.ndarray], name: str, kind: type, shape: tuple[int, ...]
) -> np.ndarray:
    tensor = tensors.get(name)
    if tensor is None:
        raise MessageError(f"message lacks '{name}'")
    if tensor.dtype != kind or tensor.shape != shape:
        raise MessageError(
            f"'{name}' is {tensor.dtype} {tensor.shape}; expected {np.dtype(kind)} {shape}"
        )
    return tensor
