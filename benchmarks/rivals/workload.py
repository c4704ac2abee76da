"""What every system is timed on: one site model, one pool of bags, one local training.

It runs inside the rivals' environments as well as in ours, so it imports only torch and numpy.

Shapes: N tiles of a bag, D features, H hidden, A attention width, P parameters.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES, HIDDEN, ATTENTION, CLASSES = 1024, 512, 256, 2
PARAMETERS = 788_739
DROPOUT = 0.25
POOL, TILES, STRIDE = 64, 50, 7
RATE, WEIGHT_DECAY = 2e-4, 1e-5
STILL = 0.01  # a distance: rounding in the sums stays far below, one step of training far above


class GatedAttention(nn.Module):
    """Gated attention pooling, with the names and shapes of rayfed_hn's GatedAttentionMIL.

    h_n = dropout(relu(W1 x_n + b1)); a_n = w . (tanh(V h_n) * sigmoid(U h_n)) with dropout on both
    branches; alpha = softmax(a); z = sum_n alpha_n h_n; logits = W2 z + b2.
    """

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(FEATURES, HIDDEN)
        self.attention_v = nn.Linear(HIDDEN, ATTENTION)
        self.attention_u = nn.Linear(HIDDEN, ATTENTION)
        self.attention_w = nn.Linear(ATTENTION, 1)
        self.classifier = nn.Linear(HIDDEN, CLASSES)
        if (count := sum(p.numel() for p in self.parameters())) != PARAMETERS:
            raise RuntimeError(f"the model has {count} parameters instead of {PARAMETERS}")

    def forward(self, features_ND: Tensor) -> Tensor:
        """Classify one bag: tile features (N, D) to logits (2,)."""
        hidden_NH = self._drop(torch.relu(self.projection(features_ND)))
        v_NA = self._drop(torch.tanh(self.attention_v(hidden_NH)))
        u_NA = self._drop(torch.sigmoid(self.attention_u(hidden_NH)))
        attention_N = torch.softmax(self.attention_w(v_NA * u_NA).squeeze(-1), dim=0)
        return self.classifier(attention_N @ hidden_NH)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, DROPOUT, self.training)


class Bags:
    """The resident pool, the same in every process of every system.

    Attributes:
        features: The pool's bags, one after the other.
        labels: Their classes.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        pool = rng.standard_normal((POOL, TILES, FEATURES), np.float32)
        self.features = torch.from_numpy(pool)
        self.labels = torch.from_numpy(rng.integers(0, CLASSES, POOL))

    def of(self, site: int, step: int) -> tuple[Tensor, Tensor]:
        """The bag (N, D) and the label that a site trains on in a step."""
        index = (site * STRIDE + step) % POOL
        return self.features[index], self.labels[index]


def new_model() -> GatedAttention:
    """What the first round begins with, the same everywhere; it applies dropout."""
    torch.manual_seed(0)
    return GatedAttention().train()


def new_optimiser(parameters: Iterable[nn.Parameter], lr: float = RATE) -> torch.optim.Adam:
    """The local optimiser: fused, the fastest of PyTorch's three on a CPU."""
    return torch.optim.Adam(parameters, lr=lr, weight_decay=WEIGHT_DECAY, fused=True)


def seed_site(site: int) -> None:
    """Key dropout by site, so that every system trains the same whatever process does it.

    Not ``torch.manual_seed``: it also asks for a GPU, which takes longer than a site's averaging.
    """
    torch.default_generator.manual_seed(site)


def train(
    model: GatedAttention,
    bags: Bags,
    site: int,
    steps: int,
    optimiser: torch.optim.Adam | None = None,
) -> None:
    """A site's local training, in place.

    Args:
        model: The global model, as the site received it.
        bags: The pool.
        site: From 0.
        steps: One bag each; 0 leaves the model as it is.
        optimiser: Of the model's parameters, without momentum. None: a new one.
    """
    if steps == 0:
        return
    seed_site(site)
    optimiser = optimiser or new_optimiser(model.parameters())
    for step in range(steps):
        features_ND, label = bags.of(site, step)
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(model(features_ND), label).backward()
        optimiser.step()


def moved(parameters: Iterable[Tensor], steps: int) -> float:
    """How far the global model came from where it began, as a distance.

    Equal for all systems after equal rounds, but for the order of their sums.

    Raises:
        RuntimeError: It moved without training, or did not although it was trained: what was timed
            is not a round.
    """
    start_P = nn.utils.parameters_to_vector(new_model().parameters()).detach()
    end_P = torch.cat([p.detach().reshape(-1) for p in parameters])
    distance = float(torch.linalg.vector_norm(end_P - start_P))
    if (distance > STILL) != (steps > 0):
        raise RuntimeError(f"after {steps} steps a round the model is {distance} from its start")
    return distance
