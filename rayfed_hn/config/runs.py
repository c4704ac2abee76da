"""Knobs of runs, experiments and the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    track: Literal["none", "mlflow", "wandb"] = knob(
        "none",
        "train, compare and scale also hand their settings, means over sites and results on to "
        "MLflow or to Weights & Biases, by that client's own settings (MLFLOW_TRACKING_URI, "
        "WANDB_MODE, ...); one that cannot be reached stops nothing",
    )
    keep_commits: int = knob(
        2,
        "train: commits that are kept, the newest ones; a run goes on from the one before where "
        "the last one is damaged",
        at_least=2,
    )
    keep_messages: bool = knob(
        False,
        "train: keep every network sent and every update received in run.dir/messages, as the "
        "server saw them, for audit: 8 bytes for every parameter, site and version (788,739 "
        "parameters, 5 sites and 20 versions take 630 MB)",
    )


@dataclass(frozen=True)
class CompareConfig:
    """Methods x noise x seeds x folds."""

    methods: list[str] = knob(
        ["local", "fedavg", "hypernetwork"], "methods side by side", each_of=METHODS
    )
    attack: bool = knob(
        False,
        "true: every cell is attacked as audit does, by the direction of its updates "
        "(audit.exchanges of every site): how well are slides that were trained on told from "
        "others? Drawn beside what noise costs",
    )
    seeds: int = knob(3, "seeds: every one re-divides the cases and re-trains", at_least=1)
    folds: int = knob(5, "folds by case; each is test once", at_least=3)
    resamples: int = knob(
        2000,
        "times that cases are drawn anew for the interval of a difference by case; finished cells "
        "are kept when it changes",
        at_least=100,
    )
    noise: list[float] = knob(
        [],
        "amounts of noise to try, such as 0,0.03,0.1,0.3,1, each with every method, to see what it "
        "costs: values of privacy.noise_scale (privacy.mechanism=paper; 0: none) or of "
        "privacy.target_epsilon (site_ldp, slide_dpsgd; such as 1,3,8,30). local and pooled, which "
        "release nothing, are run once (default: as privacy says)",
        at_least=0,
    )


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
    gpus_for_server: float = knob(
        0.0, "GPU fraction of the actor that holds the hypernetwork", at_least=0, at_most=1
    )
    train_together: bool = knob(
        False,
        "on a GPU, the sites of an actor train as one stacked network; the last bits of a site "
        "then depend on who is with it (not yet tried on a GPU)",
    )
    sites_per_actor: int | None = knob(
        None,
        "sites that share an actor (default: one site each up to 16 sites, or as many as there are "
        "cores, if memory allows; beyond, one actor a core for all sites)",
        at_least=1,
    )
    site_restarts: int = knob(
        3,
        "times that a site's actor is started anew when it dies without an answer in between; then "
        "its sites are lost",
        at_least=0,
    )
    centre_restarts: int = knob(
        3,
        "times that the central actor is started anew, from the last commit, when it dies without "
        "a new version in between; then the run stops",
        at_least=0,
    )
    node_wait: float = knob(
        120.0,
        "seconds that everybody waits for the node of a site that is gone; then the others go on "
        "without it, and it joins them when it is back (with simulated time all wait for "
        "resources.node_limit)",
        above=0,
    )
    node_limit: float = knob(
        3600.0, "seconds after which a site whose node is gone is lost for good", above=0
    )
    pin_label: str | None = knob(
        None,
        "node label whose value is the name of the site that lives there: a site's actor is "
        "started on its own node",
    )
    pin_resource: str | None = knob(
        None,
        "prefix of a custom resource: with 'site:', the actor of north asks for the resource "
        "site:north",
    )
    bags_on_nodes: list[str] = knob(
        [],
        "train: the sites, if the bags of each are in the folder data.bags on the own disk of its "
        "node (resources.pin_label or pin_resource), which nobody else opens; all of them by name, "
        "so that one whose node is away is missed",
    )
    start_limit: float = knob(
        300.0,
        "seconds that a run waits until all of its actors have room at once, which others may take "
        "up; then it ends, and has held nothing meanwhile",
        above=0,
    )
    autoscaling: bool = knob(
        False,
        "true: the cluster adds nodes by itself; what the present ones have no room for is not "
        "refused but waited for (resources.start_limit)",
    )
    insecure_cluster: bool = knob(
        False,
        "true: join the cluster of RAY_ADDRESS although it answers strangers, who can then read "
        "what sites hold in memory and run code there",
    )


@dataclass(frozen=True)
class DemoConfig:
    """The synthetic federation that the demo makes."""

    slides_per_site: int = knob(16, "slides of each of the four hospitals", at_least=6)
