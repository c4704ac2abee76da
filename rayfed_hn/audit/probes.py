"""What a network says of a bag that an attacker holds: its loss, its gradient, its confidence.

Shapes: B bags, P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.federation.plan import Plan
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.parameters import bind


class Probe:
    """A network at which bags are looked at, without dropout.

    Args:
        plan: Gives model and task.
        network_P: Its parameters, float32 (P,).
    """

    def __init__(self, plan: Plan, network_P: np.ndarray) -> None:
        self._task, self._smoothing = plan.task, plan.config.training.label_smoothing
        self._network = bind(plan.model(), torch.tensor(network_P), trains=True)
        self._parameters = list(self._network.parameters())

    def gradient(self, bag: LabelledBag) -> Tensor:
        """Of what training minimises on the bag, float32 (P,)."""
        for parameter in self._parameters:
            parameter.grad = None
        target = self._task.target(bag, self._smoothing)
        self._network.objective(bag.tensor(), target).backward()
        return torch.cat([
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in self._parameters
        ])  # fmt: skip

    def loss(self, bag: LabelledBag) -> float:
        """Of the bag's logits: minus the log-probability of what is true of it."""
        with torch.inference_mode():
            logits_O, _ = self._network(bag.tensor())
            return float(self._task.target(bag).loss(logits_O))

    def confidences(self, bags: Sequence[LabelledBag]) -> np.ndarray:
        """Logit-scaled confidence in what is true of every bag, float64 (B,)."""
        return np.array([confidence(self.loss(bag)) for bag in bags])


def confidence(loss: float) -> float:
    """log(p / (1 - p)) of p = exp(-loss), which is near to normal over trainings.

    Source: Carlini et al. 2022 (Membership inference attacks from first principles).
    """
    loss = max(loss, 1e-12)
    return -loss - float(np.log(-np.expm1(-loss)))
