"""From a site's embedding v_i to its features m(v_i): the small part of a hypernetwork.

Shapes: S sites of a step, V embedding, E features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import pad

from rayfed_hn.seeds import derive

FEWEST_ROWS = 8  # of a product; for fewer, BLAS adds in another order


def unit_embeddings(num_sites: int, embedding_dim: int, seed: int) -> Tensor:
    """Unit rows, float64 (K, E): orthonormal where E >= K, random directions otherwise."""
    generator = torch.Generator().manual_seed(derive(seed, "site embeddings"))
    draws = torch.randn(num_sites, embedding_dim, generator=generator, dtype=torch.float64)
    if embedding_dim >= num_sites:
        columns, upper = torch.linalg.qr(draws.T)
        return (columns * torch.sign(torch.diagonal(upper))).T.contiguous()
    return draws / draws.norm(dim=1, keepdim=True)


def normal_embeddings(num_sites: int, embedding_dim: int, seed: int) -> Tensor:
    """Standard normal rows, float32 (K, V), as ``torch.nn.Embedding`` starts (pFedHN's)."""
    generator = torch.Generator().manual_seed(derive(seed, "site embeddings"))
    return torch.randn(num_sites, embedding_dim, generator=generator)


class MLP:
    """pFedHN's trunk (Shamsian et al. 2021, code): Linear, then n times ReLU and Linear.

    Args:
        sizes: Widths, from the embedding's to the features'.
        seed: Of the initial values, which are ``torch.nn.Linear``'s: uniform within 1/sqrt(inputs).
    """

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        generator = torch.Generator().manual_seed(derive(seed, "feature map"))
        self.tensors: dict[str, Tensor] = {}
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            self.tensors[f"{i}.weight"] = uniform((outputs, inputs), inputs, generator)
            self.tensors[f"{i}.bias"] = uniform((outputs,), inputs, generator)
        self._depth = len(sizes) - 1

    def __call__(self, tensors: dict[str, Tensor], embeddings_SV: Tensor) -> Tensor:
        """Features (S, E) of embeddings (S, V), by the given tensors.

        Those of a row do not depend on which others are there.
        """
        num_rows = len(embeddings_SV)
        values = pad(embeddings_SV, (0, 0, 0, max(0, FEWEST_ROWS - num_rows)))
        for i in range(self._depth):
            values = values if i == 0 else torch.relu(values)
            values = values @ tensors[f"{i}.weight"].T + tensors[f"{i}.bias"]
        return values[:num_rows]


def uniform(shape: tuple[int, ...], inputs: int, generator: torch.Generator) -> Tensor:
    """The initial values of ``torch.nn.Linear``: uniform within 1 / sqrt(inputs)."""
    return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(inputs)
