"""What a network says of bags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.parameters import bind
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.tasks import Task


@dataclass(frozen=True)
class BagScores:
    """Scores of B bags.

    Attributes:
        evidence_BE: What the task predicts from, float32 (B, E).
        loss: Mean loss of the bags; NaN for no bags.
    """

    evidence_BE: np.ndarray
    loss: float


def score_bags(
    model: SiteModel,
    parameters: Tensor,
    bags: Sequence[LabelledBag],
    task: Task,
    device: torch.device | str = "cpu",
) -> BagScores:
    """Score bags with a network, without dropout."""
    evidence_BE = np.empty((len(bags), task.num_evidence), np.float32)
    if not bags:
        return BagScores(evidence_BE, float("nan"))
    network = bind(model, parameters.detach().to(device))
    losses = []
    with torch.inference_mode():
        for i, bag in enumerate(bags):
            logits_O, _ = network(bag.tensor(device))
            evidence_BE[i] = task.evidence(logits_O[None])[0].cpu().numpy()
            losses.append(task.target(bag).loss(logits_O).item())
    return BagScores(evidence_BE, float(np.mean(losses)))
