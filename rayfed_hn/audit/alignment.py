"""Was a slide trained on? By the direction of the updates.

An update is u = received - trained, so that one step of gradient descent on a bag gives its own
gradient: bags that were trained on align with u.

Shapes: B bags, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from rayfed_hn.audit.probes import Probe
from rayfed_hn.federation.exchanges import Exchange
from rayfed_hn.federation.plan import Plan
from rayfed_hn.models.labelled_bag import LabelledBag


def alignments(
    plan: Plan,
    exchanges: Sequence[Exchange],
    bags: Sequence[LabelledBag],
    on_exchange: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """Sum over exchanges of cos(u, gradient of the bag's loss at the network sent), float64 (B,).

    Nothing has to be trained for it. Source: Li, Li and Ribeiro 2023 (Effective passive membership
    inference attacks in federated learning against overparameterized models), who compare single
    gradients with an update in the same way.

    Args:
        plan: Of the run.
        exchanges: Of one site.
        bags: Whose membership is in question.
        on_exchange: Called after each.
    """
    score_B = np.zeros(len(bags))
    for exchange in exchanges:
        probe, update_P = Probe(plan, exchange.received), torch.tensor(exchange.update)
        score_B += [cosine(update_P, probe.gradient(bag)) for bag in bags]
        on_exchange()
    return score_B


def cosine(one_P: torch.Tensor, other_P: torch.Tensor) -> float:
    """Of two vectors; 0 where one of them is 0."""
    lengths = float(one_P.norm()) * float(other_P.norm())
    return float(one_P @ other_P) / lengths if lengths > 0 else 0.0
