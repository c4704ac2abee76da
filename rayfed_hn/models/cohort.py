"""Several sites train together: one step of all is one step of a stacked network.

It is made for GPUs, where a step on one small bag is a row of launches that leave most of it idle.
On one CPU thread it is no faster (benchmarks/cohort.py), since there is nothing idle.

Every site ends as it would alone, but for rounding: products and sums over tiles are made in
another order, which depends on who else is in the group. Adam makes whole steps of rounding where a
gradient is nothing else, as that of gated attention's last bias, which the softmax cancels.

Shapes: S sites, P parameters, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rayfed_hn.config import TrainingConfig
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.local_optimiser import make_optimiser, take_up
from rayfed_hn.models.padding import PaddedMasks, pad
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.private_training import PrivateSteps, train_privately
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.stacked import StackedNetwork
from rayfed_hn.models.subspace import Subspace
from rayfed_hn.models.tasks import Task
from rayfed_hn.models.training import Draws, Trained, train_locally

# Sites train together while what a step holds in memory stays below this: a fraction of what any
# GPU for such work has, and room for a hundred sites with small bags.
GROUP_BYTES = 4 * 2**30
ROWS_OF_A_SITE = 6  # parameters, gradient twice, what was received, and Adam's two moments
TENSORS_OF_A_LAYER = 4  # output, activation, dropout mask and product, or their gradients


@dataclass(frozen=True)
class Job:
    """What one site is asked to train; every field as ``train_locally`` has it.

    Attributes:
        private: If patients are hidden, how; draws then come from there.
    """

    parameters: Tensor
    bags: Sequence[LabelledBag]
    learning_rate: float
    num_steps: int
    seed: int
    validation: Sequence[LabelledBag] = ()
    moments: Mapping[str, Tensor] | None = None
    proximal_mu: float = 0.0
    private: PrivateSteps | None = None
    subspace: Subspace | None = None

    @property
    def alone(self) -> bool:
        """Whether its steps are of a kind that no others are made with."""
        return self.private is not None or self.subspace is not None


def train_cohort(
    model: SiteModel,
    jobs: Sequence[Job],
    config: TrainingConfig,
    *,
    task: Task,
    device: torch.device | str = "cpu",
) -> list[Trained]:
    """Train the networks of several sites, in the order of the jobs.

    A single job, models without ``in_cohorts``, private jobs, and sites that may stop early train
    alone, and so end in the very bits of that. The others keep moments only where
    ``training.keep_optimiser`` does: bringing them from a GPU takes longer than a few steps.
    """
    ended: dict[int, Trained] = {}
    for group in groups(model, jobs, config):
        members = [jobs[i] for i in group]
        if len(group) == 1:
            trained = [_train_alone(model, members[0], config, task, device)]
        else:
            trained = _Together(model, members, config, task, device).train()
        ended |= zip(group, trained, strict=True)
    return [ended[i] for i in range(len(jobs))]


def groups(model: SiteModel, jobs: Sequence[Job], config: TrainingConfig) -> list[list[int]]:
    """Which jobs train together, the ones with most steps first in a group."""
    found: list[list[int]] = []
    group: list[int] = []
    longest = 0
    # Like lengths together, so that little is padding.
    tiles = [_most_tiles(job, config) for job in jobs]
    for i in sorted(range(len(jobs)), key=lambda i: tiles[i]):
        early = config.patience is not None and jobs[i].validation
        if not model.in_cohorts or early or jobs[i].alone:
            found.append([i])
            continue
        longest = max(longest, tiles[i])
        if group and (len(group) + 1) * _bytes_of_a_site(model, longest) > GROUP_BYTES:
            found.append(group)
            group = []
        group.append(i)
    found.append(group)
    return [sorted(g, key=lambda i: -jobs[i].num_steps) for g in found if g]


def _most_tiles(job: Job, config: TrainingConfig) -> int:
    longest = max(map(len, job.bags))
    return min(longest, config.max_instances or longest)


def _bytes_of_a_site(model: SiteModel, num_tiles: int) -> int:
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    values = layers[0].in_features + TENSORS_OF_A_LAYER * sum(x.out_features for x in layers)
    return 4 * (num_tiles * values + ROWS_OF_A_SITE * ParameterLayout.of(model).size)


def _train_alone(
    model: SiteModel, job: Job, config: TrainingConfig, task: Task, device: torch.device | str
) -> Trained:
    fields = dict(vars(job))
    private = fields.pop("private")
    if private is None:
        return train_locally(model, config=config, task=task, device=device, **fields)
    for name in ("bags", "seed", "validation"):
        del fields[name]
    return train_privately(
        model, private=private, config=config, task=task, device=device, **fields
    )


class _Together:
    """The training of one group, whose jobs come in the order of falling numbers of steps.

    The optimiser sees every row as a parameter of its own, so that rows have their own rates and
    numbers of steps, and a site that is done stays where it is.
    """

    def __init__(
        self,
        model: SiteModel,
        jobs: Sequence[Job],
        config: TrainingConfig,
        task: Task,
        device: torch.device | str,
    ) -> None:
        self._model, self._jobs, self._config = model, jobs, config
        self._task, self._device = task, device
        self._theta_SP = torch.stack([job.parameters.detach() for job in jobs]).to(device)
        self._gradient_SP = torch.empty_like(self._theta_SP)
        self._rows = list(self._theta_SP.unbind())
        self._mu_S1 = torch.tensor([[job.proximal_mu] for job in jobs], device=device)
        pulled = any(job.proximal_mu for job in jobs)
        self._received_SP = self._theta_SP.clone() if pulled else None
        self._optimiser = self._make_optimiser()
        self._draws = [
            Draws(j.bags, config, task=task, num_steps=j.num_steps, seed=j.seed, device=device)
            for j in jobs
        ]

    def _make_optimiser(self) -> torch.optim.Optimizer:
        # Fresh sites apart from those with moments: fused SGD takes one kind at a time.
        alike: dict[tuple[float, bool], list[Tensor]] = {}
        for row, job in zip(self._rows, self._jobs, strict=True):
            alike.setdefault((job.learning_rate, bool(job.moments)), []).append(row)
        made = [{"params": rows, "lr": rate} for (rate, _), rows in alike.items()]
        optimiser = make_optimiser(self._config, made)
        for row, job in zip(self._rows, self._jobs, strict=True):
            if job.moments:
                take_up(optimiser, row, job.moments)
        return optimiser

    def train(self) -> list[Trained]:
        losses: list[Tensor] = []
        network = None
        for step in range(self._jobs[0].num_steps):
            active = sum(job.num_steps > step for job in self._jobs)
            if network is None or active < len(losses[-1]):
                network = self._bind(active)
            losses.append(self._step(network, step, active))
        return self._ended([loss_S.tolist() for loss_S in losses])

    def _bind(self, active: int) -> StackedNetwork:
        """The network of the first rows; the optimiser leaves the others alone."""
        for s, row in enumerate(self._rows):
            row.grad = self._gradient_SP[s] if s < active else None
        return StackedNetwork(self._model, self._theta_SP[:active], self._gradient_SP[:active])

    def _step(self, network: StackedNetwork, step: int, active: int) -> Tensor:
        """Move the first sites by one step; their losses (S,), still on the device."""
        jobs, draws = self._jobs[:active], self._draws[:active]
        bags = [job.bags[own.order[step]] for job, own in zip(jobs, draws, strict=True)]
        rows = [own.rows(bag) for own, bag in zip(draws, bags, strict=True)]
        batch = pad(bags, rows, self._device)
        masks = PaddedMasks([own.masks for own in draws], batch.lengths)
        logits_SO = network.logits(batch, masks)
        loss_S = self._task.losses(logits_SO, bags, self._config.label_smoothing)
        network.backward(loss_S.sum())
        self._shape_gradients(active)
        self._optimiser.step()
        return loss_S.detach()

    def _shape_gradients(self, active: int) -> None:
        gradient_SP, limit = self._gradient_SP[:active], self._config.clip_gradient
        if self._received_SP is not None:
            moved_SP = self._theta_SP[:active] - self._received_SP[:active]
            gradient_SP.addcmul_(moved_SP, self._mu_S1[:active])
        if limit is not None:
            # As clip_grad_norm_, for every row apart.
            norm_S1 = gradient_SP.norm(dim=1, keepdim=True)
            gradient_SP.mul_((limit / (norm_S1 + 1e-6)).clamp(max=1.0))

    def _ended(self, losses: Sequence[Sequence[float]]) -> list[Trained]:
        ended = []
        for s, (row, job) in enumerate(zip(self._rows, self._jobs, strict=True)):
            own = [of_step[s] for of_step in losses[: job.num_steps]]
            mean = float(np.mean(own)) if own else 0.0
            # A copy: a view would keep, and write to files, the networks of the whole group.
            parameters = row.to("cpu", copy=True)
            ended.append(Trained(parameters, mean, len(own), dict(self._kept(row))))
        return ended

    def _kept(self, row: Tensor) -> Iterator[tuple[str, Tensor]]:
        if self._config.keep_optimiser:
            for name, value in self._optimiser.state[row].items():
                if value is not None:
                    yield name, value.detach().cpu()
