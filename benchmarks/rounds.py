"""How long a federated round takes, beside a plain loop, Flower and pfl-research, in one run.

The same network (788,739 parameters), the same 64 resident bags of 50 x 1024, the same number of
steps, one thread a process. Null training (0 steps) measures the machinery alone. Rivals run in
environments of their own, which are made at the first use; one that cannot be made is skipped, with
the reason. One JSON line a system, and a table at the end.

    python benchmarks/rounds.py [--sites 10,100,1000] [--steps 0,4] [--rounds 20,20,5] [--only WORD]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rivals.environments import ROOT, ensure

HERE = Path(__file__).parent
OWN_METHODS = ("fedavg", "hypernetwork", "pfedhn")
PATIENCE_S = 3600


@dataclass(frozen=True)
class System:
    """A system under test.

    Attributes:
        name: As the table has it.
        script: That runs it.
        options: Of the script.
        rival: Whose environment it needs; None for ours.
    """

    name: str
    script: str
    options: tuple[str, ...] = ()
    rival: str | None = None


SYSTEMS = (
    System("plain loop, 1 process", "rivals/plain_rounds.py", ("--processes", "1")),
    System("pfl-research, 1 process", "rivals/pfl_rounds.py", ("--processes", "1"), "pfl"),
    *(
        System(f"ours, {method}, in process", "own_rounds.py", ("--method", method))
        for method in OWN_METHODS
    ),
    System("plain loop, 2 processes", "rivals/plain_rounds.py", ("--processes", "2")),
    System("pfl-research, 2 processes", "rivals/pfl_rounds.py", ("--processes", "2"), "pfl"),
    *(
        System(
            f"ours, {method}, on 2 actors",
            "own_rounds.py",
            ("--method", method, "--where", "actors"),
        )
        for method in OWN_METHODS
    ),
    System("Flower, 2 actors", "rivals/flower_rounds.py", ("--processes", "2"), "flower"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", default="10,100,1000")
    parser.add_argument("--steps", default="0,4")
    parser.add_argument(
        "--rounds", default="20,20,5", help="for each number of sites; the first is reported apart"
    )
    parser.add_argument("--only", default="", help="systems with this in their name")
    parser.add_argument("--environments", type=Path, default=ROOT)
    options = parser.parse_args()
    systems = [system for system in SYSTEMS if options.only in system.name]
    pythons = _environments(systems, options.environments)
    for steps in map(int, options.steps.split(",")):
        counts = [int(count) for count in options.sites.split(",")]
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for count, rounds in zip(counts, options.rounds.split(","), strict=True):
            for system in systems:
                if system.rival not in pythons:
                    continue
                words = ("--sites", str(count), "--steps", str(steps))
                words += ("--rounds", rounds)
                record = _run(system, pythons[system.rival], words)
                print(json.dumps({"name": system.name, **record}), flush=True)
                found[system.name, count] = record
        print("\n".join(_table(systems, counts, steps, found)), flush=True)


def _environments(systems: Sequence[System], root: Path) -> dict[str | None, Path]:
    """The Python of every rival that has one, and ours under None."""
    pythons: dict[str | None, Path] = {None: Path(sys.executable)}
    for rival in sorted({system.rival for system in systems if system.rival}):
        python = ensure(rival, root)
        if isinstance(python, str):
            print(json.dumps({"skipped": rival, "reason": python}), flush=True)
        else:
            pythons[rival] = python
    return pythons


def _run(system: System, python: Path, words: Sequence[str]) -> dict[str, Any]:
    command = [str(python), str(HERE / system.script), *system.options, *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {PATIENCE_S} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["without a word"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _table(
    systems: Sequence[System],
    counts: Sequence[int],
    steps: int,
    found: dict[tuple[str, int], dict[str, Any]],
) -> Iterator[str]:
    what = f"{steps} steps of 50 x 1024" if steps else "null training"
    yield f"\n| seconds a round, {what} | " + " | ".join(f"{n:,} sites" for n in counts) + " |"
    yield "|---" * (len(counts) + 1) + "|"
    for system in systems:
        cells = [found.get((system.name, n), {}).get("seconds_per_round") for n in counts]
        if any(cells):
            values = " | ".join("-" if cell is None else f"{cell:.3g}" for cell in cells)
            yield f"| {system.name} | {values} |"


if __name__ == "__main__":
    main()
