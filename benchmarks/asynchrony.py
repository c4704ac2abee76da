"""What do asynchronous rounds buy, and what do they cost? Both in simulated time.

Busy: sites with the sizes of the Fed-TCGA-BRCA centres, durations in proportion to their bags; the
mean share of the time at which a site is at work, synchronous and asynchronous.

Accuracy: ``heart_sounds`` of the real data (RAYFED_HN_DATA), sites that differ up to eightfold in
speed, an equal number of updates for all: test AUC of the sites' current networks over simulated
time, mean over the splits. How much sooner do asynchronous rounds reach 95 % of the synchronous
final AUC, and how far from it do they end? One JSON line a setting, with paired differences.

    python benchmarks/asynchrony.py [--bags FOLDER] [--splits 10] [--methods hypernetwork,fedavg]
        [--processes 2] [--rows busy,sync,buffer1,buffer2,buffer6,all1,unbalanced1]
"""

from __future__ import annotations

import argparse
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import embed

from rayfed_hn.config import RoundsConfig, SimulationConfig
from rayfed_hn.evaluation.comparison import estimate
from rayfed_hn.evaluation.metrics import auc
from rayfed_hn.federation.data import SiteBag
from rayfed_hn.federation.experiment import finish, prepare
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.messages import Request, TrainRequest, Update
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.results import site_rows
from rayfed_hn.federation.rules.averaging import FedAvg
from rayfed_hn.federation.schedule import Schedule
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.site_clock import SiteClock
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.virtual_time import VirtualTime
from rayfed_hn.loading import load
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.tasks import Binary

BRCA = {"a": 311, "b": 196, "c": 206, "d": 162, "e": 162, "f": 51}
ROUNDS, NUM_SITES, FOLDS = 20, 6, 5
CLOCK = ["simulation.enabled=true", "simulation.slowest=8"]
SETTINGS: dict[str, list[str]] = {
    "sync": [],
    "buffer1": ["rounds.buffer_size=1"],
    "buffer2": ["rounds.buffer_size=2"],
    "buffer6": ["rounds.buffer_size=6"],
    "all1": ["rounds.buffer_size=1", "rounds.discount=all"],
    "unbalanced1": ["rounds.buffer_size=1", "rounds.balance_arrivals=false"],
}

