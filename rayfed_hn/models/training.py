"""What a site does with a network: train it on its own bags, and score bags with it.

Shapes: P parameters, B bags, N tiles, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rayfed_hn.config import TrainingConfig
from rayfed_hn.models.parameters import bind
from rayfed_hn.models.standardise import Standardisation
from rayfed_hn.seeds import derive

SGD_MOMENTUM = 0.9  # pFedHN's, at the sites


@dataclass(frozen=True)
class LabelledBag:
    """One bag as training sees it.

    Attributes:
        features_ND: float32 (N, D); may be a read-only memory map.
        label: Class index.
        standardisation: Applied to the features whenever they are used.
    """

    features_ND: np.ndarray
    label: int
    standardisation: Standardisation | None = field(default=None, kw_only=True)

    def tensor(
        self,
        device: torch.device | str = "cpu",
        limit: int | None = None,
        rows: np.random.Generator | None = None,
    ) -> Tensor:
        """The features on a device; on the CPU a copy, since memory maps are read-only.

        Args:
            device: Where.
            limit: Take at most so many rows, drawn by ``rows``.
            rows: Draws them.
        """
        features_ND = self.features_ND
        if limit is not None and rows is not None and len(features_ND) > limit:
            chosen = rows.choice(len(features_ND), size=limit, replace=False)
            features_ND = features_ND[np.sort(chosen)]
        tensor_ND = torch.tensor(features_ND, dtype=torch.float32, device=device)
        scale = self.standardisation
        return tensor_ND if scale is None else scale.apply(tensor_ND)


@dataclass(frozen=True)
class BagScores:
    """Scores of B bags.

    Attributes:
        scores_B: Probability of class 1, float32.
        logits_B: Log-odds of class 1, float32.
        loss: Mean cross-entropy; NaN for no bags.
    """

    scores_B: np.ndarray
    logits_B: np.ndarray
    loss: float


def draw_bags(
    labels: Sequence[int], num_steps: int, *, class_balanced: bool, seed: int
) -> np.ndarray:
    """Which bag each step trains on, int64 (num_steps,), drawn with replacement.

    With ``class_balanced`` every class that the site has is equally likely (HistoFL's weighted
    sampler); otherwise every bag is.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    if not class_balanced:
        return rng.integers(len(labels), size=num_steps)
    counts = np.bincount(labels)
    weights = 1.0 / counts[np.asarray(labels)]
    return rng.choice(len(labels), size=num_steps, p=weights / weights.sum())


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
    model: nn.Module,
    parameters: Tensor,
    bags: Sequence[LabelledBag],
    config: TrainingConfig,
    *,
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
    loss_of = _Loss(bind(model, theta, theta.grad), config.max_instances, seed, device)
    order = draw_bags(
        [bag.label for bag in bags], num_steps, class_balanced=config.class_balanced, seed=seed
    )
    watch = _Watch(model, validation, config, device)
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
    """Cross-entropy of a network in training on a bag, or on a part of its tiles."""

    def __init__(
        self, network: nn.Module, limit: int | None, seed: int, device: torch.device | str
    ) -> None:
        self._network, self._limit, self._device = network, limit, device
        self._masks = torch.Generator(device=device).manual_seed(seed)
        self._rows = np.random.Generator(np.random.Philox(derive(seed, "instances")))

    def __call__(self, bag: LabelledBag) -> Tensor:
        features_ND = bag.tensor(self._device, self._limit, self._rows)
        logits, _ = self._network(features_ND, self._masks)
        return F.cross_entropy(logits, torch.tensor(bag.label, device=self._device))


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
        model: nn.Module,
        bags: Sequence[LabelledBag],
        config: TrainingConfig,
        device: torch.device | str,
    ) -> None:
        self._model, self._bags, self._device = model, bags, device
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
        loss = score_bags(self._model, theta.detach(), self._bags, self._device).loss
        if self._best is None or loss < self._best[0]:
            self._best, self._in_vain = (loss, theta.detach().clone()), 0
        else:
            self._in_vain += 1


def score_bags(
    model: nn.Module,
    parameters: Tensor,
    bags: Sequence[LabelledBag],
    device: torch.device | str = "cpu",
) -> BagScores:
    """Score bags with a network, without dropout."""
    network = bind(model, parameters.detach().to(device))
    scores, odds = np.empty((2, len(bags)), np.float32)
    losses = []
    with torch.inference_mode():
        for i, bag in enumerate(bags):
            logits, _ = network(bag.tensor(device))
            scores[i] = torch.softmax(logits, dim=-1)[1].item()
            odds[i] = (logits[1] - logits[0]).item()
            losses.append(F.cross_entropy(logits, torch.tensor(bag.label, device=device)).item())
    return BagScores(scores, odds, float(np.mean(losses)) if losses else float("nan"))
