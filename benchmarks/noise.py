"""What noise costs on the real federations: the paper's, and such that keeps an epsilon.

``heart_sounds`` and ``histology`` of the real data (RAYFED_HN_DATA), the hypernetwork and FedAvg:
without noise, with the paper's alpha, with whole sites hidden (site_ldp) and with every patient
hidden (slide_dpsgd), there also with few numbers released. Mean site AUC of the last networks and
of the mixture readout, and the difference to the same method without noise with its 95 % interval.
JSON lines and a markdown table a data set.

    python benchmarks/noise.py [heart_sounds] [histology] [--work FOLDER] [--seeds 5] [--folds 1]
        [--processes 2] [--methods "hypernetwork;fedavg"] [--only WORD]

What is done already in --work is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from methods import CONF, Job, embed, run

from rayfed_hn.evaluation.comparison import compare_methods
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.federation.cell import Cell

QUIET = "no noise"
# Chance of a patient to be in a step: some ten a step at the sites of either data set.
RATES = {"heart_sounds": 0.03, "histology": 0.3}
READOUTS = ("last", "mixture")


def settings_of(data: str) -> Mapping[str, tuple[str, ...]]:
    """Names and words of every kind and amount of noise."""
    private = (
        "privacy.mechanism=slide_dpsgd",
        "privacy.metrics=released",  # or the mixture would go by other words than without noise
        "training.class_balanced=false",
        f"privacy.sampling_rate={RATES[data]}",
    )
    few = ("privacy.release_dim=64", "privacy.clip_norm=1")
    found: dict[str, tuple[str, ...]] = {QUIET: ()}
    for alpha in (0.03, 0.1, 0.3, 1.0, 3.0):
        found[f"paper, alpha {alpha:g}"] = (f"privacy.noise_scale={alpha}",)
    found["not class-balanced, no noise"] = ("training.class_balanced=false",)
    for epsilon in (1, 8, 50, 200):
        target = f"privacy.target_epsilon={epsilon}"
        found[f"patients, epsilon {epsilon}"] = (*private, target)
        found[f"patients, 64 numbers, epsilon {epsilon}"] = (*private, *few, target)
    for epsilon in (8, 200):
        target = f"privacy.target_epsilon={epsilon}"
        ldp = ("privacy.mechanism=site_ldp", target)
        found[f"site, epsilon {epsilon}"] = ldp
        found[f"site, 64 numbers, epsilon {epsilon}"] = (*ldp, *few)
    return found | _small()


def _small() -> dict[str, tuple[str, ...]]:
    """A network of few parameters that takes few steps, and what it is where it takes none.

    An untrained network may be far from .5, to either side: noise that is all there is looks alike.
    """
    small = (
        *("model.hidden_dim=8", "model.attention_dim=4", "rounds.num_versions=5"),
        *("training.steps=4", "training.optimiser=sgd", "training.class_balanced=false"),
    )
    learns = (*small, "training.learning_rate=0.3")
    private = (
        *("privacy.mechanism=slide_dpsgd", "privacy.sampling_rate=0.5"),
        "privacy.metrics=released",
        *("privacy.release_dim=32", "privacy.clip_norm=1"),
    )
    found = {
        "small, untrained": (*small, "training.learning_rate=1e-9"),
        "small, no noise": learns,
    }
    for epsilon in (8, 50, 200):
        words = (*learns, *private, f"privacy.target_epsilon={epsilon}")
        found[f"small, patients, 32 numbers, epsilon {epsilon}"] = words
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", metavar="DATA", help=f"of {', '.join(CONF)}")
    parser.add_argument("--work", type=Path, default=Path("runs/noise"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--methods", default="hypernetwork;fedavg", help="with ; between")
    parser.add_argument("--only", default="", help="settings with this in their name")
    arguments = parser.parse_args()
    for name in arguments.data or CONF:
        bags = embed(name, arguments.work / name / "bags")
        settings = settings_of(name)
        chosen = {n: w for n, w in settings.items() if arguments.only in n or n == QUIET}
        numbers = {n: number for number, n in enumerate(settings)}
        jobs = [
            Job(f"{method}, {setting}", Cell(method, seed, fold), numbers[setting], words)
            for fold in range(arguments.folds)
            for seed in range(arguments.seeds)
            for setting, words in chosen.items()
            for method in arguments.methods.split(";")
        ]
        found = run(jobs, bags, CONF[name], arguments.work / name, arguments.processes)
        lines = list(conclude(name, list(found.values())))
        for line in lines:
            print(json.dumps(line))
        text = table(lines)
        print(f"\n{name}\n\n{text}")
        (arguments.work / name / "noise.md").write_text(text)


def conclude(name: str, cells: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One line a method, setting and readout."""
    rows = [row for cell in cells for row in cell["rows"]]
    scores = [row for cell in cells for row in cell["scores"]]
    found = compare_methods(rows, scores, judge=Judge("binary", 2))
    quiet = {(d["against"], d["method"], d["readout"]): d for d in found["differences"]}
    for line in found["table"]:
        if line["readout"] not in READOUTS:
            continue
        method, _, setting = line["method"].partition(", ")
        against = quiet.get((line["method"], f"{method}, {QUIET}", line["readout"]), {})
        yield {
            "data": name,
            "method": method,
            "setting": setting,
            "readout": line["readout"],
            "auc": line["mean_site"],
            **{name: _less(against.get(name)) for name in ("difference", "low", "high")},
        }


def _less(value: float | None) -> float | None:
    """Of no noise over noise, the other way round."""
    return None if value is None else -value


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Settings by rows, methods and readouts by columns."""
    columns = list(dict.fromkeys((line["method"], line["readout"]) for line in lines))
    titles = [f"{method}, {readout}" for method, readout in columns]
    rows = [f"| noise | {' | '.join(titles)} |", "|---" * (len(columns) + 1) + "|"]
    for setting in dict.fromkeys(line["setting"] for line in lines):
        own = {(li["method"], li["readout"]): li for li in lines if li["setting"] == setting}
        rows.append(f"| {setting} | {' | '.join(map(cell, (own[c] for c in columns)))} |")
    return "\n".join(rows) + "\n"


def cell(line: Mapping[str, Any]) -> str:
    if line["low"] is None:  # nothing to compare with, or a single split
        return f"{line['auc']:.3f}"
    return f"{line['auc']:.3f} ({line['high']:+.3f} to {line['low']:+.3f})"


if __name__ == "__main__":
    main()
