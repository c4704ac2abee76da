"""Small sites to train together, and how what they end with is compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rayfed_hn.config import ModelConfig, TrainingConfig
from rayfed_hn.models.cohort import Job, groups, train_cohort
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import MODELS, initial_parameters, make_model
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.standardise import Standardisation
from rayfed_hn.models.tasks import Binary, Multiclass, Ordinal, Survival, Task
from rayfed_hn.models.training import Trained, train_locally

DIM, STEPS = 6, 7
TOGETHER = ("gated_attention", "attention", "mean", "max")
ALONE = tuple(name for name in MODELS if name not in TOGETHER)
BINARY = Binary(("normal", "tumour"))
SURVIVAL = Survival(("0", "1", "2"), "slide", (1.0, 2.0), 0.15)
TASKS = (BINARY, Multiclass(("a", "b", "c")), Ordinal(("0", "1", "2")), SURVIVAL)
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 2e-6}
OPTIMISERS = pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd", "momentum"])


def network(name: str = "gated_attention", task: Task = BINARY, **options: Any) -> SiteModel:
    given: dict[str, Any] = {"name": name, "hidden_dim": 5, "attention_dim": 4} | options
    return make_model(DIM, task.num_outputs, ModelConfig(**given))


def some_bags(seed: int, task: Task, num: int = 6) -> list[LabelledBag]:
    """Bags of 1 to 40 tiles, of one slide or two, at one scale or each at its own."""
    rng = np.random.default_rng(seed)
    scale = Standardisation(*(np.full(DIM, v, np.float32) for v in (0.3, 0.8 + 0.1 * seed)))
    return [
        LabelledBag(
            rng.normal(size=(int(rng.integers(1, 40)), DIM)).astype(np.float32),
            i % len(task.names),
            event=i % 3 > 0,
            more=(rng.normal(size=(2, DIM)).astype(np.float32),) if i == 2 else (),
            standardisation=scale if seed % 2 else None,
        )
        for i in range(num)
    ]


def some_jobs(model: SiteModel, task: Task = BINARY, num: int = 4, **about: Any) -> list[Job]:
    """Sites that agree in nothing but the model and the rate."""
    layout = ParameterLayout.of(model)
    noise = torch.Generator().manual_seed(0)
    call = {"learning_rate": 0.05, "num_steps": STEPS} | about
    return [
        # Biases included, since at 0 padding would hardly show.
        Job(
            initial_parameters(layout, s) + 0.3 * torch.randn(layout.size, generator=noise),
            some_bags(s, task),
            seed=100 + s,
            **call,
        )
        for s in range(num)
    ]


def alone(model: SiteModel, job: Job, config: TrainingConfig, task: Task = BINARY) -> Trained:
    call = {
        f: getattr(job, f)
        for f in Job.__dataclass_fields__
        if f not in ("parameters", "bags", "private")
    }
    return train_locally(model, job.parameters, job.bags, config, task=task, **call)


def that_matter(model: SiteModel) -> Tensor:
    """Parameters that the logits depend on, bool (P,).

    Gated attention's last bias is cancelled by the softmax: its gradient is rounding, of which Adam
    makes steps as long as any.
    """
    layout = ParameterLayout.of(model)
    mask = torch.ones(layout.size, dtype=torch.bool)
    for name, place in layout.places():
        mask[place] = name != "attention_w.bias"
    return mask


def assert_alike(
    model: SiteModel, ours: Trained, expected: Trained, *, moments: bool = False
) -> None:
    mask = that_matter(model)
    torch.testing.assert_close(ours.parameters[mask], expected.parameters[mask], **CLOSE)
    assert ours.loss == pytest.approx(expected.loss, rel=1e-5)
    assert ours.num_steps == expected.num_steps
    if moments:
        assert ours.moments.keys() == expected.moments.keys()
        for name, value in expected.moments.items():
            torch.testing.assert_close(ours.moments[name], value, **CLOSE)


def assert_same(ours: Trained, expected: Trained) -> None:
    assert torch.equal(ours.parameters, expected.parameters)
    assert (ours.loss, ours.num_steps) == (expected.loss, expected.num_steps)
    for name, value in expected.moments.items():
        assert torch.equal(ours.moments[name], value), name


def compare(
    model: SiteModel, jobs: Sequence[Job], config: TrainingConfig, task: Task = BINARY
) -> list[Trained]:
    """Check a cohort against one-by-one training, and that it was one."""
    assert len(groups(model, jobs, config)) == 1
    found = train_cohort(model, jobs, config, task=task)
    for ours, job in zip(found, jobs, strict=True):
        assert_alike(model, ours, alone(model, job, config, task), moments=config.keep_optimiser)
    return found
