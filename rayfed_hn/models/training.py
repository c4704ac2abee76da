"""What a site does with a network: train it on its own bags.

Shapes: P parameters, B bags, N tiles, D features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.config import TrainingConfig
from rayfed_hn.models.descent import Descent
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.masks import masks_of
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.subspace import Subspace
from rayfed_hn.models.tasks import Task
from rayfed_hn.seeds import derive


def draw_bags(
    strata: Sequence[int], num_steps: int, *, class_balanced: bool, seed: int
) -> np.ndarray:
    """Which bag each step trains on, int64 (num_steps,), drawn with replacement.

    With ``class_balanced`` every stratum that the site has is equally likely (HistoFL's weighted
    sampler); otherwise every bag is. Strata are classes, or with and without an event.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    if not class_balanced:
        return rng.integers(len(strata), size=num_steps)
    counts = np.bincount(strata)
    weights = 1.0 / counts[np.asarray(strata)]
    return rng.choice(len(strata), size=num_steps, p=weights / weights.sum())


@dataclass(frozen=True)
class Trained:
    """What local training leaves.

    Attributes:
        parameters: float32 (P,), on the CPU.
        loss: Mean training loss over the steps.
        num_steps: Steps that were taken.
        moments: State of the optimiser, for a site that keeps it.
        clipped: Share of gradients that were scaled down, where patients are hidden.
        signal_to_noise: Mean norm of a step's gradients over that of its noise, likewise.
    """

    parameters: Tensor
    loss: float
    num_steps: int
    moments: dict[str, Tensor]
    clipped: float | None = None
    signal_to_noise: float | None = None


def train_locally(
    model: SiteModel,
    parameters: Tensor,
    bags: Sequence[LabelledBag],
    config: TrainingConfig,
    *,
    task: Task,
    learning_rate: float,
    num_steps: int,
    seed: int,
    validation: Sequence[LabelledBag] = (),
    moments: Mapping[str, Tensor] | None = None,
    proximal_mu: float = 0.0,
    subspace: Subspace | None = None,
    device: torch.device | str = "cpu",
) -> Trained:
    """Train a network on a site's bags, one bag a step.

    Args:
        model: Module whose shapes the vector fills (HistoFL's network by default).
        parameters: The network received, float32 (P,); not changed.
        bags: At least one.
        config: Optimiser, sampling and what else ``training`` says.
        task: What the bags' labels are.
        learning_rate: Of the optimiser.
        num_steps: Gradient steps, unless validation stops them.
        seed: Of the draws and of the dropout masks.
        validation: Bags that ``training.patience`` looks at.
        moments: State of the optimiser to go on from; fresh if None.
        proximal_mu: FedProx's mu: adds mu/2 |theta - parameters|^2 to the loss (Li et al. 2020).
        subspace: Where the network may go from what was received; None: anywhere. Weight decay
            then pulls towards what was received.
        device: Where to train.
    """
    if num_steps == 0:
        return Trained(parameters.detach(), 0.0, 0, dict(moments or {}))
    way = Descent.begin(
        model, parameters, config,
        learning_rate=learning_rate, moments=moments, subspace=subspace, device=device,
    )  # fmt: skip
    network, tensors = way.network, list(way.network.parameters())
    draws = Draws(bags, config, task=task, num_steps=num_steps, seed=seed, device=device)
    watch = _Watch(model, validation, task, config, device)
    losses: list[float] = []
    for number, index in enumerate(draws.order):
        if watch.enough(number, way.theta):
            break
        bag = bags[index]
        target = task.target(bag, config.label_smoothing)
        loss = network.objective(bag.tensor(device, draws.rows(bag)), target, draws.masks)
        network.zero_grad()  # to none: what backward makes is taken as it is, and not added
        loss.backward()
        _shape_gradients(tensors, way.received, proximal_mu, config.clip_gradient)
        way.free.prepare()
        way.step()
        losses.append(loss.item())
    mean = float(np.mean(losses)) if losses else 0.0
    best = watch.best(way.theta).detach().cpu()
    return Trained(best, mean, len(losses), way.kept(config))


class Draws:
    """All that is random in a site's training, from its seed alone.

    Attributes:
        order: Which bag each step trains on, int64 (num_steps,).
        masks: Source of the dropout masks.
    """

    def __init__(
        self,
        bags: Sequence[LabelledBag],
        config: TrainingConfig,
        *,
        task: Task,
        num_steps: int,
        seed: int,
        device: torch.device | str,
    ) -> None:
        strata = [task.stratum(bag) for bag in bags]
        balanced = config.class_balanced
        self.order = draw_bags(strata, num_steps, class_balanced=balanced, seed=seed)
        self.masks = masks_of(seed, device)
        self._config = config
        self._rows = np.random.Generator(np.random.Philox(derive(seed, "instances")))

    def rows(self, bag: LabelledBag) -> np.ndarray | None:
        """Which instances of its bag the next step sees; None: all."""
        return draw_rows(len(bag), self._config, self._rows)


def draw_rows(
    num_instances: int, config: TrainingConfig, rng: np.random.Generator
) -> np.ndarray | None:
    """Which instances of a bag a step sees, int64 in ascending order, at least one; None: all.

    First each is left out with the chance ``training.instance_dropout``, then
    ``training.max_instances`` of the rest are drawn.
    """
    rows = np.arange(num_instances)
    if config.instance_dropout > 0:
        kept = rows[rng.random(num_instances) >= config.instance_dropout]
        rows = kept if len(kept) else rows[rng.integers(num_instances, size=1)]
    if config.max_instances is not None and len(rows) > config.max_instances:
        rows = np.sort(rng.choice(rows, size=config.max_instances, replace=False))
    return rows if len(rows) < num_instances else None


def rate_factor(config: TrainingConfig, progress: float) -> float:
    """What ``training.schedule`` multiplies the learning rate by.

    Args:
        config: ``schedule``.
        progress: Share of the versions that are made, 0 to below 1.
    """
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress if config.schedule == "linear" else 1.0


def _shape_gradients(
    parameters: Sequence[Tensor], received: Tensor, proximal_mu: float, limit: float | None
) -> None:
    if proximal_mu:
        parts = received.split([parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            pull = proximal_mu * (parameter.detach() - part.view(parameter.shape))
            parameter.grad = pull if parameter.grad is None else parameter.grad.add_(pull)
    if limit is not None:
        torch.nn.utils.clip_grad_norm_(parameters, limit)


class _Watch:
    """Early stopping on a site's validation loss; without ``training.patience`` it never looks."""

    def __init__(
        self,
        model: SiteModel,
        bags: Sequence[LabelledBag],
        task: Task,
        config: TrainingConfig,
        device: torch.device | str,
    ) -> None:
        self._model, self._bags, self._task, self._device = model, bags, task, device
        self._patience = config.patience if bags else None
        self._every = config.look_every
        self._best: tuple[float, Tensor] | None = None
        self._in_vain = 0

    def enough(self, step: int, theta: Tensor) -> bool:
        """Whether to stop before this step."""
        if self._patience is None or step == 0 or step % self._every:
            return False
        self._look(theta)
        return self._in_vain >= self._patience

    def best(self, theta: Tensor) -> Tensor:
        """The network to hand on."""
        if self._patience is None:
            return theta
        self._look(theta)
        return theta if self._best is None else self._best[1]

    def _look(self, theta: Tensor) -> None:
        found = score_bags(self._model, theta.detach(), self._bags, self._task, self._device)
        loss = found.loss
        if self._best is None or loss < self._best[0]:
            self._best, self._in_vain = (loss, theta.detach().clone()), 0
        else:
            self._in_vain += 1
