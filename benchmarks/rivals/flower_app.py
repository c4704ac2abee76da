"""The same federation as a Flower app; Flower's workers import it from here.

A module of its own and not the script: what is defined in a script travels with every message.
"""
# pyright: reportMissingImports=false
# Flower is only in its own environment.

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import measuring
import torch
import workload
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from measuring import Measured, Options

torch.set_num_threads(1)

# Resident in each worker, for all the sites that it plays.
MODEL = workload.new_model()
BAGS = workload.Bags()

client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """A site's part in a round; without steps it answers with what it got, through the model."""
    MODEL.load_state_dict(message.content["arrays"].to_torch_state_dict())
    site = int(context.node_config["partition-id"])
    workload.train(MODEL, BAGS, site, int(message.content["config"]["steps"]))
    content = RecordDict(
        {
            "arrays": ArrayRecord(MODEL.state_dict()),
            "metrics": MetricRecord({"num-examples": 1}),  # sites weigh the same
        }
    )
    return Message(content=content, reply_to=message)


class TimedFedAvg(FedAvg):
    """Flower's own strategy with a clock: a round lasts from one configuration to the next."""

    def __init__(self, sites: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
        self.sites = sites
        self.began: list[float] = []

    def configure_train(self, *args: Any, **named: Any) -> Iterable[Message]:
        self.began.append(time.perf_counter())
        return super().configure_train(*args, **named)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        # Flower averages without the sites that failed: such rounds would be fast.
        answered = sum(not reply.has_error() for reply in replies)
        if answered != self.sites:
            raise RuntimeError(f"only {answered} of {self.sites} sites answered")
        return super().aggregate_train(server_round, replies)


def run(options: Options) -> Measured:
    """Run all rounds in Flower's simulation."""
    outcome: list[Measured] = []
    server_app = ServerApp()

    @server_app.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = TimedFedAvg(options.sites)
        result = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(MODEL.state_dict()),
            num_rounds=options.rounds,
            train_config=ConfigRecord({"steps": options.steps}),
        )
        stamps = [*strategy.began, time.perf_counter()]
        seconds = [end - start for start, end in pairwise(stamps)]
        final = result.arrays.to_torch_state_dict().values()
        peak = measuring.peak_rss_mib(os.getpid())
        outcome.append(Measured(seconds, peak, workload.moved(final, options.steps)))

    resources = {"num_cpus": 1, "num_gpus": 0.0}
    backend = {"init_args": {"num_cpus": options.processes}, "client_resources": resources}
    run_simulation(server_app, client_app, options.sites, backend_config=backend)
    return outcome[0]
