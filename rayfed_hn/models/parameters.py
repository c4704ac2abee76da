"""A network as one flat float32 vector.

Generation, noise, clipping, distances and transport are vector operations; only this file knows
where each tensor lies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ParameterLayout:
    """Names and shapes of the tensors in a flat vector, in order.

    Attributes:
        shapes: ``(name, shape)`` of each tensor; its place follows from those before it.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, module: nn.Module) -> ParameterLayout:
        """The layout of a module's parameters, in the order in which it names them."""
        return cls(tuple((name, tuple(p.shape)) for name, p in module.named_parameters()))

    @property
    def size(self) -> int:
        """P, the length of the vector."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return [math.prod(shape) for _, shape in self.shapes]

    def places(self) -> Iterator[tuple[str, slice]]:
        """Yield each tensor's name and its place in the vector."""
        start = 0
        for (name, _), size in zip(self.shapes, self._sizes, strict=True):
            yield name, slice(start, start + size)
            start += size

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Copy named tensors into one float32 vector (P,).

        Raises:
            ValueError: A tensor is missing or of another shape.
        """
        parts = []
        for name, shape in self.shapes:
            if name not in tensors or tuple(tensors[name].shape) != shape:
                got = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise ValueError(f"parameter {name}: expected shape {shape}, got {got}")
            parts.append(tensors[name].detach().reshape(-1).to(torch.float32))
        return torch.cat(parts)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """View a vector (P,) as named tensors; gradients flow back to the vector.

        Raises:
            ValueError: The vector has another length.
        """
        if vector.shape != (self.size,):
            raise ValueError(f"expected a vector of {self.size}, got shape {tuple(vector.shape)}")
        parts = vector.split(self._sizes)  # one split: its gradient is one concatenation
        return {
            name: part.view(shape) for (name, shape), part in zip(self.shapes, parts, strict=True)
        }


Module = TypeVar("Module", bound=nn.Module)


def bind(module: Module, vector: Tensor, *, trains: bool = False) -> Module:
    """A copy of a module whose parameters are views into one flat vector.

    It computes what ``torch.func.functional_call`` does with the unflattened vector, without
    putting tensors in place at every call: with small bags that takes longer than the network.

    Args:
        module: Gives shapes; its own tensors are not used.
        vector: float32 (P,), without gradient of its own; later changes to it are seen.
        trains: Whether the parameters get gradients.
    """
    bound = _shell(module)
    for name, view in ParameterLayout.of(module).unflatten(vector).items():
        owner, _, leaf = name.rpartition(".")
        parameter = nn.Parameter(view, requires_grad=trains)
        bound.get_submodule(owner).register_parameter(leaf, parameter)
    return bound


def _shell(module: Module) -> Module:
    """A copy whose parameters can be replaced; what else it holds is the module's own.

    ``copy.deepcopy`` takes as long as a training step, and sites bind a network at every request.
    """
    shell = module.__class__.__new__(module.__class__)
    shell.__dict__ = module.__dict__ | {
        "_parameters": dict(module._parameters),
        "_modules": {
            name: None if child is None else _shell(child)
            for name, child in module._modules.items()
        },
    }
    return shell
