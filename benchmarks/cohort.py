"""Sites that train together against the same sites one after another, on one device.

Every site takes a few steps on bags of 50 tiles of 1,024 features with the network of 788,739
parameters; what is timed starts and ends with networks on the CPU, as a federation's does. One
thread, as sites have. JSON lines: site-steps a second, best of the repeats, and how far the
two ways end apart: the norm of the difference relative to that of what was moved, without the
attention's last bias, which the softmax cancels and rounding alone moves.

    python benchmarks/cohort.py [--device cuda] [--sites 1 4 16 64] [--steps 4] [--tiles 50]
        [--optimiser adam] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from hardware import name_of

from rayfed_hn.config import ModelConfig, TrainingConfig
from rayfed_hn.models.cohort import Job, groups, train_cohort
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import initial_parameters, make_model
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.tasks import Binary
from rayfed_hn.models.training import Trained

FEATURES, BAGS, RATE = 1024, 8, 2e-4
TASK = Binary(("normal", "tumour"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=usual, help=usual)
    parser.add_argument("--sites", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tiles", type=int, default=50)
    parser.add_argument("--optimiser", default="adam")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = make_model(FEATURES, TASK.num_outputs, ModelConfig())
    config = TrainingConfig(optimiser=arguments.optimiser)
    about = {
        "device": name_of(arguments.device),
        "torch": torch.__version__,
        "optimiser": arguments.optimiser,
        "steps": arguments.steps,
        "tiles": arguments.tiles,
    }
    for num_sites in arguments.sites:
        jobs = make_jobs(model, num_sites, arguments.steps, arguments.tiles)
        for line in measure(model, jobs, config, arguments.device, arguments.repeats):
            print(json.dumps(about | line), flush=True)


def make_jobs(model: SiteModel, num_sites: int, steps: int, tiles: int) -> list[Job]:
    layout, rng = ParameterLayout.of(model), np.random.default_rng(0)
    received = initial_parameters(layout, seed=0)
    return [
        Job(
            received.clone(),
            [
                LabelledBag(rng.standard_normal((tiles, FEATURES), np.float32), i % 2)
                for i in range(BAGS)
            ],
            learning_rate=RATE,
            num_steps=steps,
            seed=site,
        )
        for site in range(num_sites)
    ]


def measure(
    model: SiteModel, jobs: Sequence[Job], config: TrainingConfig, device: str, repeats: int
) -> Iterator[dict[str, Any]]:
    """Yield a line for each way, then one for both."""

    def together() -> list[Trained]:
        return train_cohort(model, jobs, config, task=TASK, device=device)

    def one_by_one() -> list[Trained]:
        # A cohort of one is plain training.
        return [train_cohort(model, [job], config, task=TASK, device=device)[0] for job in jobs]

    ways: dict[str, Callable[[], list[Trained]]] = {
        "one by one": one_by_one,
        "together": together,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    ended: dict[str, list[Trained]] = {}
    for repeat in range(repeats + 1):  # in turn, so that a busy moment of the machine meets both
        for name, train in ways.items():
            started = time.perf_counter()
            ended[name] = train()
            if repeat:  # the first one loads kernels
                seconds[name].append(time.perf_counter() - started)
    best = {name: min(times) for name, times in seconds.items()}
    site_steps = sum(job.num_steps for job in jobs)
    for name, value in best.items():
        speed = round(site_steps / value, 1)
        yield {
            "sites": len(jobs),
            "way": name,
            "seconds": round(value, 4),
            "site_steps_per_s": speed,
        }
    yield {
        "sites": len(jobs),
        "groups": len(groups(model, jobs, config)),
        "speed_up": round(best["one by one"] / best["together"], 2),
        "relative_difference": relative_difference(model, jobs, ended),
    }


def relative_difference(
    model: SiteModel, jobs: Sequence[Job], ended: dict[str, list[Trained]]
) -> float:
    matters = torch.ones(ParameterLayout.of(model).size)
    for name, place in ParameterLayout.of(model).places():
        matters[place] = float(name != "attention_w.bias")
    started = torch.stack([job.parameters for job in jobs])
    alone, together = (torch.stack([each.parameters for each in way]) for way in ended.values())
    moved = (matters * (alone - started)).norm()
    return float(f"{(matters * (together - alone)).norm() / moved:.2g}")


if __name__ == "__main__":
    main()
