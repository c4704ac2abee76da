"""One network for everybody, and one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.federation.rules.base import Contribution, Rule, factors, same_shape, stack
from rayfed_hn.federation.rules.blocks import blocks, total
from rayfed_hn.federation.rules.robust import Trimming, combine


class FedAvg(Rule):
    """McMahan et al. 2017 with equal weights; buffered as FedBuff (Nguyen et al. 2022).

        theta <- theta - (1/B) sum_k w_k s(tau_k) u_k

    over the B updates of a buffer: divided by their number and not by the sum of the factors, so
    that late updates count less. A factor w s is at most B: no site pulls all others further than
    to its own network. A synchronous round is B = K, s = w = 1. FedProx (Li et al. 2020)
    is this rule with a proximal term at the sites, FedPer (Arivazhagan et al. 2019) with a layer
    that stays there; with one site it is pooled training.

    Args:
        initial: theta at the start, float32 (P,).
        trimming: Which of the terms w s u of every parameter do not count.
    """

    def __init__(self, initial: Tensor, trimming: Trimming | None = None) -> None:
        self.theta = initial.clone()
        self._trimming = trimming

    @property
    def size(self) -> int:
        return self.theta.numel()

    def networks(self, sites: Sequence[int]) -> list[np.ndarray]:
        return [self.shared()] * len(sites)

    def shared(self) -> np.ndarray:
        return self.theta.to("cpu", copy=True).numpy()

    def apply(self, contributions: Sequence[Contribution], *, complete: bool, among: int) -> None:
        share_B = factors(contributions).clamp(max=len(contributions))[:, 0] / len(contributions)
        self.theta.sub_(self._sum(share_B, contributions))

    def _sum(self, share_B: Tensor, contributions: Sequence[Contribution]) -> Tensor:
        vectors, scales = [c.update for c in contributions], [c.scale for c in contributions]
        device = self.theta.device
        if self._trimming is None:
            return total(share_B * torch.tensor(scales, dtype=torch.float64), vectors, device)
        sites = [c.site for c in contributions]
        parts = [
            combine(share_B, sites, updates_BW, self._trimming)
            for _, updates_BW in blocks(vectors, device, scales)
        ]
        return torch.cat(parts)

    def state(self) -> dict[str, Tensor]:
        return {"theta": self.theta}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.theta = same_shape(state, "theta", self.theta).to(self.theta.device, copy=True)


class Local(Rule):
    """Isolated sites: theta_i <- theta_i - u_i. Nothing is ever mixed.

    Of several updates to the same network, when a buffer is larger than the number of sites or a
    site is fast, the mean counts: each is the whole way from that network.
    """

    def __init__(self, initial: Tensor, num_sites: int) -> None:
        self.thetas_KP = initial.repeat(num_sites, 1)

    @property
    def size(self) -> int:
        return self.thetas_KP.shape[1]

    def networks(self, sites: Sequence[int]) -> list[np.ndarray]:
        return [self.thetas_KP[site].numpy().copy() for site in sites]

    def shared(self) -> np.ndarray | None:
        return None

    def apply(self, contributions: Sequence[Contribution], *, complete: bool, among: int) -> None:
        sites, updates_BP = stack(contributions)
        for site in sorted(set(sites)):
            own = [number for number, other in enumerate(sites) if other == site]
            step_P = updates_BP[own].mean(dim=0)
            self.thetas_KP[site] = (self.thetas_KP[site].double() - step_P).float()

    def state(self) -> dict[str, Tensor]:
        return {"thetas": self.thetas_KP}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.thetas_KP = same_shape(state, "thetas", self.thetas_KP)
