"""Methods. A rule says which network a site receives and what the sites' updates change.

A rule is explicit state and three functions over it: ``parameters_for``, ``apply`` and ``state``.
It knows nothing of versions, lost sites or transport. Updates are u_i = theta_i - theta'_i; sums
run in float64 in site order, so that arrival order cannot change a bit of the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.config import Config
from rayfed_hn.errors import DataError
from rayfed_hn.models.hypernetwork import LinearHypernetwork


class Rule(Protocol):
    """What every method offers. Sites are numbered in the order of their names."""

    def parameters_for(self, site: int) -> np.ndarray:
        """The network that a site receives now, float32 (P,)."""
        ...

    def apply(self, updates: Mapping[int, np.ndarray]) -> None:
        """Make the next version from updates (P,) by site number."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that the next version depends on."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a ``state()``. Raises ``DataError`` if it is another federation's."""
        ...


class FedAvg:
    """McMahan et al. 2017, equal weights: theta <- theta - (1/K) sum_i u_i.

    With one site it is pooled training.
    """

    def __init__(self, initial: Tensor) -> None:
        self.theta = initial.clone()

    def parameters_for(self, site: int) -> np.ndarray:
        return self.theta.numpy().copy()

    def apply(self, updates: Mapping[int, np.ndarray]) -> None:
        _, updates_KP = _in_site_order(updates)
        self.theta = (self.theta.double() - updates_KP.mean(dim=0)).float()

    def state(self) -> dict[str, Tensor]:
        return {"theta": self.theta}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.theta = _same_shape(state, "theta", self.theta)


class Local:
    """Isolated sites: theta_i <- theta_i - u_i. Nothing is ever mixed."""

    def __init__(self, initial: Tensor, num_sites: int) -> None:
        self.thetas_KP = initial.repeat(num_sites, 1)

    def parameters_for(self, site: int) -> np.ndarray:
        return self.thetas_KP[site].numpy().copy()

    def apply(self, updates: Mapping[int, np.ndarray]) -> None:
        sites, updates_KP = _in_site_order(updates)
        self.thetas_KP[sites] = (self.thetas_KP[sites].double() - updates_KP).float()

    def state(self) -> dict[str, Tensor]:
        return {"thetas": self.thetas_KP}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.thetas_KP = _same_shape(state, "thetas", self.thetas_KP)


class Hypernetwork:
    """Base plus generator, in the manner of Lin et al. 2023 on pFedHN (Shamsian et al. 2021).

    theta_i = theta_0 + h_i W with |h_i| = 1, and from updates u_i of the cohort

        theta_0 <- theta_0 - mean_i u_i
        W       <- W - rho s sum_i h_i (u_i - mean u)^T,   s = min(1, 1 / (rho lambda_max(H H^T)))

    The second line is pFedHN's pull-back of the updates through the generator, centred so that
    theta_0 stays the mean of the sites' networks and *summed*, not averaged, so that the step of a
    site does not shrink with their number. With orthonormal h_i the step of a site is the mean
    update plus rho times its own deviation from it: rho = 0 is FedAvg with equal weights, rho = 1
    isolated training. s keeps the sum stable where rows overlap (fewer dimensions than sites).
    """

    def __init__(
        self, initial: Tensor, num_sites: int, embedding_dim: int, rho: float, seed: int
    ) -> None:
        self.net = LinearHypernetwork(initial, num_sites, embedding_dim, seed)
        self.rho = rho

    def parameters_for(self, site: int) -> np.ndarray:
        return self.net.generate(site).numpy()

    def apply(self, updates: Mapping[int, np.ndarray]) -> None:
        sites, updates_KP = _in_site_order(updates)
        mean_P = updates_KP.mean(dim=0)
        self.net.theta_0 = (self.net.theta_0.double() - mean_P).float()
        if self.rho == 0:
            return
        step = min(self.rho, 1 / self.net.largest_eigenvalue(sites))
        gradient_EP = self.net.pull_back(sites, updates_KP - mean_P)
        self.net.head_EP = (self.net.head_EP.double() - step * gradient_EP).float()

    def state(self) -> dict[str, Tensor]:
        return {
            "theta_0": self.net.theta_0,
            "head": self.net.head_EP,
            "site_embeddings": self.net.embeddings_KE,
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.net.theta_0 = _same_shape(state, "theta_0", self.net.theta_0)
        self.net.head_EP = _same_shape(state, "head", self.net.head_EP)
        self.net.embeddings_KE = _same_shape(state, "site_embeddings", self.net.embeddings_KE)


def make_rule(config: Config, initial: Tensor, num_sites: int) -> Rule:
    """The rule that ``method.name`` asks for, starting from one network (P,) for everybody."""
    name = config.method.name
    if name == "hypernetwork":
        dim = config.hypernetwork.embedding_dim or max(16, num_sites)
        return Hypernetwork(initial, num_sites, dim, config.hypernetwork.rho, config.run.seed)
    if name == "local":
        return Local(initial, num_sites)
    return FedAvg(initial)  # fedavg; and pooled, which is the same with a single site


def _in_site_order(updates: Mapping[int, np.ndarray]) -> tuple[list[int], Tensor]:
    sites = sorted(updates)
    return sites, torch.from_numpy(np.stack([updates[site] for site in sites]).astype(np.float64))


def _same_shape(state: Mapping[str, Tensor], name: str, own: Tensor) -> Tensor:
    loaded = state.get(name)
    if loaded is None or loaded.shape != own.shape or loaded.dtype != own.dtype:
        got = "nothing" if loaded is None else f"{loaded.dtype} {tuple(loaded.shape)}"
        raise DataError(
            f"checkpoint: '{name}' should be {own.dtype} {tuple(own.shape)}, found {got}; it "
            "belongs to a run with other sites, bags or model settings"
        )
    return loaded
