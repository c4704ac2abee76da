"""The networks of several sites as one: every linear layer holds S weights.

Shapes: S sites, N tiles, P parameters, I inputs and O outputs of a layer.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from rayfed_hn.models.padding import PaddedBags, PaddedMasks
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.site_model import SiteModel


class StackedLinear(nn.Module):
    """S linear layers, each for what comes of its own site."""

    bias: nn.Parameter | None

    def __init__(self, weight_SOI: Tensor, bias_SO: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_SOI)
        self.register_parameter("bias", None if bias_SO is None else nn.Parameter(bias_SO))

    def forward(self, x: Tensor) -> Tensor:
        """(S, N, O) of (S, N, I), or (S, O) of (S, I)."""
        if x.dim() == 2:
            return self.forward(x.unsqueeze(1)).squeeze(1)
        if self.bias is None:
            return torch.bmm(x, self.weight.mT)
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.mT)


class StackedNetwork:
    """Takes a padded bag of every site; what ``bind`` makes for one.

    Args:
        model: Gives shapes; with ``in_cohorts``.
        vectors_SP: float32, a network in each row; later changes are seen.
        gradients_SP: What ``backward`` fills.
    """

    def __init__(self, model: SiteModel, vectors_SP: Tensor, gradients_SP: Tensor) -> None:
        layout, self._network = ParameterLayout.of(model), copy.deepcopy(model)
        tensors, gradients = (_views(layout, table) for table in (vectors_SP, gradients_SP))
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear):
                weight_SOI, bias_SO = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
                self._network.set_submodule(name, StackedLinear(weight_SOI, bias_SO))
        named = dict(self._network.named_parameters())
        self._pairs = [(named[name], gradients[name]) for name, _ in layout.shapes]

    def logits(self, batch: PaddedBags, masks: PaddedMasks) -> Tensor:
        """float32 (S, O)."""
        return self._network(batch.features_SND, masks, batch.present_SN)[0]

    def backward(self, loss: Tensor) -> None:
        """Put the gradient of a scalar in place of what stood there."""
        found = torch.autograd.grad(loss, [parameter for parameter, _ in self._pairs])
        for (_, place), gradient in zip(self._pairs, found, strict=True):
            place.copy_(gradient)


def _views(layout: ParameterLayout, table_SP: Tensor) -> dict[str, Tensor]:
    """Every tensor of all rows, (S, ...)."""
    return {
        name: table_SP[:, place].view(len(table_SP), *shape)
        for (name, place), (_, shape) in zip(layout.places(), layout.shapes, strict=True)
    }
