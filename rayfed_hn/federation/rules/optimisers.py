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
        half: Keep the first moment in bfloat16. It forgets a tenth a step, which bfloat16 can
            tell; the second forgets a thousandth, which would be rounded away, and stays float32.
    """

    kind: Literal["sgd", "momentum", "adam"]
    rate: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    half: bool = False


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
        kinds = [torch.bfloat16 if optimiser.half else torch.float32, torch.float32]
        self._moments = [torch.zeros_like(table, dtype=kind) for kind in kinds[:moments]]
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
            first = self._moments[0][rows].float() * rule.momentum + gradient
            self._moments[0][rows] = first.to(self._moments[0].dtype)
            self.table[rows] = values - rule.rate * first
            return
        first = self._moments[0][rows].float().lerp(gradient, 1 - BETA_1)
        second = self._moments[1][rows].lerp(gradient.square(), 1 - BETA_2)
        self._moments[0][rows] = first.to(self._moments[0].dtype)
        self._moments[1][rows] = second
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

    def move_part(self, part: Callable[[Tensor], Tensor], left: Tensor, right: Tensor) -> None:
        """Move a part of a table of one row in place by the gradient ``left @ right``.

        The product goes straight into the moment where the optimiser allows.

        Args:
            part: From the table, or a moment of its shape (1, C), to a view (R, W) of what moves.
            left: (R, N).
            right: (N, W).
        """
        rule, values = self._optimiser, part(self.table)
        if rule.kind == "sgd":
            values.mul_(1 - rule.rate * rule.weight_decay)
            values.addmm_(left, right, alpha=-rule.rate)
            return
        kept = part(self._moments[0])
        first = kept.float()  # itself, if it is kept in float32
        if rule.kind == "momentum":
            first.addmm_(left, right, beta=rule.momentum).add_(values, alpha=rule.weight_decay)
            values.sub_(first, alpha=rule.rate)
        else:
            gradient = (left @ right).add_(values, alpha=rule.weight_decay)
            second, count = part(self._moments[1]), int(self._steps[0])
            first.lerp_(gradient, 1 - BETA_1)
            second.lerp_(gradient.square_(), 1 - BETA_2)
            unbiased = math.sqrt(1 - BETA_2**count)
            rate = rule.rate * unbiased / (1 - BETA_1**count)
            values.sub_(first / second.sqrt().add_(EPSILON * unbiased), alpha=rate)
        if first is not kept:
            kept.copy_(first)

    def state(self, name: str) -> dict[str, Tensor]:
        """Values and moments under names that begin with ``name``."""
        moments = {f"{name}.moment{i}": m for i, m in enumerate(self._moments)}
        return {name: self.table, f"{name}.steps": self._steps, **moments}

    def load_state(self, state: Mapping[str, Tensor], name: str) -> None:
        """Go on from a ``state()``."""
        self.table = same_shape(state, name, self.table).to(self.table.device, copy=True)
        self._steps = same_shape(state, f"{name}.steps", self._steps).clone()
        self._moments = [
            same_shape(state, f"{name}.moment{i}", m).to(m.device, copy=True)
            for i, m in enumerate(self._moments)
        ]
