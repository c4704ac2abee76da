"""The site models by the name that a configuration gives them, and how they begin.

Shapes: D features, P parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rayfed_hn.config import ModelConfig
from rayfed_hn.models.attention import AttentionMIL, GatedAttentionMIL
from rayfed_hn.models.clam import CLAMMultiBranch, CLAMSingleBranch
from rayfed_hn.models.dsmil import DSMIL
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.pooling import MaxMIL, MeanMIL
from rayfed_hn.models.set_transformer import SetTransformer
from rayfed_hn.models.site_model import SiteModel

MODELS: dict[str, type[SiteModel]] = {
    "gated_attention": GatedAttentionMIL,
    "attention": AttentionMIL,
    "mean": MeanMIL,
    "max": MaxMIL,
    "clam_sb": CLAMSingleBranch,
    "clam_mb": CLAMMultiBranch,
    "dsmil": DSMIL,
    "set_transformer": SetTransformer,
}


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


def make_model(feature_dim: int, num_outputs: int, config: ModelConfig) -> SiteModel:
    """The site network for features of this length; its own tensors are never used."""
    hidden, attention = widths(feature_dim, config)
    with torch.device("meta"):  # shapes only: every call brings its parameters
        return MODELS[config.name](feature_dim, num_outputs, hidden, attention, config.dropout)


def initial_parameters(layout: ParameterLayout, seed: int) -> Tensor:
    """Xavier-normal matrices and zero biases as one vector (P,).

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
