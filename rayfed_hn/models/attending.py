"""Where a network looks: the attention of the tiles of a bag.

Shapes: N tiles, P parameters.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.parameters import bind
from rayfed_hn.models.site_model import SiteModel

# What these return in place of attention is 1 / N, and one tile an output.
WITHOUT_ATTENTION = ("mean", "max")


def attention_of(model: SiteModel, parameters: Tensor, bag: LabelledBag) -> np.ndarray:
    """Attention of every tile, float64 (N,), which sums to one; without dropout."""
    with torch.inference_mode():
        _, attention_N = bind(model, parameters.detach())(bag.tensor())
    return attention_N.numpy().astype(np.float64)
