"""Named tensors: from the bytes of a weight file into a network, and never code."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from rayfed_hn.errors import ConfigError

State = dict[str, Tensor]
WRAPPERS = ("state_dict", "model")  # training scripts save their weights under one of these
COUNTER = "num_batches_tracked"  # of batch norms; absent from older files, and nothing reads it
MAX_COMPLAINTS = 3


def parse_state(data: bytes, path: Path, remedy: str) -> State:
    """Read tensors by name from the bytes of ``.safetensors``, or of what ``torch.save`` wrote.

    Args:
        data: The bytes of the file.
        path: Its name, which tells the format.
        remedy: What the user can do if that fails.

    Raises:
        ConfigError: They cannot be read, or are something other than named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            state: Any = load_safetensors(data)
        else:
            with warnings.catch_warnings():  # of files that are then refused
                warnings.simplefilter("ignore")
                state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # a damaged file makes the readers raise nearly anything
        raise ConfigError(f"embed.weights={path} cannot be read as weights; {remedy}") from None
    if isinstance(state, dict):
        state = next((state[k] for k in WRAPPERS if isinstance(state.get(k), dict)), state)
    if not isinstance(state, dict) or not state or not all(map(_is_entry, state.items())):
        raise ConfigError(f"embed.weights={path} holds no table of named tensors; {remedy}")
    return state


def _is_entry(item: tuple[object, object]) -> bool:
    name, value = item
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided


def complaints_about(state: State, network: nn.Module) -> list[str]:
    """List what keeps a state from being the network's: missing, unexpected, of another shape."""
    wanted = network.state_dict()
    missing = [k for k in wanted if k not in state and not k.endswith(COUNTER)]
    unexpected = [k for k in state if k not in wanted]
    shapes = [
        f"{k} has shape {tuple(t.shape)}, not {tuple(wanted[k].shape)}"
        for k, t in state.items()
        if k in wanted and t.shape != wanted[k].shape
    ]
    return [f"missing {k}" for k in missing] + [f"unexpected {k}" for k in unexpected] + shapes


def fill(
    network: nn.Module,
    state: State,
    path: Path,
    what: str,
    remedy: str,
    convert: Callable[[State], State] | None = None,
) -> None:
    """Put a state into a network, every name and every shape of it.

    Args:
        network: Is given the tensors.
        state: What it is given.
        path: The file of the state, for messages.
        what: The network in words, for messages.
        remedy: What the user can do if it does not fit.
        convert: Turns the names of another publisher into the network's; tried if they do not fit.

    Raises:
        ConfigError: It does not fit; the first few reasons are listed.
    """
    complaints = complaints_about(state, network)
    if complaints and convert is not None:
        try:
            converted = convert(dict(state))
        except Exception:  # written for files of certain publishers; this one is not of theirs
            converted = {}
        if not complaints_about(converted, network):
            state, complaints = converted, []
    if complaints:
        hidden = len(complaints) - MAX_COMPLAINTS
        more = f" and {hidden} more" if hidden > 0 else ""
        raise ConfigError(
            f"embed.weights={path} is not {what}: {'; '.join(complaints[:MAX_COMPLAINTS])}{more}; "
            f"{remedy}"
        )
    counters = {k: t for k, t in network.state_dict().items() if k.endswith(COUNTER)}
    network.load_state_dict(counters | state)


def digest_of(network: nn.Module) -> str:
    """SHA-256 (hex) over the names, shapes and numbers of a network.

    It is that of the tensors and not of a file: the same weights from ``.pth``, ``.safetensors``
    or a download give the same features.
    """
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.endswith(COUNTER):
            values = tensor.detach().cpu().contiguous()
            total.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
            total.update(values.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()
