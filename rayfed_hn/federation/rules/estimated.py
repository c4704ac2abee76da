"""Base plus generator whose share of personal learning is estimated, not chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.federation.rules.base import (
    Contribution,
    Generator,
    Rule,
    SiteEmbeddings,
    same_shape,
    stack,
)

MEMORY = 0.8  # of the moving averages of T and C
NOISE_FLOOR = 1e-3  # of the mean of T; keeps the kernel's inverse well-conditioned


class EstimatedHypernetwork(Rule):
    """theta_j = theta_0 + o_j, with the kernel between sites learned from their updates.

    Empirical Bayes, cross-fitted (ours; the form is James-Stein's). In odd rounds a site trains on
    one half of its bags and in even rounds on the other, so what its two updates have in common is
    the site and not the draw. With D_i = u_i - mean u on a layer, moving averages

        T_i  of |D_i|^2,        C_ij of (<D_i, D'_j> + <D_j, D'_i>) / 2  over pairs of rounds

    give, per layer, either one share for all (``kernel=False``)

        rho = clip(trace C / sum T, 0, 1),                    o_j <- o_j - rho D_j

    or the whole kernel (``kernel=True``), with K the positive part of C and N the noise T_i - C_ii

        A = K (K + N)^-1,                                     o_j <- o_j - sum_i A_ji D_i

    and always theta_0 <- theta_0 - mean u. The site embeddings are the factor of the kernel and
    their dimension its rank. Sites without a finished pair take nothing but the mean. Keeps two
    vectors of P for every site.

    Args:
        initial: theta_0 at the start, float32 (P,).
        num_sites: K.
        edges: Where layers begin and end in the vector: 0, ..., P.
        kernel: Estimate the whole kernel.
    """

    def __init__(self, initial: Tensor, num_sites: int, edges: Sequence[int], kernel: bool) -> None:
        size, layers = initial.numel(), len(edges) - 1
        self.theta_0 = initial.clone()
        self.offsets_KP = torch.zeros(num_sites, size)
        self._before_KP = torch.zeros(num_sites, size)
        self._turn_K = torch.full((num_sites,), -2, dtype=torch.int64)  # of what lies in before
        unknown = torch.nan  # until a first value sets it
        self._total_LK = torch.full((layers, num_sites), unknown, dtype=torch.float64)
        self._common_LKK = torch.full((layers, num_sites, num_sites), unknown, dtype=torch.float64)
        self._layers = [slice(a, b) for a, b in pairwise(edges)]
        self._kernel = kernel

    @property
    def size(self) -> int:
        return self.theta_0.numel()

    def networks(self, sites: Sequence[int]) -> list[np.ndarray]:
        base_P = self.theta_0.double()
        return [(base_P + self.offsets_KP[site].double()).float().numpy() for site in sites]

    def shared(self) -> np.ndarray | None:
        return self.theta_0.numpy().copy()

    def site_embeddings(self) -> SiteEmbeddings | None:
        """Of the whole kernel: the rows of its square root, whose inner products are the kernel.

        The kernel of a whole network is the sum of those of its layers. What is not known yet is 0.
        """
        if not self._kernel or bool(self._common_LKK.isnan().all()):
            return None
        kernel_KK = self._common_LKK.nan_to_num(nan=0.0).sum(dim=0)
        values, vectors = torch.linalg.eigh(kernel_KK)
        root_KK = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
        return SiteEmbeddings(root_KK.numpy(), learned=True, by_chance=False)

    def generator(self) -> Generator:
        """theta_0 + a O: a new site is a combination of the offsets of those that are there."""
        offsets_KP, theta_0 = self.offsets_KP.clone(), self.theta_0.clone()
        start_V = torch.full((len(offsets_KP),), 1 / len(offsets_KP))
        return Generator(start_V, lambda v_V: theta_0 + v_V @ offsets_KP)

    def apply(self, contributions: Sequence[Contribution], *, complete: bool, among: int) -> None:
        sites, updates_BP = stack(contributions)
        rows = torch.tensor(sites)
        mean_P = updates_BP.mean(dim=0)
        own_BP = updates_BP - mean_P
        turn_B = torch.tensor([c.turn for c in contributions])
        # Only the two turns of a pair see disjoint halves; a lost update leaves a pair unfinished.
        paired_B = (turn_B % 2 == 1) & (self._turn_K[rows] == turn_B - 1)
        for number, layer in enumerate(self._layers):
            self._observe(number, rows, own_BP[:, layer], layer, paired_B)
            mix_BB = self._mix(number, rows)
            offsets = self.offsets_KP[rows, layer].double() - mix_BB @ own_BP[:, layer]
            self.offsets_KP[rows, layer] = offsets.float()
        self.theta_0 = (self.theta_0.double() - mean_P).float()
        self._before_KP[rows] = own_BP.float()
        self._turn_K[rows] = turn_B

    def _observe(
        self, number: int, rows: Tensor, own_BL: Tensor, layer: slice, paired_B: Tensor
    ) -> None:
        """Take one round into the moving averages of one layer."""
        squares = own_BL.square().sum(dim=1)
        self._total_LK[number, rows] = _average(self._total_LK[number, rows], squares)
        pairs = rows[paired_B]
        cross = own_BL[paired_B] @ self._before_KP[pairs, layer].double().T
        old = self._common_LKK[number][pairs[:, None], pairs]
        self._common_LKK[number][pairs[:, None], pairs] = _average(old, (cross + cross.T) / 2)

    def _mix(self, number: int, rows: Tensor) -> Tensor:
        """A: how much of each site's deviation every site takes, float64 (B, B)."""
        total = self._total_LK[number, rows]
        common = self._common_LKK[number][rows[:, None], rows]
        known = ~common.diagonal().isnan()
        common = common.nan_to_num(nan=0.0)
        if total[known].sum() == 0:
            return torch.zeros_like(common)
        if not self._kernel:
            rho = float((common.trace() / total[known].sum()).clamp(0, 1))
            return rho * torch.diag(known.double())
        values, vectors = torch.linalg.eigh(common)
        kernel = vectors @ torch.diag(values.clamp(min=0)) @ vectors.T
        floor = NOISE_FLOOR * total.mean() + 1e-12
        noise = torch.diag((total - common.diagonal()).clamp(min=float(floor)))
        return torch.linalg.solve(kernel + noise, kernel).T

    def state(self) -> dict[str, Tensor]:
        return {
            "theta_0": self.theta_0,
            "offsets": self.offsets_KP,
            "before": self._before_KP,
            "turn": self._turn_K,
            "total": self._total_LK,
            "common": self._common_LKK,
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.theta_0 = same_shape(state, "theta_0", self.theta_0)
        self.offsets_KP = same_shape(state, "offsets", self.offsets_KP)
        self._before_KP = same_shape(state, "before", self._before_KP)
        self._turn_K = same_shape(state, "turn", self._turn_K)
        self._total_LK = same_shape(state, "total", self._total_LK)
        self._common_LKK = same_shape(state, "common", self._common_LKK)


def _average(old: Tensor, value: Tensor) -> Tensor:
    """A step of a moving average that begins with its first value."""
    return torch.where(old.isnan(), value, MEMORY * old + (1 - MEMORY) * value)
