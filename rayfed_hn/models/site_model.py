"""What every site model is: a bag of tile features in, logits and attention out, and a loss.

Shapes: N tiles of a bag, D features, H hidden, A attention width, O outputs, P parameters, S sites
that train together, W values of a tile in any layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rayfed_hn.models.masks import Masks, draw_mask
from rayfed_hn.models.padding import PaddedMasks


@dataclass(frozen=True)
class BagTarget:
    """What training knows of a bag's label.

    Attributes:
        loss: From logits (O,) to the bag's loss, a scalar.
        present_O: For which outputs the bag is a positive example; None where a task has no classes
            (survival), and for single outputs that say nothing of the bag.
        absent_counts: Whether the tiles of a bag also are negative examples for the outputs that it
            is no positive example of (classes that exclude each other, or ordered grades).
    """

    loss: Callable[[Tensor], Tensor]
    present_O: tuple[bool | None, ...] | None = None
    absent_counts: bool = False


class SiteModel(nn.Module):
    """A network that a site receives as one flat vector and trains on its bags.

    Every model begins with h_n = dropout(relu(W1 x_n + b1)), which the standardisation of features
    is folded into, and ends with layers under ``classifier``, which may stay private at a site.
    Models that attend for every output apart return the mean of these attentions, whatever the
    outputs stand for.

    Attributes:
        in_cohorts: Whether ``forward`` also takes padded bags of S sites with the tiles that are
            ``present_N``, every layer with parameters is ``nn.Linear``, and the objective is the
            loss of the logits: what ``train_cohort`` needs.

    Args:
        feature_dim: D.
        num_outputs: O.
        hidden_dim: H.
        attention_dim: A.
        dropout: Share of values that training sets to 0.
    """

    in_cohorts: ClassVar[bool] = False

    def __init__(
        self,
        feature_dim: int,
        num_outputs: int,
        hidden_dim: int,
        attention_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(feature_dim, hidden_dim)
        self.dropout = dropout
        self._add_layers(num_outputs, hidden_dim, attention_dim)

    def _add_layers(self, num_outputs: int, hidden_dim: int, attention_dim: int) -> None:
        """Add what comes after the projection."""
        raise NotImplementedError

    def forward(self, features_ND: Tensor, generator: Masks | None = None) -> tuple[Tensor, Tensor]:
        """Classify one bag.

        Args:
            features_ND: Tile features (N, D), N >= 1.
            generator: Source of dropout masks. Given: training; absent: evaluation, no dropout.

        Returns:
            Logits (O,) and attention (N,), which is not negative and sums to one.
        """
        raise NotImplementedError

    def objective(
        self, features_ND: Tensor, target: BagTarget, generator: Masks | None = None
    ) -> Tensor:
        """What training minimises on one bag, a scalar: the loss of the bag's logits."""
        return target.loss(self(features_ND, generator)[0])

    def _hidden(self, features_ND: Tensor, generator: Masks | PaddedMasks | None) -> Tensor:
        return self._drop(torch.relu(self.projection(features_ND)), generator)

    def _drop(self, x: Tensor, generator: Masks | PaddedMasks | None) -> Tensor:
        # An explicit source, not torch's global generator: masks are keyed by site and version.
        if generator is None or self.dropout == 0:
            return x
        keep = 1 - self.dropout
        padded = isinstance(generator, PaddedMasks)
        mask = generator.draw(x, keep) if padded else draw_mask(generator, x, keep)
        return x * mask.div_(keep)
