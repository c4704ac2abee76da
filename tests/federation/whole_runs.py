"""Whole runs in this process, and local training by plain SGD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from rayfed_hn.config import TrainingConfig
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.loading import load
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.training import Trained

SHORT = [
    "rounds.num_versions=3",
    "training.steps=4",
    "training.learning_rate=0.01",
    "model.standardise=site",
]


def plan(bag_root: Path, *words: str) -> Plan:
    return make_plan(load(None, [*SHORT, *words]), bag_root)


def final_networks(plan: Plan) -> dict[str, np.ndarray]:
    server = run_in_process(plan).server
    return {site: server.parameters_for(site) for site in server.sites}


def sgd(
    model: nn.Module,
    parameters: Tensor,
    bags: tuple,
    config: TrainingConfig,
    *,
    learning_rate: float,
    num_steps: int,
    seed: int,
    **_: object,
) -> Trained:
    layout, theta = ParameterLayout.of(model), parameters.clone().requires_grad_(True)
    for step in range(num_steps):
        bag = bags[(seed + step) % len(bags)]
        logits, _ = functional_call(model, layout.unflatten(theta), (bag.tensor(),))
        loss = nn.functional.cross_entropy(logits, torch.tensor(bag.label))
        (gradient,) = torch.autograd.grad(loss, theta)
        theta = (theta - 0.05 * gradient).detach().requires_grad_(True)
    return Trained(theta.detach(), 0.0, num_steps, {})
