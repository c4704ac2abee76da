"""Survival across simulated hospitals whose true hazards are known: how near to the best possible?

Four hospitals of different size, baseline hazard, censoring and stain (a shift of all features). Of
every case one or two bags of tile features are written as .h5 files with a manifest that has the
columns time and event; ``rayfed-hn embed`` imports them, and methods are compared over seeds and
folds by case. The log-hazard of a case is STRENGTH times the share of one kind of tile in it.
Table: mean site C-index of every method, and of the true log-hazard, which nothing can beat but by
chance.

    python benchmarks/survival.py [--work FOLDER] [--seeds 5] [--processes 2]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rayfed_hn.bags.store import SiteBags
from rayfed_hn.evaluation.comparison import compare_methods
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.markdown import markdown_table
from rayfed_hn.evaluation.survival import concordance_index
from rayfed_hn.federation.cell import Cell, run_cell
from rayfed_hn.federation.data import Folds
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load

METHODS = ("local", "fedavg", "fedavg_ft", "pfedhn", "hypernetwork", "pooled")
WORDS = ("task.kind=survival",)
SITES = {"north": (160, 1.0), "east": (100, 2.0), "south": (70, 0.5), "west": (50, 1.5)}
DIM, STRENGTH = 32, 6.0
ORACLE = "true log-hazard"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/survival"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    bags, hazards = embed(arguments.work)
    cells = [Cell(m, seed, 0) for seed in range(arguments.seeds) for m in METHODS]
    with ProcessPoolExecutor(arguments.processes) as pool:
        found = list(pool.map(cell_of, cells, [bags] * len(cells)))
    rows = [row for cell in found for row in cell["rows"]]
    scores = [row for cell in found for row in cell["scores"]]
    compared = compare_methods(rows, scores, judge=Judge("survival", 4))
    for line in compared["table"]:
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}))
    print(markdown_table(compared, "mixture"))
    oracle = [oracle_of(seed, bags, hazards) for seed in range(arguments.seeds)]
    print(f"{ORACLE}: mean site C-index {np.mean(oracle):.3f} on the same test cases")


def cell_of(cell: Cell, bags: Path) -> dict[str, Any]:
    return run_cell(cell, load(None, WORDS), bags)


def embed(work: Path) -> tuple[Path, dict[str, float]]:
    """The bag store, and the log-hazard of every case."""
    features, bags = work / "features", work / "bags"
    features.mkdir(parents=True, exist_ok=True)
    rows, hazards = [], {}
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    for number, (site, (num_cases, rate)) in enumerate(SITES.items()):
        stain = 0.7 * rng.normal(size=DIM)
        for i in range(num_cases):
            case, share = f"{site}-{i:03d}", rng.beta(1.5, 4)
            hazards[case] = STRENGTH * share
            time = 400 / rate * rng.exponential() * np.exp(-hazards[case])
            end = rng.uniform(20, 400 - 60 * number)
            for slide in range(int(rng.integers(1, 3))):
                name = f"{case}-{slide}"
                write(features / f"{name}.h5", make_tiles(rng, share, directions, stain))
                about = [f"{min(time, end):.4f}", int(time <= end)]
                rows.append([name, f"features/{name}.h5", case, site, *about])
    manifest = work / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide_id", "path", "case_id", "site", "time", "event"])
        writer.writerows(rows)
    words = [f"data.manifest={manifest}", f"data.bags={bags}"]
    command = [sys.executable, "-m", "rayfed_hn", "embed", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return bags.resolve(), hazards


def make_tiles(
    rng: np.random.Generator, share: float, directions: np.ndarray, stain: np.ndarray
) -> np.ndarray:
    """Tile features (N, D): one kind of tile makes the hazard, three others do not."""
    num_tiles = int(rng.integers(30, 90))
    others = (1 - share) * rng.dirichlet(np.ones(3))
    kinds_N = rng.choice(4, size=num_tiles, p=[share, *others])
    return (1.6 * directions[kinds_N] + stain + rng.normal(0, 0.5, (num_tiles, DIM))).astype("f4")


def write(path: Path, features_ND: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["features"] = features_ND
        file["coords"] = np.zeros((len(features_ND), 2), np.int64)


def oracle_of(seed: int, bags: Path, hazards: dict[str, float]) -> float:
    """Mean site C-index of the true log-hazard on the test bags of a seed."""
    config = Cell("fedavg", seed, 0).config(load(None, WORDS))
    values = []
    for site in make_plan(config, bags).hospitals:
        entries = SiteBags(bags, site).entries
        test = [entries[i] for i in Folds.of(config).split(entries).test]
        times, events = [e.time for e in test], [e.event for e in test]
        risks = [hazards[e.case_id] for e in test]
        value = concordance_index(np.array(times), np.array(events), np.array(risks))
        values.append(value)
    return float(np.mean([value for value in values if value is not None]))


if __name__ == "__main__":
    main()