BINARY = Binary(("normal", "tumour"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bags", type=Path, default=Path("runs/methods/heart_sounds/bags"))
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--methods", default="hypernetwork,fedavg")
    parser.add_argument("--rows", default=",".join(["busy", *SETTINGS]))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    rows = arguments.rows.split(",")
    if "busy" in rows:
        for line in busy():
            print(json.dumps(line), flush=True)
    settings = [name for name in rows if name in SETTINGS]
    if settings:
        bags = embed("heart_sounds", arguments.bags)
        for method in arguments.methods.split(","):
            for line in accuracy(method, settings, bags, arguments.splits, arguments.processes):
                print(json.dumps(line), flush=True)


class Instant:
    """Sites that do nothing, at once."""

    now, more_now = 0.0, False

    def state(self) -> dict[str, Any]:
        return {}

    def begin_at(self, seconds: float, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def __init__(self) -> None:
        self.waiting: list[Request] = []

    def submit(self, requests: Sequence[Request]) -> None:
        self.waiting += requests

    def set_alarm(self, version: int, seconds: float) -> None:
        raise NotImplementedError

    def next_event(self) -> Update:
        request = self.waiting.pop(0)
        assert isinstance(request, TrainRequest)
        nothing = np.zeros_like(request.parameters)
        return Update(request.site, request.version, request.turn, nothing, 0, 0, None, 1, 0.0)


def busy() -> Iterator[dict[str, Any]]:
    for buffer_size in (None, 1, 3):
        config = RoundsConfig(
            num_versions=600 // (buffer_size or len(BRCA)), buffer_size=buffer_size
        )
        simulation = SimulationConfig(enabled=True, duration="constant", seconds_per_bag=1.0)
        server = Server(FedAvg(torch.zeros(1)), Schedule(config, BRCA, 0), config.num_versions)
        executor = VirtualTime(Instant(), SiteClock(simulation, BRCA, 0))
        for _ in run_federation(server, executor):
            pass
        yield {
            "what": "busy share, Fed-TCGA-BRCA sizes",
            "rounds": "sync" if buffer_size is None else f"buffer{buffer_size}",
            "share": round(executor.busy_share(len(BRCA)), 4),
        }


def accuracy(
    method: str, settings: Sequence[str], bags: Path, splits: int, processes: int
) -> Iterator[dict[str, Any]]:
    with ProcessPoolExecutor(processes) as pool:
        jobs = {
            (name, split): pool.submit(run, method, SETTINGS[name], split, bags)
            for split in range(splits)
            for name in ("sync", *(s for s in settings if s != "sync"))
        }
        found = {key: job.result() for key, job in jobs.items()}
    for name in settings:
        own = [found[name, split] for split in range(splits)]
        plain = [found["sync", split] for split in range(splits)]
        yield {
            "what": "heart_sounds, speeds 1-8x",
            "method": method,
            "rounds": name,
            "busy": round(float(np.mean([f["busy"] for f in own])), 3),
            "last_auc": round(float(np.mean([f["last"] for f in own])), 4),
            "mixture_auc": round(float(np.mean([f["mixture"] for f in own])), 4),
            **compared(own, plain),
        }


def compared(own: list[dict[str, Any]], plain: list[dict[str, Any]]) -> dict[str, Any]:
    """Paired differences to synchronous rounds, and how many times sooner they are good."""
    line: dict[str, Any] = {}
    for readout in ("last", "mixture"):
        differences = np.array([[a[readout] - b[readout] for a, b in zip(own, plain, strict=True)]])
        found = estimate(differences)
        line[f"{readout}_difference"] = None if found.mean is None else round(found.mean, 4)
        line[f"{readout}_interval"] = [
            None if v is None else round(v, 4) for v in (found.low, found.high)
        ]
    goal = 0.95 * float(np.mean([run["last"] for run in plain]))
    waited, needed = reached(plain, goal), reached(own, goal)
    line["hours_to_95_percent"] = None if needed is None else round(needed / 3600, 2)
    line["times_sooner"] = None if not waited or not needed else round(waited / needed, 2)
    return line


def reached(runs: list[dict[str, Any]], goal: float) -> float | None:
    """When the mean over splits of the AUC at a time first reaches a goal; None: never."""
    curves = [([t for t, _ in run["curve"]], [v for _, v in run["curve"]]) for run in runs]
    for moment in sorted({moment for times, _ in curves for moment in times}):
        values = [aucs[bisect_right(times, moment) - 1] for times, aucs in curves]
        if np.mean(values) >= goal:
            return moment
    return None


def run(method: str, words: Sequence[str], split: int, bags: Path) -> dict[str, Any]:
    buffer = next((int(w.split("=")[1]) for w in words if "buffer_size" in w), NUM_SITES)
    versions = f"rounds.num_versions={ROUNDS * NUM_SITES // buffer}"
    where = [f"run.seed={split // FOLDS}", f"data.fold={split % FOLDS}", f"method.name={method}"]
    plan = make_plan(load(None, [*CLOCK, *words, versions, *where]), bags)
    torch.set_num_threads(1)
    server = plan.server()
    executor = plan.executor(InProcessExecutor(SiteHost(plan, plan.participants)))
    prepare(plan, server, executor)
    sites = test_bags(plan, server)
    curve = [(0.0, test_auc(plan, server, sites))]
    for report in run_federation(server, executor):
        updates = report.version * buffer
        if updates <= 10 * NUM_SITES or updates % NUM_SITES == 0:
            curve.append((report.time, test_auc(plan, server, sites)))
    outcome = finish(plan, server, executor)
    rows = site_rows(plan, outcome.scores)
    final = {
        readout: float(
            np.mean(
                [r["value"] for r in rows if r["readout"] == readout and r["value"] is not None]
            )
        )
        for readout in ("last", "mixture")
    }
    return {"curve": curve, "busy": outcome.busy_share, **final}


def test_bags(plan: Plan, server: Server) -> dict[str, tuple[SiteBag, ...]]:
    """Test bags of every site, on the scale that the sites agreed on."""
    scale = server.standardisation
    found = {name: plan.site(name).data for name in plan.participants}
    return {
        name: (data if scale is None else data.standardised(scale)).test
        for name, data in found.items()
    }


def test_auc(plan: Plan, server: Server, sites: dict[str, Any]) -> float:
    """Mean AUC of the sites' present networks on their test bags."""
    values = []
    for name, bags in sites.items():
        scored = score_bags(plan.model(), torch.tensor(server.parameters_for(name)), bags, BINARY)
        values.append(auc(np.array([bag.label for bag in bags]), scored.evidence_BE[:, 0]))
    return float(np.mean([value for value in values if value is not None]))


if __name__ == "__main__":
    main()
