"""Multiple-instance classifiers: a bag of tile features in, slide logits out.

Shapes: N tiles of a bag, D features, H hidden, A attention width, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rayfed_hn.config import ModelConfig
from rayfed_hn.models.parameters import ParameterLayout


class GatedAttentionMIL(nn.Module):
    """Gated attention pooling, HistoFL's "small" network at D = 1024.

    h_n = dropout(relu(W1 x_n + b1)); a_n = w . (tanh(V h_n) * sigmoid(U h_n)) with dropout on both
    branches; alpha = softmax(a); z = sum_n alpha_n h_n; logits = W2 z + b2.
    With D, H, A, C = 1024, 512, 256, 2 it has 788,739 parameters.

    Sources: Ilse et al. 2018 (Attention-based deep multiple instance learning, eq. 9);
    Lu et al. 2022 (HistoFL).
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        hidden_dim: int,
        attention_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(feature_dim, hidden_dim)
        self.attention_v = nn.Linear(hidden_dim, attention_dim)
        self.attention_u = nn.Linear(hidden_dim, attention_dim)
        self.attention_w = nn.Linear(attention_dim, 1)
        self.classifier = nn.Linear(hidden_dim, num_classes)
        self.dropout = dropout

    def forward(
        self, features_ND: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Classify one bag.

        Args:
            features_ND: Tile features (N, D), N >= 1.
            generator: Source of dropout masks. Given: training; absent: evaluation, no dropout.

        Returns:
            Logits (C,) and attention (N,), which is positive and sums to one.
        """
        hidden_NH = self._drop(torch.relu(self.projection(features_ND)), generator)
        v_NA = self._drop(torch.tanh(self.attention_v(hidden_NH)), generator)
        u_NA = self._drop(torch.sigmoid(self.attention_u(hidden_NH)), generator)
        attention_N = torch.softmax(self.attention_w(v_NA * u_NA).squeeze(-1), dim=0)
        return self.classifier(attention_N @ hidden_NH), attention_N

    def _drop(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        # An explicit generator, not torch's global one: masks are keyed by site and version.
        if generator is None or self.dropout == 0:
            return x
        keep = 1 - self.dropout
        mask = torch.empty_like(x).bernoulli_(keep, generator=generator)
        return x * mask.div_(keep)


def widths(feature_dim: int, config: ModelConfig) -> tuple[int, int]:
    """Hidden and attention width for features of this length.

    The default is D / 2 rounded up to a power of two, between 32 and 512, and half of that: the
    paper's lineage uses 512 and 256 at D = 1024, far too much for the short vectors of small
    encoders.
    """
    power_of_two = 1 << (max(1, (feature_dim + 1) // 2) - 1).bit_length()
    hidden = config.hidden_dim or min(512, max(32, power_of_two))
    return hidden, config.attention_dim or max(1, hidden // 2)


def learning_rate(hidden: int) -> float:
    """Adam's rate for a network of this width: HistoFL's 2e-4 at its width of 512.

    What a step of Adam changes in a layer's output grows with the number of its inputs, so that the
    rate goes with 1 / width (Yang et al. 2021, Tensor Programs V); narrow networks at 2e-4 hardly
    move within a federation's budget.
    """
    return 2e-4 * 512 / hidden


def make_model(feature_dim: int, num_classes: int, config: ModelConfig) -> GatedAttentionMIL:
    """The site network for features of this length; its own tensors are never used."""
    hidden, attention = widths(feature_dim, config)
    with torch.device("meta"):  # shapes only: every call brings its parameters
        return GatedAttentionMIL(feature_dim, num_classes, hidden, attention, config.dropout)


def initial_parameters(layout: ParameterLayout, seed: int) -> Tensor:
    """Xavier-normal weights and zero biases as one vector (P,).

    Source: Glorot & Bengio 2010, as HistoFL initialises.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in layout.shapes:
        tensor = torch.zeros(shape)
        if len(shape) > 1:
            nn.init.xavier_normal_(tensor, generator=generator)
        tensors[name] = tensor
    return layout.flatten(tensors)
