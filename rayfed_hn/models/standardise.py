"""Features on one scale: per-feature centre and deviation that all sites share.

Encoders give features whose common offset can be many times what tells slides apart; without
centring, gradient steps are spent on that offset. Every site's own scale would hide what differs
between sites, so the sites agree on one.

Shapes: N tiles, D features, P parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.models.parameters import ParameterLayout

FIRST_LAYER = "projection"
SMALLEST = 1e-6  # a deviation below this is a constant feature, which is only centred


@dataclass(frozen=True)
class Standardisation:
    """x -> (x - centre) / deviation.

    Attributes:
        centre_D: float32 (D,).
        deviation_D: float32 (D,), all above 0.
    """

    centre_D: np.ndarray
    deviation_D: np.ndarray

    def state(self) -> dict[str, Tensor]:
        """As named tensors."""
        return {
            "input.centre": torch.from_numpy(self.centre_D),
            "input.deviation": torch.from_numpy(self.deviation_D),
        }

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Standardisation | None:
        """From a ``state()`` among other tensors; None if there is none."""
        if "input.centre" not in state:
            return None
        return cls(state["input.centre"].numpy(), state["input.deviation"].numpy())

    def apply(self, features_ND: Tensor) -> Tensor:
        """Standardised features, on the device that they are on."""
        centre_D = torch.tensor(self.centre_D, device=features_ND.device)
        return (features_ND - centre_D) / torch.tensor(self.deviation_D, device=features_ND.device)

    def fold(self, network_P: Tensor, layout: ParameterLayout) -> Tensor:
        """The network that does on features as they are what this one does on standardised ones.

        W ((x - c) / d) + b = (W / d) x + (b - W (c / d)).
        """
        folded_P = network_P.clone()
        tensors = layout.unflatten(folded_P)  # views
        weight, bias = (tensors[f"{FIRST_LAYER}.{name}"] for name in ("weight", "bias"))
        weight /= torch.tensor(self.deviation_D)
        bias -= weight @ torch.tensor(self.centre_D)
        return folded_P


def measure(bags: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of every feature, float64 (D,), every bag with the same weight.

    Equal weights keep a few large slides from deciding what all are measured by.

    Args:
        bags: Features of at least one bag, each (N, D).
    """
    moments = [
        (bag.mean(axis=0, dtype=np.float64), np.square(bag, dtype=np.float64).mean(axis=0))
        for bag in bags
    ]
    mean_D = np.mean([first for first, _ in moments], axis=0)
    return mean_D, np.maximum(np.mean([second for _, second in moments], axis=0) - mean_D**2, 0.0)


def agree(statistics: Sequence[tuple[np.ndarray, np.ndarray]]) -> Standardisation:
    """One standardisation for sites with equal weights.

    Args:
        statistics: Mean and variance of every feature at each site, float64 (D,).
    """
    means_KD = np.stack([mean for mean, _ in statistics])
    centre_D = means_KD.mean(axis=0)
    within_D = np.mean([variance for _, variance in statistics], axis=0)
    deviation_D = np.sqrt(within_D + np.square(means_KD - centre_D).mean(axis=0))
    deviation_D = np.where(deviation_D > SMALLEST, deviation_D, 1.0)
    return Standardisation(centre_D.astype(np.float32), deviation_D.astype(np.float32))
