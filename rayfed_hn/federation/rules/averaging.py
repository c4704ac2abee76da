"""One network for everybody, and one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from rayfed_hn.federation.rules.base import Contribution, Rule, factors, same_shape, stack


class FedAvg(Rule):
    """McMahan et al. 2017 with equal weights; buffered as FedBuff (Nguyen et al. 2022).

        theta <- theta - (1/B) sum_k w_k s(tau_k) u_k

    over the B updates of a buffer: divided by their number and not by the sum of the factors, so
    that late updates count less. A synchronous round is B = K, s = w = 1. FedProx (Li et al. 2020)
    is this rule with a proximal term at the sites, FedPer (Arivazhagan et al. 2019) with a layer
    that stays there; with one site it is pooled training.
    """

    def __init__(self, initial: Tensor) -> None:
        self.theta = initial.clone()

    def parameters_for(self, site: int) -> np.ndarray:
        return self.theta.numpy().copy()

    def shared(self) -> np.ndarray | None:
        return self.theta.numpy().copy()

    def apply(self, contributions: Sequence[Contribution], *, complete: bool) -> None:
        _, updates_BP = stack(contributions)
        step_P = (factors(contributions) * updates_BP).mean(dim=0)
        self.theta = (self.theta.double() - step_P).float()

    def state(self) -> dict[str, Tensor]:
        return {"theta": self.theta}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.theta = same_shape(state, "theta", self.theta)


class Local(Rule):
    """Isolated sites: theta_i <- theta_i - u_i. Nothing is ever mixed."""

    def __init__(self, initial: Tensor, num_sites: int) -> None:
        self.thetas_KP = initial.repeat(num_sites, 1)

    def parameters_for(self, site: int) -> np.ndarray:
        return self.thetas_KP[site].numpy().copy()

    def shared(self) -> np.ndarray | None:
        return None

    def apply(self, contributions: Sequence[Contribution], *, complete: bool) -> None:
        sites, updates_BP = stack(contributions)
        for site, update_P in zip(sites, updates_BP, strict=True):
            self.thetas_KP[site] = (self.thetas_KP[site].double() - update_P).float()

    def state(self) -> dict[str, Tensor]:
        return {"thetas": self.thetas_KP}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.thetas_KP = same_shape(state, "thetas", self.thetas_KP)
