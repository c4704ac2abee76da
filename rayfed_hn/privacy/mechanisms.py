"""What is done to a site's parameters before they leave it.

A mechanism is described, applied, and accounted for apart from each other, so that a run can state
exactly what it promises.

Shapes: P parameters. Updates are u = received - released parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from rayfed_hn.privacy.accounting import Spent, epsilon_of
from rayfed_hn.privacy.clipping import clipped
from rayfed_hn.privacy.randomness import Randomness

Places = Sequence[tuple[str, slice]]


@dataclass(frozen=True)
class Released:
    """What leaves a site, and what the site knows about it.

    Attributes:
        update: float32 (P,).
        signal_to_noise: Norm of what was learned over that of the noise, as it is on average; None
            without noise.
        clipped: 1 if the update was scaled down, 0 if not; None where nothing is clipped.
    """

    update: Tensor
    signal_to_noise: float | None = None
    clipped: float | None = None


class Mechanism(Protocol):
    """What happens to an update on its way out."""

    def describe(self) -> Mapping[str, Any]:
        """What a reader of the run is told."""
        ...

    def spent(self, steps: int) -> Spent | None:
        """What a release after so many local steps costs; None: there is no formal guarantee."""
        ...

    def privatise(
        self,
        received: Tensor,
        trained: Tensor,
        places: Places,
        noise: Randomness,
        out: Tensor | None = None,
    ) -> Released:
        """Make an update (P,) from the parameters before and after training.

        Args:
            received: float32 (P,), not changed.
            trained: Likewise.
            places: Name and place of each tensor that leaves the site.
            noise: Its source.
            out: float32 (P,), where the update goes, such as a message; a new one if None.
        """
        ...


@dataclass(frozen=True)
class NoNoise:
    """The update as it is."""

    def describe(self) -> Mapping[str, Any]:
        return {"mechanism": "none", "formal_guarantee": "none"}

    def spent(self, steps: int) -> Spent | None:
        return None

    def privatise(
        self,
        received: Tensor,
        trained: Tensor,
        places: Places,
        noise: Randomness,
        out: Tensor | None = None,
    ) -> Released:
        return Released(torch.sub(received, trained, out=out))


@dataclass(frozen=True)
class PaperNoise:
    """theta' + alpha * N(0, std(tensor)), by default on weight tensors; biases stay in the clear.

    The noise of HistoFL (Lu et al. 2022), which Lin et al. 2023 inherit. Nothing is clipped and the
    scale itself follows the data, so that there is no bound on what one slide can change.

    Attributes:
        noise_scale: alpha, > 0.
        biases: Whether they are noised too.
        of: Whose standard deviation: of the trained parameters, or of the update.
    """

    noise_scale: float
    biases: bool = False
    of: Literal["parameters", "update"] = "parameters"

    def describe(self) -> Mapping[str, Any]:
        biases = "biases too" if self.biases else "biases leave in the clear"
        return {
            "mechanism": "paper",
            "noise_scale": self.noise_scale,
            "noised": f"tensors, by the standard deviation of each one's {self.of}; {biases}",
            "formal_guarantee": "none",
        }

    def spent(self, steps: int) -> Spent | None:
        return None

    def privatise(
        self,
        received: Tensor,
        trained: Tensor,
        places: Places,
        noise: Randomness,
        out: Tensor | None = None,
    ) -> Released:
        update = torch.sub(received, trained, out=out)
        measured = trained if self.of == "parameters" else update.clone()
        signal, variance = 0.0, 0.0
        for name, place in places:
            tensor = measured[place]
            signal += float(update[place].double().square().sum())
            # Of one number, the standard deviation is not defined.
            if tensor.numel() < 2 or (name.endswith("bias") and not self.biases):
                continue
            scale = self.noise_scale * float(tensor.std())
            variance += scale**2 * tensor.numel()
            update[place] += scale * _normal(noise, tensor.numel())
        return Released(update, math.sqrt(signal / variance) if variance else None)


@dataclass(frozen=True)
class SiteGaussian:
    """The whole update clipped to a norm, and Gaussian noise on every coordinate.

    Nobody who sees the releases, the server included, can tell the site's data from others beyond
    (epsilon, delta). Everything that a site sends is seen with its name, so that nothing is gained
    by not being asked: no amplification is claimed.

    Attributes:
        clip_norm: C, the largest norm of an update.
        multiplier: Standard deviation of the noise over the sensitivity.
        neighbouring: "replace": any other data, sensitivity 2C; "zero_out": an update of zero, C.
    """

    clip_norm: float
    multiplier: float
    neighbouring: Literal["replace", "zero_out"]

    @property
    def sensitivity(self) -> float:
        """How far two neighbouring updates can be apart."""
        return self.clip_norm * (2 if self.neighbouring == "replace" else 1)

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise on every coordinate."""
        return self.multiplier * self.sensitivity

    def describe(self) -> Mapping[str, Any]:
        return {
            "mechanism": "site_ldp",
            "unit": "site",
            "neighbouring": self.neighbouring,
            "clip_norm": self.clip_norm,
            "sensitivity": self.sensitivity,
            "noise_multiplier": self.multiplier,
            "noise_deviation": self.deviation,
            "amplification": "none claimed",
        }

    def spent(self, steps: int) -> Spent | None:
        return Spent("site", self.neighbouring, self.multiplier)

    def privatise(
        self,
        received: Tensor,
        trained: Tensor,
        places: Places,
        noise: Randomness,
        out: Tensor | None = None,
    ) -> Released:
        leaving = torch.zeros(received.shape, dtype=torch.bool)
        for _, place in places:
            leaving[place] = True
        update, norm = clipped((received - trained)[leaving], self.clip_norm)
        signal = min(norm, self.clip_norm) if math.isfinite(norm) else 0.0
        update += self.deviation * _normal(noise, update.numel())
        released = torch.zeros_like(received) if out is None else out.zero_()
        released[leaving] = update
        ratio = signal / (self.deviation * math.sqrt(update.numel()))
        return Released(released, ratio, float(norm > self.clip_norm))


