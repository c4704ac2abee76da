"""DSMIL: attention by likeness to the tile that decides.

Shapes: N tiles of a bag, D features, H hidden, A attention width, O outputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rayfed_hn.models.masks import Masks
from rayfed_hn.models.site_model import BagTarget, SiteModel


class DSMIL(SiteModel):
    """Dual-stream pooling: a tile classifier's maximum, and attention around where it lies.

    First stream: l_n = W h_n + b; c_o = max_n l_no, at the critical tile m_o.
    Second stream: q_n = tanh(Q2 relu(Q1 h_n + b1) + b2); alpha_o is the softmax over tiles of
    q_n . q_m_o / sqrt(A); z_o = sum_n alpha_no h_n; s_o = sum_j U_oj . z_j + u_o, over all outputs.
    logits = (c + s) / 2; objective = (loss(c) + loss(s)) / 2; attention = mean_o alpha_o.
    With D, H, A, O = 1024, 512, 256, 2 it has 724,996 parameters.

    Sources: Li et al. 2021 (Dual-stream multiple instance learning network for whole slide image
    classification, CVPR) and its code, from which come the two-layer query, the scale 1 / sqrt(A)
    and the tiles themselves as what is summed; the paper's query is linear and it sums W_v h_n.
    Ours differs: the code classifies features as an encoder gives them and its queries have 128
    values; here both streams see the projection, with dropout.
    """

    def _add_layers(self, num_outputs: int, hidden_dim: int, attention_dim: int) -> None:
        self.query_hidden = nn.Linear(hidden_dim, attention_dim)
        self.query = nn.Linear(attention_dim, attention_dim)
        self.classifier = nn.ModuleDict(
            {
                "instance": nn.Linear(hidden_dim, num_outputs),
                "bag": nn.Linear(num_outputs * hidden_dim, num_outputs),
            }
        )

    def forward(self, features_ND: Tensor, generator: Masks | None = None) -> tuple[Tensor, Tensor]:
        critical_O, pooled_O, attention_N = self._streams(features_ND, generator)
        return (critical_O + pooled_O) / 2, attention_N

    def objective(
        self, features_ND: Tensor, target: BagTarget, generator: Masks | None = None
    ) -> Tensor:
        """Mean of the two streams' losses, a scalar."""
        critical_O, pooled_O, _ = self._streams(features_ND, generator)
        return (target.loss(critical_O) + target.loss(pooled_O)) / 2

    def _streams(
        self, features_ND: Tensor, generator: Masks | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the first and of the second stream, both (O,), and attention (N,)."""
        hidden_NH = self._hidden(features_ND, generator)
        critical_O, tiles_O = self.classifier["instance"](hidden_NH).max(dim=0)
        query_NA = torch.tanh(self.query(torch.relu(self.query_hidden(hidden_NH))))
        scores_ON = query_NA[tiles_O] @ query_NA.T / math.sqrt(query_NA.shape[1])
        attention_ON = torch.softmax(scores_ON, dim=1)
        pooled_O = self.classifier["bag"]((attention_ON @ hidden_NH).flatten())
        return critical_O, pooled_O, attention_ON.mean(dim=0)
