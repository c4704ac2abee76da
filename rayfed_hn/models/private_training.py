"""Training in which no patient can be told from the result: DP-SGD on bags (Abadi et al. 2016).

At every step each patient takes part by chance, apart from the others (Poisson sampling). The
gradient of a patient, over all slides, is clipped as a whole; the sum gets Gaussian noise on every
coordinate and is divided by the number of patients that is expected. What the optimiser makes of it
costs nothing more.

Whatever is random for one patient is keyed by that patient alone, so that another patient's
presence changes nothing but one term of the sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.config import TrainingConfig
from rayfed_hn.models.descent import Descent
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.masks import masks_of
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.subspace import Subspace
from rayfed_hn.models.tasks import Task
from rayfed_hn.models.training import Trained, draw_rows
from rayfed_hn.privacy.clipping import clip_factor
from rayfed_hn.privacy.randomness import Randomness
from rayfed_hn.seeds import derive

_RANGE = 2**63  # of derived seeds


@dataclass(frozen=True)
class PrivateSteps:
    """How steps are made private.

    Attributes:
        patients: The bags of every patient (or one slide each, if that is the unit), by a key.
        clip_norm: C.
        multiplier: Standard deviation of the noise on the sum, over C.
        sampling_rate: q.
        noise: Source of noise and of who takes part.
    """

    patients: Mapping[int, Sequence[LabelledBag]]
    clip_norm: float
    multiplier: float
    sampling_rate: float
    noise: Randomness


@dataclass
class _Counted:
    losses: list[float] = field(default_factory=list)  # of bags
    patients: int = 0
    clipped: int = 0
    signals: list[float] = field(default_factory=list)


def train_privately(
    model: SiteModel,
    parameters: Tensor,
    private: PrivateSteps,
    config: TrainingConfig,
    *,
    task: Task,
    learning_rate: float,
    num_steps: int,
    moments: Mapping[str, Tensor] | None = None,
    proximal_mu: float = 0.0,
    subspace: Subspace | None = None,
    device: torch.device | str = "cpu",
) -> Trained:
    """Train a network (P,) by private steps; arguments are those of ``train_locally``.

    The draws of bags by class, early stopping and clipping of single gradients are refused with the
    configuration. The result says which share of gradients was clipped, and the ratio of
    signal to noise of all steps together (root mean square); None if nobody took part in any. Both
    tell of the data, and so does its loss.
    """
    if num_steps == 0:
        return Trained(parameters.detach(), 0.0, 0, dict(moments or {}))
    way = Descent.begin(
        model, parameters, config,
        learning_rate=learning_rate, moments=moments, subspace=subspace, device=device,
    )  # fmt: skip
    secret, counted = private.noise.secret(), _Counted()
    for step in range(num_steps):
        total = [torch.zeros_like(parameter) for parameter in way.free.parameters]
        for key in _drawn(private, secret, step):
            seed = derive(secret, "patient", step, key)
            _add(way, total, private, key, seed, task=task, config=config, counted=counted)
        _noise(total, private, counted)
        if proximal_mu:
            _pull(way, total, proximal_mu)
        for parameter, gradient in zip(way.free.parameters, total, strict=True):
            parameter.grad = gradient
        way.step()
    return Trained(
        way.theta.detach().cpu(),
        float(np.mean(counted.losses)) if counted.losses else 0.0,
        num_steps,
        way.kept(config),
        clipped=counted.clipped / counted.patients if counted.patients else None,
        signal_to_noise=_ratio(counted),
    )


def _drawn(private: PrivateSteps, secret: int, step: int) -> Iterator[int]:
    """Who takes part in a step: each patient by a coin of its own."""
    for key in private.patients:
        if derive(secret, "taking part", step, key) < private.sampling_rate * _RANGE:
            yield key


def _add(
    way: Descent,
    total: Sequence[Tensor],
    private: PrivateSteps,
    key: int,
    seed: int,
    *,
    task: Task,
    config: TrainingConfig,
    counted: _Counted,
) -> None:
    """Add a patient's clipped gradient."""
    bags, device = private.patients[key], total[0].device
    masks, rng = masks_of(seed, device), np.random.Generator(np.random.Philox(seed))
    way.network.zero_grad()
    for bag in bags:
        features = bag.tensor(device, draw_rows(len(bag), config, rng))
        target = task.target(bag, config.label_smoothing)
        loss = way.network.objective(features, target, masks) / len(bags)
        loss.backward()
        counted.losses.append(loss.item() * len(bags))
    gradients = way.free.gradients()
    factor, norm = clip_factor(gradients, private.clip_norm)
    counted.patients += 1
    counted.clipped += int(norm > private.clip_norm)
    if factor > 0:  # else not finite: this patient adds nothing
        for sum_, gradient in zip(total, gradients, strict=True):
            sum_.add_(gradient, alpha=factor)


def _noise(total: Sequence[Tensor], private: PrivateSteps, counted: _Counted) -> None:
    """Add noise to a sum of gradients, and divide by the number of patients that is expected."""
    deviation = private.multiplier * private.clip_norm
    size = sum(part.numel() for part in total)
    signal = sum(float(part.double().square().sum()) for part in total) ** 0.5
    counted.signals.append(signal / (deviation * size**0.5))
    expected = max(private.sampling_rate * len(private.patients), 1.0)
    for part in total:
        drawn = torch.from_numpy(private.noise.normal(part.numel())).to(part)
        part.add_(drawn.view(part.shape), alpha=deviation).div_(expected)


def _ratio(counted: _Counted) -> float | None:
    """Of all steps together: noise leaves with those that nobody took part in, too."""
    return float(np.sqrt(np.mean(np.square(counted.signals)))) if counted.patients else None


def _pull(way: Descent, total: Sequence[Tensor], proximal_mu: float) -> None:
    """Add FedProx's pull towards what was received, which has nothing to hide."""
    tensors = list(way.network.parameters())
    parts = way.received.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.grad = proximal_mu * (tensor.detach() - part.view(tensor.shape))
    for sum_, gradient in zip(total, way.free.gradients(), strict=True):
        sum_.add_(gradient)
