"""Federated rounds here, on the rivals' workload: in this process, or with sites on actors.

python benchmarks/own_rounds.py [--method fedavg] [--where process] [--sites 10] [--steps 0]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import tempfile
from pathlib import Path

from rayfed_hn.federation.ladder import step_record
from rayfed_hn.federation.virtual_plan import VirtualPlan
from rayfed_hn.loading import load
from rayfed_hn.machine import copy_bandwidth
from rayfed_hn.orchestration.resources import connect
from rayfed_hn.orchestration.scale import measure, plans

POOL, TILES, FEATURES = 64, 50, 1024  # as benchmarks/rivals/workload.py has them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="fedavg")
    parser.add_argument("--where", choices=("process", "actors"), default="process")
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    words = {
        "sites": options.sites,
        "cohort_size": options.sites,
        "methods": options.method,
        "steps": options.steps,
        "num_versions": options.rounds,
        "where": options.where,
        "pool": POOL,
        "tiles": TILES,
        "feature_dim": FEATURES,
        "test_sites": 0,
    }
    config = load(None, [f"scale.{k}={v}" for k, v in words.items()] + ["resources.cpus=2"])
    with tempfile.TemporaryDirectory() as folder:
        (plan,) = plans(config, Path(folder))
        if options.where == "actors":
            with connect(config):
                record = _measured(plan)
        else:
            record = _measured(plan)
    print(json.dumps(record))


def _measured(plan: VirtualPlan) -> dict[str, object]:
    scale, run = plan.config.scale, measure(plan)
    num_hosts, costs = run.num_hosts, run.costs
    seconds = sum(cost.seconds for cost in costs)
    found = step_record(plan, costs, run.memory, num_hosts, seconds, None, copy_bandwidth())
    where = "on actors" if scale.where == "actors" else "in process"
    return {
        "system": f"rayfed_hn {plan.config.method.name} {where}",
        "sites": found["sites"],
        "steps": scale.steps,
        "rounds": len(costs),
        "processes": num_hosts,
        "seconds_per_round": statistics.median(cost.seconds for cost in costs[1:]),
        "seconds": [cost.seconds for cost in costs[1:]],
        "first_round_s": costs[0].seconds,
        "version": importlib.metadata.version("rayfed_hn"),
        **{key: found[key] for key in ("phases", "bytes_down", "bytes_up")},
        "pss_mib": found["total_pss_mib"],
        "rss_mib": found["total_rss_mib"],
    }


if __name__ == "__main__":
    main()
