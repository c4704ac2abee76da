"""Knobs of experiments that scale the number of sites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rayfed_hn.config.federation import METHODS
from rayfed_hn.config.knob import knob

_FEDERATED = tuple(method for method in METHODS if method != "pooled")


@dataclass(frozen=True)
class ScaleConfig:
    """A ladder of federations, each with more sites than the one before."""

    sites: list[int] = knob([10, 100, 1000, 10_000], "numbers of sites", at_least=1)
    cohort_size: int = knob(
        100, "sites that train each version (or all, where there are fewer)", at_least=1
    )
    methods: list[str] = knob(
        ["hypernetwork", "fedavg"], "methods side by side", each_of=_FEDERATED
    )
    num_versions: int = knob(20, "versions to make; the first is not counted", at_least=2)
    steps: int = knob(
        4, "gradient steps of a site per version; 0: sites answer at once", at_least=0
    )
    readout: Literal["last", "mixture"] = knob(
        "last", "mixture: sites keep averages of their networks, which takes memory"
    )
    where: Literal["actors", "process"] = knob(
        "actors", "actors: sites on Ray actors, as train has them; process: all in one process"
    )
    partition: Literal["dirichlet", "natural", "size"] = knob(
        "dirichlet",
        "how sites draw their bags. dirichlet: labels skewed as Dir(scale.alpha); natural: each "
        "like one of the sites of data.bags, with as many bags; size: labels alike, numbers of "
        "bags log-normal",
    )
    alpha: float = knob(0.5, "of the Dirichlet distribution; small is skewed", above=0)
    spread: float = knob(1.0, "sigma of the log-normal sizes", above=0)
    bags_per_site: int = knob(8, "bags of a site, on average", at_least=1)
    pool: int = knob(256, "synthetic bags that sites draw from, without data.bags", at_least=2)
    tiles: int = knob(50, "tiles of a synthetic bag", at_least=1)
    test_sites: int = knob(
        100,
        "sites, drawn by run.seed, whose last networks are tested when a step has ended, and not "
        "on its clock (or all, where there are fewer; 0: none)",
        at_least=0,
    )
    test_bags: int = knob(
        40,
        "bags that each of them is tested on, as many of every class, of cases that no site trains "
        "on: fold data.fold of data.folds of the pool",
        at_least=2,
    )
    feature_dim: int = knob(1024, "length of synthetic features", at_least=1)
