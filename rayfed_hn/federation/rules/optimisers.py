"""Server optimisers: plain SGD, SGD with momentum, Adam; with lazy state for single rows.

PyTorch's own move every row of an embedding table at every step: momentum and weight decay also
push the rows of sites that did not take part. Here a row's state is its own, and rests with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rayfed_hn.federation.rules.base import same_shape

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # Kingma & Ba 2015


@dataclass(frozen=True)
class Optimiser:
    """How a tensor of the server is moved by its gradient.

    Attributes:
        kind: sgd, momentum (SGD with momentum, PyTorch's form) or adam.
        rate: Learning rate.
        momentum: Of ``momentum``.
        weight_decay: Added to the gradient as rate-free L2, as PyTorch's SGD and Adam do.
    """

    kind: Literal["sgd", "momentum", "adam"]
    rate: float
    momentum: float = 0.9
    weight_decay: float = 0.0


class RowState:
    """A table (R, C) of which each step moves some rows, each with moments of its own.

    A tensor that always moves as a whole is a table of one row.

    Args:
        table: The values, float32 (R, C); changed in place.
        optimiser: How they are moved.
    """

    def __init__(self, table: Tensor, optimiser: Optimiser) -> None:
        self.table = table
        self._optimiser = optimiser
        moments = {"sgd": 0, "momentum": 1, "adam": 2}[optimiser.kind]
        self._moments = [torch.zeros_like(table) for _ in range(moments)]
        self._steps = torch.zeros(len(table), dtype=torch.int64)

    def step(self, rows: list[int], gradient: Tensor) -> None:
        """Move some rows.

        Args:
            rows: Different row numbers.
            gradient: float32 (len(rows), C).
        """
        rule, values = self._optimiser, self.table[rows]
        if rule.weight_decay:
            gradient = gradient + rule.weight_decay * values
        if rule.kind == "sgd":
            self.table[rows] = values - rule.rate * gradient
            return
        self._steps[rows] += 1
        if rule.kind == "momentum":
            first = self._moments[0][rows] * rule.momentum + gradient
            self._moments[0][rows] = first
            self.table[rows] = values - rule.rate * first
            return
        first = self._moments[0][rows].lerp(gradient, 1 - BETA_1)
        second = self._moments[1][rows].lerp(gradient.square(), 1 - BETA_2)
        self._moments[0][rows], self._moments[1][rows] = first, second
        count = self._steps[rows].float().unsqueeze(1)
        scale = torch.sqrt(1 - BETA_2**count) / (1 - BETA_1**count)
        # PyTorch's order of operations, so that a table that moves as a whole agrees with it.
        self.table[rows] = values - rule.rate * scale * first / (
            second.sqrt() + EPSILON * torch.sqrt(1 - BETA_2**count)
        )

    def begin_whole(self) -> None:
        """Count a step that moves a table of one row in parts, by ``move_part``."""
        if self._optimiser.kind != "sgd":
            self._steps += 1

    def move_part(self, part: Callable[[Tensor], Tensor], gradient: Tensor) -> None:
        """Move a part of a table of one row in place, with nothing else made of its size.

        Args:
            part: From the table, or a moment of its shape (1, C), to a view of what moves.
            gradient: Of that part; changed in place.
        """
        rule, values = self._optimiser, part(self.table)
        if rule.weight_decay:
            gradient.add_(values, alpha=rule.weight_decay)
        if rule.kind == "sgd":
            values.sub_(gradient, alpha=rule.rate)
            return
        first = part(self._moments[0])
        if rule.kind == "momentum":
            first.mul_(rule.momentum).add_(gradient)
            values.sub_(first, alpha=rule.rate)
            return
        second, count = part(self._moments[1]), int(self._steps[0])
        first.lerp_(gradient, 1 - BETA_1)
        second.lerp_(gradient.square_(), 1 - BETA_2)
        unbiased = math.sqrt(1 - BETA_2**count)
        rate = rule.rate * unbiased / (1 - BETA_1**count)
        values.sub_(first / second.sqrt().add_(EPSILON * unbiased), alpha=rate)

    def state(self, name: str) -> dict[str, Tensor]:
        """Values and moments under names that begin with ``name``."""
        moments = {f"{name}.moment{i}": m for i, m in enumerate(self._moments)}
        return {name: self.table, f"{name}.steps": self._steps, **moments}

    def load_state(self, state: Mapping[str, Tensor], name: str) -> None:
        """Go on from a ``state()``."""
        self.table = same_shape(state, name, self.table).clone()
        self._steps = same_shape(state, f"{name}.steps", self._steps).clone()
        self._moments = [
            same_shape(state, f"{name}.moment{i}", m).clone() for i, m in enumerate(self._moments)
        ]
