"""Attention pooling: the classifier sees one weighted mean of the tiles.

Shapes: N tiles of a bag, D features, H hidden, A attention width, O outputs, R attention branches;
all with S sites in front where a cohort trains.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from rayfed_hn.models.masks import Masks
from rayfed_hn.models.padding import PaddedMasks, softmax_of_tiles, weighted_sum
from rayfed_hn.models.site_model import SiteModel


class AttentionMIL(SiteModel):
    """Attention pooling without a gate.

    a_n = w . dropout(tanh(V h_n + b)); alpha = softmax(a); z = sum_n alpha_n h_n;
    logits = W2 z + b2. With D, H, A, O = 1024, 512, 256, 2 it has 657,410 parameters.

    Source: Ilse et al. 2018 (Attention-based deep multiple instance learning, eq. 8). Their V has
    no bias and they use no dropout; both are here as in CLAM's ungated attention (Lu et al. 2021).
    CLAM's w has a bias too, which the softmax cancels and ours leaves out.
    """

    in_cohorts: ClassVar[bool] = True

    def _add_layers(self, num_outputs: int, hidden_dim: int, attention_dim: int) -> None:
        self.attention_v = nn.Linear(hidden_dim, attention_dim)
        self.attention_w = nn.Linear(attention_dim, 1, bias=False)
        self.classifier = nn.Linear(hidden_dim, num_outputs)

    def forward(
        self,
        features_ND: Tensor,
        generator: Masks | PaddedMasks | None = None,
        present_N: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        hidden_NH = self._hidden(features_ND, generator)
        v_NA = self._drop(torch.tanh(self.attention_v(hidden_NH)), generator)
        attention_N = softmax_of_tiles(self.attention_w(v_NA).squeeze(-1), present_N)
        return self.classifier(weighted_sum(attention_N, hidden_NH)), attention_N


class GatedPooling(SiteModel):
    """What models with gated attention share: the scores before the softmax."""

    def _add_attention(self, hidden_dim: int, attention_dim: int, branches: int) -> None:
        self.attention_v = nn.Linear(hidden_dim, attention_dim)
        self.attention_u = nn.Linear(hidden_dim, attention_dim)
        self.attention_w = nn.Linear(attention_dim, branches)

    def _scores(self, hidden_NH: Tensor, generator: Masks | PaddedMasks | None) -> Tensor:
        """Scores (N, R): every tile's in every branch."""
        v_NA = self._drop(torch.tanh(self.attention_v(hidden_NH)), generator)
        u_NA = self._drop(torch.sigmoid(self.attention_u(hidden_NH)), generator)
        return self.attention_w(v_NA * u_NA)


class GatedAttentionMIL(GatedPooling):
    """Gated attention pooling, HistoFL's "small" network at D = 1024.

    h_n = dropout(relu(W1 x_n + b1)); a_n = w . (tanh(V h_n) * sigmoid(U h_n)) with dropout on both
    branches; alpha = softmax(a); z = sum_n alpha_n h_n; logits = W2 z + b2.
    With D, H, A, O = 1024, 512, 256, 2 it has 788,739 parameters.

    Sources: Ilse et al. 2018 (Attention-based deep multiple instance learning, eq. 9);
    Lu et al. 2022 (HistoFL).
    """

    in_cohorts: ClassVar[bool] = True

    def _add_layers(self, num_outputs: int, hidden_dim: int, attention_dim: int) -> None:
        self._add_attention(hidden_dim, attention_dim, branches=1)
        self.classifier = nn.Linear(hidden_dim, num_outputs)

    def forward(
        self,
        features_ND: Tensor,
        generator: Masks | PaddedMasks | None = None,
        present_N: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        hidden_NH = self._hidden(features_ND, generator)
        scores_N = self._scores(hidden_NH, generator).squeeze(-1)
        attention_N = softmax_of_tiles(scores_N, present_N)
        return self.classifier(weighted_sum(attention_N, hidden_NH)), attention_N
