"""One site of a plan, asked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rayfed_hn.federation.messages import TrainRequest, Update, read_answer
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.site import Site
from rayfed_hn.loading import load
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.training import train_locally

SHORT = [
    "rounds.num_versions=4",
    "training.steps=3",
    "training.learning_rate=0.01",
    "model.standardise=site",
]
RAW = "model.standardise=none"  # the networks in files are for features as they are


def plan(bag_root: Path, *words: str) -> Plan:
    return make_plan(load(None, [*SHORT, *words]), bag_root)


def ask(site: Site, turn: int, theta: Tensor, version: int | None = None) -> Update:
    at = turn if version is None else version
    request = TrainRequest(site.data.name, at, theta.numpy(), turn)
    event = read_answer(request, site.answer(request))
    assert isinstance(event, Update), event
    return event


def trained_by_hand(
    plan: Plan,
    site: Site,
    theta: Tensor,
    turn: int,
    purpose: str = "local training",
    **options: Any,
) -> Tensor:
    return train_locally(
        plan.model(),
        theta,
        site.data.train,
        plan.config.training,
        task=plan.task,
        learning_rate=plan.learning_rate,
        num_steps=options.pop("num_steps", plan.config.training.steps),
        seed=site._trainer._seed(purpose, turn),
        **options,
    ).parameters


def classifier(plan: Plan) -> Tensor:
    mask = torch.zeros(plan.initial().numel(), dtype=torch.bool)
    for name, place in ParameterLayout.of(plan.model()).places():
        mask[place] = name.startswith("classifier.")
    return mask
