"""Every method on the real federations, under one protocol, with what is certain about it.

For ``heart_sounds`` and ``histology`` of the real data (RAYFED_HN_DATA): cases divided into folds
by site and label, every method with the same number of local gradient steps (those that end in _ft
with a quarter more, at the end), several seeds, every readout. Two rows a method: with the defaults
that ship, and tuned on validation alone over a grid of four points, equally large for all. JSON
lines and a markdown table a data set.

    python benchmarks/methods.py [heart_sounds] [histology] [--work FOLDER] [--seeds 5] [--folds 5]
        [--tuned-folds 1] [--processes 2] [--methods "fedavg;hypernetwork"]

What is done already in --work is not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import rayfed_hn
from rayfed_hn.config import METHODS
from rayfed_hn.evaluation.comparison import compare_methods
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.markdown import markdown_table
from rayfed_hn.federation.cell import Cell, run_cell
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load

CONF = {"heart_sounds": [], "histology": ["conf/histology.yaml"]}
FOLDS = 5
ROUNDS = 20
PUBLISHED = "pfedhn, one site a step"  # as its authors run it, with as many steps at the sites
NAMES = (*METHODS, PUBLISHED)


@dataclass(frozen=True)
class Job:
    """One cell at one point of its method's grid; point 0 is what ships."""

    arm: str
    cell: Cell
    point: int
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        steps = "-one-site" if self.arm == PUBLISHED else ""
        return f"{self.cell.name}{steps}-point{self.point}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", metavar="DATA", help=f"of {', '.join(CONF)}")
    parser.add_argument("--work", type=Path, default=Path("runs/methods"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=FOLDS, help=f"of {FOLDS}, to test on")
    parser.add_argument("--tuned-folds", type=int, default=1, help="folds that are tuned; 0: none")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--methods", default=";".join(NAMES), help="with ; between")
    arguments = parser.parse_args()
    methods, parts = (
        arguments.methods.split(";"),
        (arguments.seeds, arguments.folds, arguments.tuned_folds),
    )
    for name in arguments.data or CONF:
        bags = embed(name, arguments.work / name / "bags")
        jobs = list(make_jobs(name, bags, methods, *parts))
        results = run(jobs, bags, CONF[name], arguments.work / name, arguments.processes)
        conclude(name, results, arguments.work / name)


def embed(name: str, bags: Path) -> Path:
    """The bag store of a data set, made with the command that a user would give."""
    data = Path(os.environ.get("RAYFED_HN_DATA", "../shared/data")).resolve()
    words = [f"data.manifest={data / name / 'manifest.csv'}", f"data.bags={bags}"]
    command = [sys.executable, "-m", "rayfed_hn", "embed", *CONF[name], *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return bags.resolve()


def make_jobs(
    name: str, bags: Path, methods: Sequence[str], seeds: int, folds: int, tuned_folds: int
) -> Iterator[Job]:
    """All folds with the defaults, some folds with the rest of the grid; a balanced order."""
    plan = make_plan(load(conf_of(name)), bags)
    for fold in range(folds):
        for seed in range(seeds):
            for arm in methods:
                method, always = arm.split(",")[0], ()
                if arm == PUBLISHED:
                    always = one_site_a_step(len(plan.hospitals))
                grid = [(), *grid_of(method, plan.learning_rate)]
                for point, words in enumerate(grid if fold < tuned_folds else grid[:1]):
                    yield Job(arm, Cell(method, seed, fold), point, (*always, *words))


def one_site_a_step(num_sites: int) -> tuple[str, ...]:
    """Shamsian et al. 2021: a site at a time, SGD with momentum afresh; as many requests a site."""
    rounds = (f"rounds.num_versions={ROUNDS * num_sites}", "rounds.cohort_size=1")
    return (*rounds, "training.optimiser=momentum", "training.learning_rate=0.005")


def grid_of(method: str, rate: float) -> list[tuple[str, ...]]:
    """Three more points beside the defaults, of the learning rate and of the method's own knob."""
    faster = f"training.learning_rate={3 * rate}"
    own = {
        "fedprox": ("training.proximal_mu=0.01",),
        "hypernetwork": ("hypernetwork.rho=0.1",),
        "hypernetwork_ft": ("hypernetwork.rho=0.1",),
        "fedavg_ft": ("training.fine_tuning_steps=40",),
    }
    if method.startswith("pfedhn"):
        return [(f"hypernetwork.learning_rate={value}",) for value in (0.03, 0.1, 0.3)]
    if method in own:
        return [(faster,), own[method], (faster, *own[method])]
    return [(f"training.learning_rate={factor * rate}",) for factor in (0.3, 3, 10)]


def conf_of(name: str) -> str | None:
    return CONF[name][0] if CONF[name] else None


def run(
    jobs: Sequence[Job], bags: Path, conf: Sequence[str], work: Path, processes: int
) -> dict[Job, dict[str, Any]]:
    """Results of all jobs, from files where they are there already."""
    (work / "cells").mkdir(parents=True, exist_ok=True)
    done = {job: json.loads(path_of(job, work).read_text()) for job in jobs if there(job, work)}
    with ProcessPoolExecutor(processes) as pool:
        waiting = {
            pool.submit(run_job, job, bags, conf[0] if conf else None, path_of(job, work)): job
            for job in jobs
            if job not in done
        }
        for number, future in enumerate(as_completed(waiting), 1):
            done[waiting[future]] = future.result()
            print(f"\r{work.name}: {number} of {len(waiting)} cells", end="", file=sys.stderr)
    print(file=sys.stderr)
    return {job: done[job] for job in jobs}


def path_of(job: Job, work: Path) -> Path:
    return work / "cells" / f"{job.name}.json"


def there(job: Job, work: Path) -> bool:
    path = path_of(job, work)
    return path.exists() and json.loads(path.read_text())["made"] == made_of(job)


def made_of(job: Job) -> dict[str, Any]:
    """What a result depends on besides the bags: settings and code."""
    return {"words": list(job.words), "code": code_digest()}


@cache
def code_digest() -> str:
    """Of everything that takes part in a cell."""
    hasher = hashlib.sha256()
    for folder in ("federation", "models", "privacy", "evaluation", "config", "bags"):
        for path in sorted((Path(rayfed_hn.__file__).parent / folder).rglob("*.py")):
            hasher.update(path.read_bytes())
    return hasher.hexdigest()


def run_job(job: Job, bags: Path, conf: str | None, path: Path) -> dict[str, Any]:
    config = load(conf, [f"compare.folds={FOLDS}", *job.words])
    found: dict[str, Any] = run_cell(job.cell, config, bags) | {"made": made_of(job)}
    for part in ("rows", "scores"):
        found[part] = [{**row, "method": job.arm} for row in found[part]]
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(found))
    temporary.replace(path)
    return found


def conclude(name: str, results: dict[Job, dict[str, Any]], work: Path) -> None:
    """Print and write the tables: the defaults on all folds, and tuned on those that were."""
    defaults = [found for job, found in results.items() if job.point == 0]
    report(name, "defaults", defaults, work)
    tuned = choose(results)
    if tuned:
        report(name, "tuned", tuned, work)


def choose(results: dict[Job, dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every tuned cell the point whose last networks are best on validation."""
    by_cell: dict[tuple[str, Cell], list[dict[str, Any]]] = {}
    for job, found in results.items():
        by_cell.setdefault((job.arm, job.cell), []).append(found)
    return [
        max(points, key=lambda found: found["validation_metric"] or 0.0)
        for points in by_cell.values()
        if len(points) > 1
    ]


def report(name: str, what: str, cells: Sequence[dict[str, Any]], work: Path) -> None:
    rows = [row for cell in cells for row in cell["rows"]]
    scores = [row for cell in cells for row in cell["scores"]]
    found = compare_methods(rows, scores, judge=Judge("binary", 2))
    for kind in ("table", "differences"):
        for line in found[kind]:
            if kind == "table" or line["method"] == "hypernetwork":
                rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}
                print(json.dumps({"data": name, "settings": what, **rounded}))
    (work / f"{what}.md").write_text(markdown_table(found))


if __name__ == "__main__":
    main()
