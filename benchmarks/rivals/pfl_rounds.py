"""Federated averaging in pfl-research, inside its own environment.

Chosen for speed, as its documentation has it: users in memory (``PyTorchTensorDataset``), whose
bags are views into the resident pool; no evaluation; no postprocessors, so that users weigh the
same; several processes under ``torchrun``, among which pfl divides the cohort and sums by one
all-reduce a round. PyTorch runs uncompiled, as in the other systems.

    python benchmarks/rivals/pfl_rounds.py [--sites 10] [--steps 0] [--rounds 5] [--processes 2]
"""
# pyright: reportMissingImports=false
# pfl is only in its own environment.

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
from itertools import pairwise
from typing import Any

import measuring
import torch
import torch.distributed as dist
import torch.nn.functional as F
import workload
from measuring import Measured, Options
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import MinimizeReuseUserSampler
from pfl.hyperparam.base import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import Tensor


class Model(workload.GatedAttention):
    """The site model with what pfl asks of a module; a batch is one bag."""

    def loss(self, features_1ND: Tensor, label_1: Tensor) -> Tensor:
        return F.cross_entropy(self(features_1ND[0]), label_1[0])

    def metrics(self, features_1ND: Tensor, label_1: Tensor) -> dict[str, Any]:
        return {}  # pfl evaluates in its first round, whatever the frequency


class WithoutTraining(FederatedAveraging):
    """Everything that pfl does for a user, but for the optimisation."""

    def train_one_user(
        self, initial_model_state: Any, model: Any, user_dataset: Any, central_context: Any
    ) -> tuple[Any, Any]:
        return model.get_model_difference(initial_model_state), Metrics()


class Clock(TrainingProcessCallback):
    """When the first round began and when each ended."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def on_train_begin(self, *, model: Any) -> Any:
        self.stamps.append(time.perf_counter())
        return Metrics()

    def after_central_iteration(self, *args: Any, **named: Any) -> tuple[bool, Any]:
        self.stamps.append(time.perf_counter())
        return False, Metrics()


def federated_bags(options: Options) -> FederatedDataset:
    """Every site as a user, in turn."""
    bags, length = workload.Bags(), max(options.steps, 1)  # a user of no data is none
    # As often as it takes for a site's bags to lie side by side.
    repeats = -(-(workload.POOL + length) // workload.POOL)
    features, labels = bags.features.repeat(repeats, 1, 1), bags.labels.repeat(repeats)

    def user(site: int) -> PyTorchTensorDataset:
        workload.seed_site(site)  # pfl asks for a user right before it trains it
        start = site * workload.STRIDE % workload.POOL
        mine = slice(start, start + length)
        return PyTorchTensorDataset((features[mine], labels[mine]), user_id=str(site))

    return FederatedDataset(user, MinimizeReuseUserSampler(range(options.sites)))


def run(options: Options) -> Measured:
    """Run all rounds; under torchrun, this process's part in them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = Model().train()
    dataset, clock = federated_bags(options), Clock()
    algorithm = FederatedAveraging() if options.steps else WithoutTraining()
    algorithm.run(
        NNAlgorithmParams(
            central_num_iterations=options.rounds,
            evaluation_frequency=options.rounds,
            train_cohort_size=options.sites,
            val_cohort_size=0,
        ),
        SimulatedBackend(dataset, dataset),
        # A central rate of 1: the new model is the users' mean.
        PyTorchModel(module, workload.new_optimiser, torch.optim.SGD(module.parameters(), lr=1.0)),
        NNTrainHyperParams(
            local_batch_size=1, local_num_epochs=1, local_learning_rate=workload.RATE
        ),
        callbacks=[clock],
        send_metrics_to_platform=False,  # it prints them
    )
    seconds = [end - start for start, end in pairwise(clock.stamps)]
    return Measured(seconds, peak(), workload.moved(module.parameters(), options.steps))


def peak() -> float:
    """All processes' peak, torchrun's included; nobody ends before it is read."""
    if not dist.is_initialized():
        return measuring.peak_rss_mib(os.getpid())
    dist.barrier()
    peak_mib = measuring.peak_rss_mib(os.getppid())
    dist.barrier()
    dist.destroy_process_group()
    return peak_mib


def main() -> None:
    """Print the line of figures, from the first process."""
    options = measuring.read_options(__doc__, processes=2)
    if options.processes > 1 and not dist.is_torchelastic_launched():
        words = ["--standalone", "--nproc-per-node", str(options.processes), *sys.argv]
        os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", *words])
    measured = run(options)
    if os.environ.get("RANK", "0") == "0":
        print(measuring.line("pfl", importlib.metadata.version("pfl"), options, measured))


if __name__ == "__main__":
    main()
