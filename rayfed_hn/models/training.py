"""What a site does with a network: train it on its own bags, and score bags with it.

Shapes: P parameters, B bags, N tiles, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from rayfed_hn.config import TrainingConfig
from rayfed_hn.models.parameters import ParameterLayout


@dataclass(frozen=True)
class LabelledBag:
    """One bag as training sees it.

    Attributes:
        features_ND: float32 (N, D); may be a read-only memory map.
        label: Class index.
    """

    features_ND: np.ndarray
    label: int

    def tensor(self, device: torch.device | str = "cpu") -> Tensor:
        """The features on a device; on the CPU a copy, since memory maps are read-only."""
        return torch.tensor(self.features_ND, dtype=torch.float32, device=device)


@dataclass(frozen=True)
class BagScores:
    """Scores of B bags.

    Attributes:
        scores_B: Probability of class 1, float32.
        loss: Mean cross-entropy; NaN for no bags.
    """

    scores_B: np.ndarray
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


def train_locally(
    model: nn.Module,
    parameters: Tensor,
    bags: Sequence[LabelledBag],
    config: TrainingConfig,
    *,
    learning_rate: float,
    num_steps: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, float]:
    """Train a network on a site's bags, one bag a step, with a fresh Adam.

    Args:
        model: Module whose shapes the vector fills (HistoFL's network by default).
        parameters: The network received, float32 (P,); not changed.
        bags: At least one.
        config: Weight decay and sampling.
        learning_rate: Adam's.
        num_steps: Gradient steps.
        seed: Of the draws and of the dropout masks.
        device: Where to train.

    Returns:
        The trained vector (P,) on the CPU and the mean training loss.
    """
    layout = ParameterLayout.of(model)
    theta = parameters.detach().to(device, copy=True).requires_grad_(True)
    # Adam is elementwise, so one flat tensor and many named ones train alike.
    adam = torch.optim.Adam([theta], lr=learning_rate, weight_decay=config.weight_decay)
    generator = torch.Generator(device=device).manual_seed(seed)
    order = draw_bags(
        [bag.label for bag in bags], num_steps, class_balanced=config.class_balanced, seed=seed
    )
    total = 0.0
    for bag in (bags[index] for index in order):
        inputs = (bag.tensor(device), generator)
        logits, _ = functional_call(model, layout.unflatten(theta), inputs)
        loss = F.cross_entropy(logits, torch.tensor(bag.label, device=device))
        adam.zero_grad()
        loss.backward()
        adam.step()
        total += loss.item()
    return theta.detach().cpu(), total / num_steps


def score_bags(
    model: nn.Module,
    parameters: Tensor,
    bags: Sequence[LabelledBag],
    device: torch.device | str = "cpu",
) -> BagScores:
    """Score bags with a network, without dropout."""
    tensors = ParameterLayout.of(model).unflatten(parameters.to(device))
    scores, losses = np.empty(len(bags), np.float32), []
    with torch.inference_mode():
        for i, bag in enumerate(bags):
            logits, _ = functional_call(model, tensors, (bag.tensor(device),))
            scores[i] = torch.softmax(logits, dim=-1)[1].item()
            losses.append(F.cross_entropy(logits, torch.tensor(bag.label, device=device)).item())
    return BagScores(scores, float(np.mean(losses)) if losses else float("nan"))
