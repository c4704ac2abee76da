"""Optimisers at the sites, and their moments as vectors that a site can keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rayfed_hn.config import TrainingConfig

SGD_MOMENTUM = 0.9  # pFedHN's, at the sites


def make_optimiser(
    config: TrainingConfig, groups: Sequence[dict[str, Any]]
) -> torch.optim.Optimizer:
    """The optimiser of ``training.optimiser`` for groups as PyTorch has them.

    Fused ones read every tensor once a step; the others take up to a third of a step on a CPU.
    """
    makers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": torch.optim.SGD,
        "momentum": partial(torch.optim.SGD, momentum=SGD_MOMENTUM),
    }
    make = makers[config.optimiser]
    return make(list(groups), lr=0.0, weight_decay=config.weight_decay, fused=True)


def take_up(
    optimiser: torch.optim.Optimizer, parameter: Tensor, moments: Mapping[str, Tensor]
) -> None:
    """Let a fresh optimiser go on from the moments of one of its parameters."""
    optimiser.state[parameter] = {
        name: value.to(parameter.device, copy=True) for name, value in moments.items()
    }


def take_up_all(
    optimiser: torch.optim.Optimizer, parameters: Sequence[Tensor], moments: Mapping[str, Tensor]
) -> None:
    """Let a fresh optimiser go on from the moments (P,) of all its parameters; empty: begin."""
    if moments:
        for parameter, own in zip(parameters, _split(moments, parameters), strict=True):
            take_up(optimiser, parameter, own)


def _split(
    moments: Mapping[str, Tensor], parameters: Sequence[Tensor]
) -> Iterator[dict[str, Tensor]]:
    """The moments of every parameter; numbers, such as Adam's of steps, are everybody's."""
    start = 0
    for parameter in parameters:
        place = slice(start, start + parameter.numel())
        start = place.stop
        yield {
            name: value[place].view(parameter.shape) if value.dim() else value
            for name, value in moments.items()
        }


def joined(optimiser: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """The moments of all parameters as vectors (P,), on the CPU.

    What the loss never looked at has none; it begins with zeros, as it would.
    """
    states = [optimiser.state[parameter] for parameter in parameters]
    known = next((state for state in states if state), {})
    joined: dict[str, Tensor] = {}
    for name, value in known.items():
        if value is None:
            continue
        parts = [
            state.get(name, torch.zeros_like(parameter)).detach().flatten()
            for state, parameter in zip(states, parameters, strict=True)
        ]
        joined[name] = (torch.cat(parts) if value.dim() else value.clone()).cpu()
    return joined
