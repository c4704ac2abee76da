"""Pooling without attention of its own: the baselines that others have to beat.

Shapes: N tiles of a bag, D features, H hidden, O outputs; all with S sites in front where a cohort
trains.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from rayfed_hn.models.masks import Masks
from rayfed_hn.models.padding import PaddedMasks, weighted_sum
from rayfed_hn.models.site_model import SiteModel


class MeanMIL(SiteModel):
    """Mean pooling: every tile counts alike.

    z = mean_n h_n; logits = W2 z + b2, which is the mean of the tiles' own logits too; the
    attention is 1 / N. With D, H, O = 1024, 512, 2 it has 525,826 parameters (A is not used).

    Source: the mean-pooling baselines of Ilse et al. 2018, behind one hidden layer and with the
    dropout of CLAM's lineage.
    """

    in_cohorts: ClassVar[bool] = True

    def _add_layers(self, num_outputs: int, hidden_dim: int, attention_dim: int) -> None:
        self.classifier = nn.Linear(hidden_dim, num_outputs)

    def forward(
        self,
        features_ND: Tensor,
        generator: Masks | PaddedMasks | None = None,
        present_N: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        hidden_NH = self._hidden(features_ND, generator)
        if present_N is not None:
            attention_N = present_N / present_N.sum(dim=-1, keepdim=True)
            return self.classifier(weighted_sum(attention_N, hidden_NH)), attention_N
        # A shape, not a len() or a number made of it: exported programs take any number of tiles.
        num_tiles = features_ND.shape[0]
        attention_N = hidden_NH.new_ones(num_tiles) / num_tiles
        return self.classifier(hidden_NH.mean(dim=0)), attention_N


class MaxMIL(SiteModel):
    """Max pooling of the tiles' logits: one tile decides about each output.

    l_n = W2 h_n + b2; logits_o = max_n l_no. Attention for an output: all on the tile with its
    maximum, in equal parts where tiles tie, as the gradient is. With D, H, O = 1024, 512, 2 it has
    525,826 parameters (A is not used).

    Source: the instance-level max baseline of Ilse et al. 2018. Campanella et al. 2019 and CLAM's
    code let one tile, that of the highest probability, give all logits; ours takes every output's
    own, so that it also serves outputs that exclude nothing.
    """

    in_cohorts: ClassVar[bool] = True

    def _add_layers(self, num_outputs: int, hidden_dim: int, attention_dim: int) -> None:
        self.classifier = nn.Linear(hidden_dim, num_outputs)

    def forward(
        self,
        features_ND: Tensor,
        generator: Masks | PaddedMasks | None = None,
        present_N: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        logits_NO = self.classifier(self._hidden(features_ND, generator))
        if present_N is not None:
            logits_NO = logits_NO.masked_fill(~present_N.unsqueeze(-1), float("-inf"))
        logits_O = logits_NO.amax(dim=-2)
        decides_NO = (logits_NO == logits_O.unsqueeze(-2)).to(logits_NO.dtype)
        return logits_O, (decides_NO / decides_NO.sum(dim=-2, keepdim=True)).mean(dim=-1)
