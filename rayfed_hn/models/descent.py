"""A network on its way: what local training moves, how far it may go, and by which optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rayfed_hn.config import TrainingConfig
from rayfed_hn.models.local_optimiser import joined, make_optimiser, take_up_all
from rayfed_hn.models.parameters import bind
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.subspace import Freedom, Subspace


@dataclass(frozen=True)
class Descent:
    """Local training under way.

    Attributes:
        received: Where it began, float32 (P,).
        theta: Where it is, float32 (P,).
        network: The module that ``theta`` fills.
        free: What the optimiser moves.
        optimiser: With its moments.
    """

    received: Tensor
    theta: Tensor
    network: SiteModel
    free: Freedom
    optimiser: torch.optim.Optimizer

    @classmethod
    def begin(
        cls,
        model: SiteModel,
        parameters: Tensor,
        config: TrainingConfig,
        *,
        learning_rate: float,
        moments: Mapping[str, Tensor] | None,
        subspace: Subspace | None,
        device: torch.device | str,
    ) -> Descent:
        """Stand at the network received; arguments are those of ``train_locally``."""
        received = parameters.detach().to(device)
        theta = received.clone()
        network = bind(model, theta, trains=True)
        free = Freedom(theta, list(network.parameters()), subspace)
        rate = learning_rate * free.rate
        optimiser = make_optimiser(config, [{"params": free.parameters, "lr": rate}])
        take_up_all(optimiser, free.parameters, moments or {})
        return cls(received, theta, network, free, optimiser)

    def step(self) -> None:
        """Go one step along the gradients."""
        self.optimiser.step()
        self.free.follow()

    def kept(self, config: TrainingConfig) -> dict[str, Tensor]:
        """The optimiser's moments, for a site that keeps them."""
        return joined(self.optimiser, self.free.parameters) if config.keep_optimiser else {}
