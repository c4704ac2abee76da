"""Federated averaging as a bare torch loop: as fast as one would write a round by hand.

One model a process serves all its sites. Its parameters are views into one flat vector, so that a
site is loaded by one copy and added to the sum by one addition; the optimiser's momentum is zeroed
in place instead of made anew. With more processes each has an equal share of the sites and leaves
its sum in shared memory, where every process reads the mean: nothing is sent.

    python benchmarks/rivals/plain_rounds.py [--sites 10] [--steps 0] [--rounds 5] [--processes 1]
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import measuring
import torch
import torch.multiprocessing as mp
import workload
from measuring import Measured, Options
from torch import Tensor, nn

PATIENCE_S = 3600.0  # for a process that died; no round takes as long


class Share:
    """One process's sites."""

    def __init__(self, sites: range, steps: int) -> None:
        self.sites, self.steps = sites, steps
        self.bags = workload.Bags()
        self.model = workload.new_model()
        self.flat_P = flatten(self.model)
        self.optimiser = workload.new_optimiser(self.model.parameters())

    def sum_into(self, sum_P: Tensor, global_P: Tensor) -> None:
        """Train every site on the global parameters and sum what they end with."""
        sum_P.zero_()
        for site in self.sites:
            self.flat_P.copy_(global_P)
            self._forget()
            workload.train(self.model, self.bags, site, self.steps, self.optimiser)
            sum_P.add_(self.flat_P)

    def _forget(self) -> None:
        for state in self.optimiser.state.values():
            for value in state.values():
                value.zero_()


def flatten(model: nn.Module) -> Tensor:
    """Turn the parameters into views of one vector (P,), which is returned."""
    flat_P = nn.utils.parameters_to_vector(model.parameters()).detach()
    nn.utils.vector_to_parameters(flat_P, model.parameters())  # it makes views, not copies
    return flat_P


@dataclass(frozen=True)
class Meeting:
    """Where the processes meet.

    Attributes:
        sums_2KP: Each of K processes' sum, twice: while a slow process still reads those of one
            round, a fast one may write those of the next.
        barrier: Passed once everybody's sum is there.
    """

    sums_2KP: Tensor
    barrier: Any


def work(rank: int, options: Options, meeting: Meeting) -> tuple[Measured, Tensor]:
    """One process's part in all rounds; the last global parameters (P,) come with the figures."""
    torch.set_num_threads(1)
    share = Share(range(rank, options.sites, options.processes), options.steps)
    global_P = share.flat_P.clone()
    seconds: list[float] = []
    meeting.barrier.wait()
    for number in range(options.rounds):
        started = time.perf_counter()
        sums_KP = meeting.sums_2KP[number % 2]
        share.sum_into(sums_KP[rank], global_P)
        meeting.barrier.wait()
        torch.sum(sums_KP, dim=0, out=global_P)
        global_P.div_(options.sites)
        seconds.append(time.perf_counter() - started)
    measured = Measured(
        seconds, measuring.peak_rss_mib(os.getpid()), workload.moved([global_P], options.steps)
    )
    meeting.barrier.wait()  # nobody ends before its memory is counted
    return measured, global_P


def run(options: Options) -> tuple[Measured, Tensor]:
    """Run all rounds as ``work`` does; this process is the first of those that train."""
    context = mp.get_context("spawn")
    sums_2KP = torch.zeros(2, options.processes, workload.PARAMETERS).share_memory_()
    meeting = Meeting(sums_2KP, context.Barrier(options.processes, timeout=PATIENCE_S))
    others = [
        context.Process(target=work, args=(rank, options, meeting), daemon=True)
        for rank in range(1, options.processes)
    ]
    for process in others:
        process.start()
    outcome = work(0, options, meeting)
    for process in others:
        process.join()
    return outcome


def main() -> None:
    """Print the line of figures."""
    options = measuring.read_options(__doc__, processes=1)
    print(measuring.line("plain torch", torch.__version__, options, run(options)[0]))


if __name__ == "__main__":
    main()
