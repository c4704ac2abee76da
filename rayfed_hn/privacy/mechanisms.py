"""What is done to a site's parameters before they leave it.

A mechanism is described, applied, and accounted for apart from each other, so that a run can state
exactly what it promises.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PaperNoise:
    """theta' + alpha * N(0, std(tensor)) on every weight tensor; biases are left in the clear.

    The noise of HistoFL (Lu et al. 2022), which Lin et al. 2023 inherit. Nothing is clipped and the
    scale itself follows the data, so that there is no bound on what one slide can change.

    Attributes:
        noise_scale: alpha, >= 0.
        noise_source: "seeded" draws from the given seed; "os" from the machine's entropy.
    """

    noise_scale: float
    noise_source: str = "seeded"

    def describe(self) -> dict[str, str | float]:
        """What a reader of the run is told."""
        if self.noise_scale == 0:
            return {"mechanism": "none", "formal_guarantee": "none"}
        return {
            "mechanism": "paper",
            "noise_scale": self.noise_scale,
            "noise_source": self.noise_source,
            "noised": "weight tensors; biases leave in the clear",
            "formal_guarantee": "none",
        }

    def privatise(
        self, parameters: Tensor, places: Iterable[tuple[str, slice]], seed: int
    ) -> Tensor:
        """Return a noisy copy of a parameter vector (P,); without noise the vector itself.

        Args:
            parameters: float32 (P,).
            places: Name and place of each tensor; names ending in ``bias`` are skipped.
            seed: Of the noise, when ``noise_source`` is "seeded".
        """
        if self.noise_scale == 0:
            return parameters
        noisy = parameters.clone()
        seed = seed if self.noise_source == "seeded" else secrets.randbits(63)
        generator = torch.Generator().manual_seed(seed)
        for name, place in places:
            tensor = parameters[place]
            if name.endswith("bias") or tensor.numel() < 2:  # the std of one number is NaN
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            noisy[place] += self.noise_scale * tensor.std() * noise
        return noisy