@dataclass(frozen=True)
class TrainedPrivately:
    """The update of a training whose every step was clipped and noised; nothing is added to it.

    DP-SGD (Abadi et al. 2016), with a patient or a slide as the record.

    Attributes:
        unit: "patient" or "slide".
        clip_norm: C, the largest norm of a unit's gradient.
        multiplier: Standard deviation of the noise on a step's sum of gradients, over C.
        sampling_rate: Chance of every unit to be in a step.
    """

    unit: Literal["patient", "slide"]
    clip_norm: float
    multiplier: float
    sampling_rate: float

    def describe(self) -> Mapping[str, Any]:
        return {
            "mechanism": "slide_dpsgd",
            "unit": self.unit,
            "neighbouring": "presence or absence",
            "clip_norm": self.clip_norm,
            "sensitivity": self.clip_norm,
            "noise_multiplier": self.multiplier,
            "noise_deviation": self.multiplier * self.clip_norm,
            "sampling_rate": self.sampling_rate,
            "amplification": "Poisson sampling at the site",
        }

    def spent(self, steps: int) -> Spent | None:
        if steps == 0:
            return None
        return Spent(self.unit, "presence or absence", self.multiplier, self.sampling_rate, steps)

    def privatise(
        self,
        received: Tensor,
        trained: Tensor,
        places: Places,
        noise: Randomness,
        out: Tensor | None = None,
    ) -> Released:
        return Released(torch.sub(received, trained, out=out))


def promised(mechanism: Mechanism, *, releases: int, steps: int, delta: float) -> float:
    """Epsilon of a site after so many releases; infinite without a formal guarantee."""
    one = mechanism.spent(steps)
    return math.inf if one is None else epsilon_of([one] * releases, delta)


def _normal(noise: Randomness, size: int) -> Tensor:
    return torch.from_numpy(noise.normal(size)).float()
