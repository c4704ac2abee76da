"""What a site does with a network: train it on its own bags.

Shapes: P parameters, B bags, N tiles, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.config import TrainingConfig
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.parameters import bind
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.tasks import Task
from rayfed_hn.seeds import derive

SGD_MOMENTUM = 0.9  # pFedHN's, at the sites


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
    """

    parameters: Tensor
    loss: float
    num_steps: int
    moments: dict[str, Tensor]


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
        device: Where to train.
    """
    received = parameters.detach().to(device)
    theta = received.clone()
    theta.grad = torch.zeros_like(theta)
    # The optimisers are elementwise, so one flat tensor and many named ones train alike.
    optimiser = _optimiser(config, theta, learning_rate, moments)
    loss_of = _Loss(bind(model, theta, theta.grad), task, config, seed, device)
    strata = [task.stratum(bag) for bag in bags]
    order = draw_bags(strata, num_steps, class_balanced=config.class_balanced, seed=seed)
    watch = _Watch(model, validation, task, config, device)
    losses: list[float] = []
    for number, index in enumerate(order):
        if watch.enough(number, theta):
            break
        loss = loss_of(bags[index])
        optimiser.zero_grad(set_to_none=False)
        loss.backward()
        _shape_gradient(theta, received, proximal_mu, config.clip_gradient)
        optimiser.step()
        losses.append(loss.item())
    state = {k: v.detach().cpu() for k, v in optimiser.state[theta].items() if v is not None}
    mean = float(np.mean(losses)) if losses else 0.0
    return Trained(watch.best(theta).detach().cpu(), mean, len(losses), state)


class _Loss:
    """What a network in training minimises on a bag, or on a part of its tiles."""

    def __init__(
        self,
        network: SiteModel,
        task: Task,
        config: TrainingConfig,
        seed: int,
        device: torch.device | str,
    ) -> None:
        self._network, self._task, self._config, self._device = network, task, config, device
        self._masks = torch.Generator(device=device).manual_seed(seed)
        self._rows = np.random.Generator(np.random.Philox(derive(seed, "instances")))

    def __call__(self, bag: LabelledBag) -> Tensor:
        features_ND = bag.tensor(self._device, draw_rows(len(bag), self._config, self._rows))
        target = self._task.target(bag, self._config.label_smoothing)
        return self._network.objective(features_ND, target, self._masks)


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


def _optimiser(
    config: TrainingConfig,
    theta: Tensor,
    learning_rate: float,
    moments: Mapping[str, Tensor] | None,
) -> torch.optim.Optimizer:
    makers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": torch.optim.SGD,
        "momentum": partial(torch.optim.SGD, momentum=SGD_MOMENTUM),
    }
    make = makers[config.optimiser]
    optimiser = make([theta], lr=learning_rate, weight_decay=config.weight_decay)
    if moments:
        # Adam's number of steps stays on the CPU, as PyTorch has it.
        optimiser.state[theta] = {
            name: value.clone() if value.dim() == 0 else value.to(theta.device, copy=True)
            for name, value in moments.items()
        }
    return optimiser


def _shape_gradient(
    theta: Tensor, received: Tensor, proximal_mu: float, limit: float | None
) -> None:
    assert theta.grad is not None
    if proximal_mu:
        theta.grad.add_(theta.detach() - received, alpha=proximal_mu)
    if limit is not None:
        torch.nn.utils.clip_grad_norm_([theta], limit)


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
