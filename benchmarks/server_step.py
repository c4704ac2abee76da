"""How near a server step comes to what the machine can do.

A cohort of 50 at 788,739 parameters, for FedAvg, the hypernetwork (embedding 16, a head of 12.6 M
values) and pFedHN (hidden 100, a head of 79.7 M). The floor is what the step must move in memory,
at the measured copy bandwidth, plus what it must compute, at the measured rate of matrix products,
one after the other: all by one thread, as the server computes, and measured in the same run.
FedAvg, which computes next to nothing, is shown and not judged.

    python benchmarks/server_step.py [--cohort 50] [--times 9] [--device cpu]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from hardware import multiply_rate, name_of

from rayfed_hn.federation.rules import Contribution, Rule
from rayfed_hn.federation.rules.averaging import FedAvg
from rayfed_hn.federation.rules.generator import Hypernetwork, SiteFeatures
from rayfed_hn.federation.rules.optimisers import Optimiser
from rayfed_hn.federation.rules.pfedhn import HIDDEN, PFedHN
from rayfed_hn.kept_memory import keep_memory
from rayfed_hn.machine import MIB, copy_bandwidth, seconds_of

SIZE, SITES, DIM = 788_739, 1000, 16
LIMIT = 2.0  # times the floor


@dataclass(frozen=True)
class Needs:
    """What a step cannot do without.

    Attributes:
        values: float32 values read or written in memory.
        operations: Floating-point operations.
    """

    values: float
    operations: float

    def seconds(self, bandwidth: float, rate: float) -> float:
        return 4 * self.values / bandwidth + self.operations / rate


def needs(cohort: int) -> dict[str, Needs]:
    """Every update is read once in each pass; the head and its moment are read and written."""
    updates, theta, head = cohort * SIZE, 2 * SIZE, DIM * SIZE
    wide = HIDDEN * SIZE
    return {
        "fedavg": Needs(updates + theta, 2 * updates),
        "hypernetwork": Needs(updates + theta + 2 * head, 2 * updates * (DIM + 1)),
        # Once to pull the updates back and for their products, once to move head and moment.
        "pfedhn": Needs(
            2 * updates + wide + 4 * wide, 2 * updates * (2 * HIDDEN + (cohort + 1) / 2)
        ),
        "pfedhn, bfloat16 moment": Needs(
            2 * updates + wide + 3 * wide, 2 * updates * (2 * HIDDEN + (cohort + 1) / 2)
        ),
    }


def make(name: str, device: str) -> Rule:
    """A rule of the paper's size."""
    initial = torch.randn(SIZE, generator=torch.Generator().manual_seed(0)).to(device) / 30
    if name == "fedavg":
        return FedAvg(initial)
    if name == "hypernetwork":
        return Hypernetwork(initial, SITES, SiteFeatures("fixed", SITES, DIM, 0.0, 0), DIM, 0.3)
    optimiser = Optimiser("momentum", 0.01, 0.9, 1e-3, name.endswith("bfloat16 moment"))
    return PFedHN(SIZE, SITES, DIM, optimiser, 1, 0, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohort", type=int, default=50)
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    rng = np.random.default_rng(0)
    updates = [rng.standard_normal(SIZE, np.float32) / 1000 for _ in range(arguments.cohort)]
    contributions = [Contribution(i, update) for i, update in enumerate(updates)]
    slow: list[str] = []
    for name, need in needs(arguments.cohort).items():
        # Beside each, since a busy machine is slower.
        bandwidth, rate = copy_bandwidth(arguments.device), multiply_rate(arguments.device)
        before = psutil.Process().memory_info().rss
        rule = make(name, arguments.device)

        def step(rule: Rule = rule) -> None:
            rule.apply(contributions, complete=False, among=len(contributions))

        found = seconds_of(step, arguments.device, arguments.times)
        made = seconds_of(lambda r=rule: r.networks(range(arguments.cohort)), arguments.device, 5)
        floor = need.seconds(bandwidth, rate)
        if name != "fedavg" and found > LIMIT * floor:
            slow.append(name)
        print(json.dumps({
            "rule": name,
            "cohort": arguments.cohort,
            "device": name_of(arguments.device),
            "step_ms": round(1e3 * found, 1),
            "floor_ms": round(1e3 * floor, 1),
            "moving_ms": round(4e3 * need.values / bandwidth, 1),
            "computing_ms": round(1e3 * need.operations / rate, 1),
            "times_floor": round(found / floor, 2),
            "generation_ms": round(1e3 * made, 1),
            "mb_moved": round(4e-6 * need.values),
            "gflop": round(need.operations / 1e9, 1),
            "copy_gb_s": round(bandwidth / 1e9, 1),
            "product_gflop_s": round(rate / 1e9, 1),
            "state_mib": round(sum(t.nbytes for t in rule.state().values()) / MIB),
            "grown_mib": round((psutil.Process().memory_info().rss - before) / MIB),
        }))  # fmt: skip
    if slow:
        raise SystemExit(f"more than {LIMIT:g} times the floor: {', '.join(slow)}")


if __name__ == "__main__":
    main()
