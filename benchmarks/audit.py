"""What the server learns of slides under every mechanism, and whether promises are kept.

On ``histology/`` of the real data (RAYFED_HN_DATA), with the defaults that ship but for one thing:
all arms draw bags evenly, as private steps have to. Every arm is trained and attacked in this
process by the code behind ``rayfed-hn audit``. One JSON line an arm and seed (every seed divides
the cases anew), and a markdown table of means over seeds.

    python benchmarks/audit.py [--work FOLDER] [--seeds 2] [--repeats 2]

Two seeds take about a quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import CONF, embed

from rayfed_hn.audit.audit import audit
from rayfed_hn.audit.membership import ALIGNMENT, SHADOWS
from rayfed_hn.audit.property import UPDATES
from rayfed_hn.audit.run import SAME, audited, make_again
from rayfed_hn.audit.verdict import BAGS, GAUSSIAN
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load

ARMS = {
    "none": ("privacy.mechanism=none",),
    "paper .1": ("privacy.noise_scale=0.1",),
    "paper 1": ("privacy.noise_scale=1",),
    "site_ldp 8": ("privacy.mechanism=site_ldp", "privacy.target_epsilon=8"),
    "slide_dpsgd 8": ("privacy.mechanism=slide_dpsgd", "privacy.target_epsilon=8"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/audit"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2, help="runs with canaries an arm and seed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bags = embed("histology", arguments.work / "histology" / "bags")
    lines = []
    for seed in range(arguments.seeds):
        for arm in ARMS:
            lines.append(attack(arm, seed, arguments.repeats, bags))
            print(json.dumps(lines[-1]), flush=True)
    table = "\n".join(markdown(lines))
    (arguments.work / "audit.md").write_text(table + "\n")
    print(f"\n{table}")


def attack(arm: str, seed: int, repeats: int, bags: Path) -> dict[str, Any]:
    """Train and attack one arm."""
    begun = time.monotonic()
    words = ("training.class_balanced=false", f"run.seed={seed}", f"audit.repeats={repeats}")
    plan = make_plan(load(CONF["histology"][0], [*words, *ARMS[arm]]), bags)
    heard, server = make_again(plan)
    found = audit(audited(plan, heard, SAME, server.standardisation))
    direction, shadows = (found["membership"][name] for name in (ALIGNMENT, SHADOWS))
    canaries, inverted, site = found["canaries"], found["inversion"], found["property"][UPDATES]
    sharp = canaries.get(GAUSSIAN)
    line = {
        "direction_auc": direction["auc"],
        "direction_low": direction["auc_low"],
        "direction_high": direction["auc_high"],
        "direction_tpr": direction["tpr"],
        "shadows_auc": shadows["auc"],
        "shadows_low": shadows["auc_low"],
        "shadows_high": shadows["auc_high"],
        "shadows_tpr": shadows["tpr"],
        "one_step": inverted["one_step"],
        "trained_on": inverted["trained_on"],
        "never_seen": inverted["never_seen"],
        "site_auc": site["pairs"]["auc"],
        "site_as_well": site["as_well"],
        "canary_auc": canaries[BAGS]["guessing"]["auc"],
        "epsilon_by_bags": canaries[BAGS]["bound"]["epsilon"],
        "most_by_bags": canaries[BAGS]["bound"]["most"],
        "epsilon_by_sites": sharp and sharp["bound"]["epsilon"],
        "promised": found["promised"],
        "seconds": time.monotonic() - begun,
    }
    rounded = {k: round(v, 7 if k == "one_step" else 3) for k, v in line.items() if v is not None}
    return {"arm": arm, "seed": seed, "verdict": found["verdict"], **rounded}


COLUMNS = (
    "mechanism",
    "membership by direction: AUC",
    "found at 1 % false alarms",
    "by shadows: AUC",
    "found",
    "error of one tile, one step",
    "as trained: seen / never seen",
    "site of a slide: AUC",
    "epsilon is above (bags)",
    "(whole sites)",
    "promised",
)


def markdown(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Means over seeds."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---" * len(COLUMNS) + "|"
    for arm in ARMS:
        own = [line for line in lines if line["arm"] == arm]
        mean = {
            key: float(np.mean([line[key] for line in own]))
            for key, value in own[0].items()
            if isinstance(value, float)
        }
        sharp, promised = mean.get("epsilon_by_sites"), mean.get("promised")
        cells = (
            arm,
            f"{mean['direction_auc']:.2f}",
            f"{mean['direction_tpr']:.0%}",
            f"{mean['shadows_auc']:.2f}",
            f"{mean['shadows_tpr']:.0%}",
            f"{mean['one_step']:.2g}",
            f"{mean['trained_on']:.2f} / {mean['never_seen']:.2f}",
            f"{mean['site_auc']:.2f}",
            f"{mean['epsilon_by_bags']:.2f}",
            "–" if sharp is None else f"{sharp:.2f}",
            "nothing" if promised is None else f"{promised:.2f}",
        )
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
