"""Knobs of runs, experiments and the cluster."""

from __future__ import annotations

from dataclasses import dataclass

from rayfed_hn.config.federation import METHODS
from rayfed_hn.config.knob import knob


@dataclass(frozen=True)
class RunConfig:
    """Where a run keeps its files and what it is seeded with."""

    dir: str | None = knob(None, "run directory (default: a new runs/<verb>-<time>; demo: demo)")
    seed: int = knob(0, "seed of everything random in a run, paper noise included", at_least=0)
    resume: bool = knob(
        False, "go on with the run in run.dir: from its last checkpoint, or with its missing cells"
    )


@dataclass(frozen=True)
class CompareConfig:
    """Methods x seeds x folds."""

    methods: list[str] = knob(
        ["local", "fedavg", "hypernetwork"], "methods side by side", each_of=METHODS
    )
    seeds: int = knob(3, "seeds: every one re-divides the cases and re-trains", at_least=1)
    folds: int = knob(5, "folds by case; each is test once", at_least=3)


@dataclass(frozen=True)
class ResourcesConfig:
    """What a run asks of the cluster."""

    cpus: int | None = knob(None, "CPU cores to use (default: all that Ray sees)", at_least=1)
    gpus_per_site: float = knob(
        0.0, "GPU fraction of every site actor (0: CPU only)", at_least=0, at_most=1
    )
    gpus_per_encoder: float = knob(
        0.0, "GPU fraction of every embedding worker (0: CPU only)", at_least=0, at_most=1
    )
    num_hosts: int | None = knob(
        None, "actors that the sites are spread over (default: one actor per site)", at_least=1
    )


@dataclass(frozen=True)
class DemoConfig:
    """The synthetic federation that the demo makes."""

    slides_per_site: int = knob(16, "slides of each of the four hospitals", at_least=6)
