"""Knobs of the search for good settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rayfed_hn.config.knob import knob

OBJECTIVES = ("validation_metric", "epsilon", "noise_scale")


@dataclass(frozen=True)
class TuneConfig:
    """What is searched, how, and on which divisions of the cases."""

    space: dict[str, str] = knob(
        {},
        "what to search: tune.space.KEY=... for any key that training depends on, such as "
        "tune.space.hypernetwork.rho=uniform(0,1); grid(a, b), choice(a, b), uniform(low, high) or "
        "loguniform(low, high). null takes a key out again. In a file also {grid: [a, b]}",
    )
    search: Literal["random", "grid", "optuna"] = knob(
        "random",
        "random: settings drawn apart from each other; grid: all combinations of what is grid(...);"
        " optuna: later settings follow from earlier results (needs the extra optuna)",
    )
    scheduler: Literal["none", "asha"] = knob(
        "none",
        "none: every trial makes all its versions; asha: the worse two thirds are stopped early, "
        "which depends on who arrives first and does not repeat",
    )
    num_trials: int = knob(
        16, "random, optuna: settings to try; grid tries all there are", at_least=1
    )
    max_concurrent: int | None = knob(
        None,
        "trials at a time (default: as many as there are cores; with tune.actors, as many as find "
        "a core, and the GPUs that it asks for, for every actor), and never more than there are "
        "cores; likewise the trainings of the test in the end",
        at_least=1,
    )
    actors: bool = knob(
        False,
        "false: a trial trains in one process on one core, its sites in turn; true: the sites of a "
        "trial have actors of their own, as those of train do (resources.gpus_per_site, "
        "gpus_for_server, sites_per_actor, site_restarts), for which room is reserved before it "
        "starts: for GPUs, and for networks that take long. On CPUs both give the same results",
    )
    folds: int = knob(
        2,
        "folds that every trial is run on, of the data.folds that the cases are divided into",
        at_least=1,
    )
    seeds: int = knob(
        1,
        "seeds of a trial, run.seed and those after it, each with tune.folds folds; a trial is "
        "judged by its mean validation metric",
        at_least=1,
    )
    final_seeds: int = knob(
        3,
        "seeds after those of the search, on which the best setting and the configured one are "
        "trained and tested in the end; 0: neither is tested",
        at_least=0,
    )
    objectives: list[str] = knob(
        ["validation_metric"],
        "what counts; with a second one, the front of settings that are not beaten in both is "
        "shown: epsilon (less is better; needs a formal privacy.mechanism) or noise_scale (more is "
        "better, the paper's alpha)",
        each_of=OBJECTIVES,
    )
