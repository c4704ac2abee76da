"""Every site model under the hypernetwork on the real federations, with equal budgets.

For ``heart_sounds`` and ``histology`` of the real data (RAYFED_HN_DATA): cases divided anew by each
seed, the same number of local gradient steps for all, the defaults that ship. JSON lines, and a
markdown table a data set.

    python benchmarks/models.py [heart_sounds] [histology] [--work FOLDER] [--seeds 5] [--folds 1]
        [--processes 2] [--method hypernetwork]

What is done already in --work is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from methods import CONF, Job, embed, run

from rayfed_hn.evaluation.comparison import compare_methods
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.markdown import markdown_table
from rayfed_hn.federation.cell import Cell
from rayfed_hn.models.registry import MODELS


@dataclass(frozen=True)
class ModelJob(Job):
    """A cell whose arm is a site model."""

    @property
    def name(self) -> str:
        return f"{self.cell.name}-model-{self.arm}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", metavar="DATA", help=f"of {', '.join(CONF)}")
    parser.add_argument("--work", type=Path, default=Path("runs/methods"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=1, help="of 5, to test on")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--method", default="hypernetwork")
    arguments = parser.parse_args()
    for name in arguments.data or CONF:
        bags = embed(name, arguments.work / name / "bags")
        jobs = list(make_jobs(arguments.method, arguments.seeds, arguments.folds))
        found = run(jobs, bags, CONF[name], arguments.work / name, arguments.processes)
        conclude(name, list(found.values()), arguments.work / name)


def make_jobs(method: str, seeds: int, folds: int) -> Iterator[ModelJob]:
    """Models innermost, so that what is interrupted is balanced."""
    for fold in range(folds):
        for seed in range(seeds):
            for model in MODELS:
                yield ModelJob(model, Cell(method, seed, fold), 0, (f"model.name={model}",))


def conclude(name: str, cells: list[dict], work: Path) -> None:
    """Print and write the table."""
    rows = [row for cell in cells for row in cell["rows"]]
    scores = [row for cell in cells for row in cell["scores"]]
    found = compare_methods(rows, scores, judge=Judge("binary", 2))
    for line in found["table"]:
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}
        print(json.dumps({"data": name, **rounded}))
    table = markdown_table(found, "mixture").replace("| method |", "| site model |")
    (work / "models.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
