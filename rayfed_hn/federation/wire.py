"""The byte form of messages: safetensors with fixed tensors, and nothing of it is trusted.

The format is that of the safetensors library, which the tests hold both directions against. It is
written and read here because the library copies an update four times on its way, which takes longer
than everything else that is done to it; here it is copied once, and read where it lies.
"""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from rayfed_hn.errors import MessageError

HEADER_LIMIT = 4096  # more than any header of ours
MAX_BAGS = 1_000_000  # scores in one message
ALIGNMENT = 8
KINDS = {"F64": np.float64, "F32": np.float32, "I64": np.int64, "BOOL": np.bool_}
_NAMES = {np.dtype(kind): name for name, kind in KINDS.items()}

Message = bytes | memoryview  # as it was written, or a view of memory that it came in


Shapes = Mapping[str, tuple[type | np.dtype, tuple[int, ...]]]


class Draft:
    """A message to be filled where it lies, so that what is large is written once.

    Args:
        shapes: Type and shape of every tensor.
    """

    def __init__(self, shapes: Shapes) -> None:
        ordered = sorted(shapes.items(), key=lambda item: -np.dtype(item[1][0]).itemsize)
        header: dict[str, Any] = {}
        place = 0
        for name, (kind, shape) in ordered:  # long elements first, so that all are aligned
            size = math.prod(shape) * np.dtype(kind).itemsize
            about = {"dtype": _NAMES[np.dtype(kind)], "shape": list(shape)}
            header[name] = about | {"data_offsets": [place, place + size]}
            place += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        self._bytes = np.empty(8 + len(text) + place, np.uint8)
        first = np.frombuffer(len(text).to_bytes(8, "little") + text, np.uint8)
        self._bytes[: len(first)] = first
        payload = self._bytes[len(first) :].data
        self._tensors = {
            name: np.frombuffer(payload[slice(*header[name]["data_offsets"])], kind).reshape(shape)
            for name, (kind, shape) in ordered
        }

    def __getitem__(self, name: str) -> np.ndarray:
        """A tensor of the message, the same object each time."""
        return self._tensors[name]

    @property
    def message(self) -> memoryview:
        """What is sent."""
        return self._bytes.data


def serialise(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Named tensors as one message."""
    draft = Draft({name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()})
    for name, tensor in tensors.items():
        draft[name][...] = tensor
    return draft.message.tobytes()


def open_message(message: Message, payload_limit: int) -> dict[str, np.ndarray]:
    """The tensors of a message, as views into it.

    Raises:
        MessageError: It is too long, or not what ``serialise`` would have written.
    """
    if len(message) > payload_limit + HEADER_LIMIT:
        raise MessageError(
            f"message of {len(message):,} bytes; at most {payload_limit + HEADER_LIMIT:,} allowed"
        )
    try:
        return _parse(memoryview(message))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MessageError(f"message is not safetensors ({type(error).__name__})") from None


def _parse(message: memoryview) -> dict[str, np.ndarray]:
    length = int.from_bytes(message[:8], "little")
    payload = message[8 + length :]
    if not 0 < length <= min(HEADER_LIMIT, len(message) - 8) or length % ALIGNMENT:
        raise ValueError
    header = json.loads(bytes(message[8 : 8 + length]))
    tensors: dict[str, np.ndarray] = {}
    filled = 0
    for name, about in header.items():
        kind, shape, (begin, end) = KINDS[about["dtype"]], about["shape"], about["data_offsets"]
        size = np.dtype(kind).itemsize
        numbers = [*shape, begin, end]
        whole = type(shape) is list and all(type(n) is int and n >= 0 for n in numbers)
        # One after the other, so that nothing overlaps and nothing is hidden between them.
        if not whole or begin != filled or begin % size or end - begin != math.prod(shape) * size:
            raise ValueError
        tensors[name] = np.frombuffer(payload[begin:end], kind).reshape(shape)
        filled = end
    if filled != len(payload):
        raise ValueError
    return tensors


def all_finite(vector: np.ndarray) -> bool:
    """Whether every value of a float32 vector is finite.

    A sum with a value that is not finite is not finite either, and is found faster; a sum of large
    values may overflow, so that only then every value is looked at.
    """
    return math.isfinite(torch.from_dlpack(vector).sum().item()) or bool(np.isfinite(vector).all())


class LastFinite:
    """``all_finite`` that remembers the last vector: sites that share a network get the same one.

    Requests are not written to, so that an array that was finite stays so.
    """

    def __init__(self) -> None:
        self._last: Callable[[], np.ndarray | None] = lambda: None

    def __call__(self, vector: np.ndarray) -> bool:
        if self._last() is vector:
            return True
        finite = all_finite(vector)
        if finite:
            self._last = weakref.ref(vector)
        return finite


def within(values: np.ndarray, low: float, high: float, what: str) -> None:
    if not ((values >= low) & (values <= high)).all():  # false for NaN too
        raise MessageError(f"{what} is not within {low:g} to {high:g}")


def length(tensors: dict[str, np.ndarray], name: str) -> tuple[int, ...]:
    """The shape of a vector of any length; a missing tensor is refused later, by its name."""
    return (tensors[name].size,) if name in tensors else (0,)


def expect(
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
