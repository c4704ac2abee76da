"""The hypernetwork: from a site's embedding to that site's network.

Shapes: K sites, E embedding, P parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rayfed_hn.seeds import derive


class LinearHypernetwork:
    """theta_i = theta_0 + h_i W with fixed unit embeddings h_i and a learned head W.

    ``theta_0`` (P,) is a network with the classifier's own initialisation; ``head`` W (E, P) starts
    at zero, so that every site begins with theta_0. For E >= K the rows h_i are orthonormal and the
    head holds one direction a site; for E < K they are random unit vectors, and sites with alike
    rows share. Its lineage is pFedHN (Shamsian et al. 2021, eq. 3: theta_i = h(v_i; phi)), with an
    MLP there; the linear form moves sites apart by a known amount (see the rule).
    """

    def __init__(self, initial: Tensor, num_sites: int, embedding_dim: int, seed: int) -> None:
        self.theta_0 = initial.detach().clone().to(torch.float32)
        self.embeddings_KE = unit_embeddings(num_sites, embedding_dim, seed)
        self.head_EP = torch.zeros(embedding_dim, self.theta_0.numel())

    def generate(self, site: int) -> Tensor:
        """The network of one site, float32 (P,)."""
        offset = self.embeddings_KE[site] @ self.head_EP.double()
        return (self.theta_0.double() + offset).float()

    def pull_back(self, sites: list[int], vectors_KP: Tensor) -> Tensor:
        """Gradient of <generate(sites), vectors> with respect to the head: sum_i h_i v_i^T.

        Args:
            sites: K row numbers of embeddings.
            vectors_KP: One vector a site, float64.

        Returns:
            float64 (E, P).
        """
        return self.embeddings_KE[sites].T @ vectors_KP

    def largest_eigenvalue(self, sites: list[int]) -> float:
        """Of the Gram matrix H H^T of these sites' embeddings; 1 when they are orthonormal."""
        rows = self.embeddings_KE[sites]
        return float(torch.linalg.eigvalsh(rows @ rows.T)[-1])


def unit_embeddings(num_sites: int, embedding_dim: int, seed: int) -> Tensor:
    """Unit rows, float64 (K, E): orthonormal where E >= K, random directions otherwise."""
    generator = torch.Generator().manual_seed(derive(seed, "site embeddings"))
    draws = torch.randn(num_sites, embedding_dim, generator=generator, dtype=torch.float64)
    if embedding_dim >= num_sites:
        columns, upper = torch.linalg.qr(draws.T)
        return (columns * torch.sign(torch.diagonal(upper))).T.contiguous()
    return draws / draws.norm(dim=1, keepdim=True)
