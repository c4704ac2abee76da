"""Knobs of rounds and of simulated time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rayfed_hn.config.knob import knob

FEWEST_VOTES = 3  # sites of which one can be outvoted


@dataclass(frozen=True)
class RoundsConfig:
    """Who is asked when, and what makes a version."""

    num_versions: int = knob(20, "versions of the shared state to make", at_least=1)
    cohort_size: int | None = knob(
        None, "sites that are asked at a time (default: all)", at_least=1
    )
    sampling: Literal["in_order", "uniform", "by_size"] = knob(
        "uniform",
        "how a cohort smaller than all is drawn from the idle sites: in turn by name, evenly, or "
        "in proportion to their training bags",
    )
    buffer_size: int | None = knob(
        None,
        "updates that make a version, while sites go on without waiting (default: wait for all "
        "that were asked, which is synchronous)",
        at_least=1,
    )
    max_staleness: int | None = knob(
        None, "drop updates to a network so many versions older than the present one", at_least=0
    )
    staleness_exponent: float = knob(
        0.5, "a in the discount (1 + staleness)^-a of late updates; 0: none", at_least=0
    )
    discount: Literal["base", "all"] = knob(
        "base",
        "what lateness discounts in the hypernetwork: its shared base only, or the site's own part "
        "too",
    )
    balance_arrivals: bool = knob(
        True,
        "weigh updates to what is shared by inverse arrival rate, so that fast sites do not own it",
    )
    deadline: float | None = knob(
        None, "seconds after which a version is made from what is there", above=0
    )
    min_sites: int = knob(
        1,
        "sites that a version is made of after its deadline (it waits on for them), and that must "
        "be left in the federation",
        at_least=1,
    )
    max_refusals: int = knob(
        3, "a site is lost when so many of its updates in a row were refused", at_least=1
    )
    norm_factor: float | None = knob(
        30.0,
        "refuse an update whose norm is beyond so many times both what its site usually sends and "
        "what most sites do, or beyond its square times the latter; null: take any that is finite",
        at_least=2,
    )
    robust: Literal["none", "norm_bound", "trimmed_mean", "median"] = knob(
        "none",
        "how what sites share is combined, so that some cannot move it at will; three sites at "
        "least. norm_bound: no update is longer than the median one; trimmed_mean: of every "
        "parameter the extremes are left out; median: all but the middle. They cost accuracy where "
        "sites differ",
    )
    trim: float = knob(
        0.2,
        "share of the sites that trimmed_mean leaves out at each end, rounded down, one at least",
        above=0,
        at_most=0.49,
    )
    answer_timeout: float | None = knob(
        None,
        "seconds that the actor of a site that was asked may be silent; then it is ended and "
        "started anew, as if it had died (resources.site_restarts; default: no limit)",
        above=0,
    )
    replay: str | None = knob(
        None, "events.jsonl of an earlier run, whose order of answers is followed exactly"
    )

    def updates_per_version(self, num_sites: int) -> int:
        """Of a federation of so many sites."""
        return self.buffer_size or min(num_sites, self.cohort_size or num_sites)


@dataclass(frozen=True)
class SimulationConfig:
    """Simulated time: how long sites take, whatever they really take."""

    enabled: bool = knob(False, "deliver answers in simulated order; the run repeats bit for bit")
    duration: Literal["constant", "lognormal", "pareto"] = knob(
        "lognormal", "how the seconds of one request spread about the site's mean"
    )
    spread: float = knob(0.3, "of lognormal its sigma; of pareto 1 / (shape - 1)", above=0)
    seconds: float = knob(60.0, "mean seconds of the fastest site's request", above=0)
    seconds_per_bag: float | None = knob(
        None, "in place of simulation.seconds: times the site's training bags", above=0
    )
    slowest: float = knob(
        1.0, "how many times longer the slowest site takes than the fastest", at_least=1
    )
    durations: str | None = knob(
        None, "CSV site,seconds: durations of every site in turn, in place of all of the above"
    )
    dropout: float = knob(0.0, "chance that a request is lost on the way", at_least=0, at_most=0.95)
    away_seconds: float = knob(600.0, "how long a site that dropped out is away", at_least=0)
    absences: str | None = knob(None, "CSV site,from,until: when sites cannot be reached")
