"""The byte form of messages: safetensors with fixed tensors, and nothing of it is trusted."""

from __future__ import annotations

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as _parse
from safetensors.numpy import save as serialise

from rayfed_hn.errors import MessageError

__all__ = ["MAX_BAGS", "expect", "length", "open_message", "serialise", "within"]

HEADER_LIMIT = 4096  # more than any header of ours
MAX_BAGS = 1_000_000  # scores in one message


def open_message(message: bytes, payload_limit: int) -> dict[str, np.ndarray]:
    if len(message) > payload_limit + HEADER_LIMIT:
        raise MessageError(
            f"message of {len(message):,} bytes; at most {payload_limit + HEADER_LIMIT:,} allowed"
        )
    try:
        return _parse(message)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise MessageError(f"message is not safetensors ({type(error).__name__})") from None


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
