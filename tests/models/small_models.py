"""Every site model at sizes that no two dimensions share, with parameters and targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from rayfed_hn.config import ModelConfig
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import MODELS, make_model
from rayfed_hn.models.site_model import BagTarget, SiteModel

NAMES = tuple(MODELS)
DIM, HIDDEN, ATTENTION, OUTPUTS = 5, 7, 8, 3


def small(name: str, dropout: float = 0.25) -> SiteModel:
    config: Any = {"name": name, "hidden_dim": HIDDEN, "attention_dim": ATTENTION}
    return make_model(DIM, OUTPUTS, ModelConfig(**config, dropout=dropout))


def some_parameters(model: nn.Module, seed: int = 0) -> Tensor:
    """Float64 (P,), biases included, large enough for attention to differ between tiles."""
    generator = torch.Generator().manual_seed(seed)
    size = ParameterLayout.of(model).size
    return 0.6 * torch.randn(size, generator=generator, dtype=torch.float64)


def some_tiles(num: int, seed: int = 0, dim: int = DIM) -> Tensor:
    """Float64 (N, D)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, dim, generator=generator, dtype=torch.float64)


def masks(seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator().manual_seed(seed)


def class_target(label: int = 1, *, absent_counts: bool = True, num: int = OUTPUTS) -> BagTarget:
    """One of classes that exclude each other."""
    return BagTarget(
        loss=lambda logits: F.cross_entropy(logits, torch.tensor(label, device=logits.device)),
        present_O=tuple(output == label for output in range(num)),
        absent_counts=absent_counts,
    )


def call(model: SiteModel, vector: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return functional_call(model, ParameterLayout.of(model).unflatten(vector), args)


class _Objective(nn.Module):
    def __init__(self, model: SiteModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any) -> Tensor:
        return self.model.objective(*args)


def objective_of(model: SiteModel) -> Callable[..., Tensor]:
    """The objective as a function of the flat vector, through ``functional_call``."""
    layout, wrapped = ParameterLayout.of(model), _Objective(model)

    def objective(vector: Tensor, *args: Any) -> Tensor:
        tensors = {f"model.{k}": v for k, v in layout.unflatten(vector).items()}
        return functional_call(wrapped, tensors, args)

    return objective
