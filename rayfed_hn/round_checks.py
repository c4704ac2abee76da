"""Settings of rounds, simulated time and methods that cannot go together."""

from __future__ import annotations

from rayfed_hn.config import FEWEST_VOTES, Config
from rayfed_hn.errors import ConfigError


def check_rounds(config: Config) -> None:
    """Raise ``ConfigError`` at the first combination that is impossible, or plainly idle."""
    for bad, words in (*_estimate(config), *_robust(config), *_time(config)):
        if bad:
            raise ConfigError(words)


def _estimate(config: Config) -> list[tuple[bool, str]]:
    rounds, estimate = config.rounds, config.hypernetwork.estimate
    needs = (
        f"hypernetwork.estimate={estimate}: compares the sites of a complete round; leave "
        "rounds.{key} unset, or set hypernetwork.estimate=none and hypernetwork.rho"
    )
    waits = {"buffer_size": rounds.buffer_size is None, "deadline": rounds.deadline is None}
    features = config.hypernetwork.features
    return [
        *((estimate != "none" and not fine, needs.format(key=key)) for key, fine in waits.items()),
        (
            estimate != "none" and features != "fixed",
            f"hypernetwork.features={features}: with hypernetwork.estimate={estimate} embeddings "
            "are learned from the updates; leave it at fixed",
        ),
    ]


def _robust(config: Config) -> list[tuple[bool, str]]:
    rounds, hypernetwork = config.rounds, config.hypernetwork
    robust, method = rounds.robust, config.method.name
    few = [
        (
            robust != "none" and size is not None and size < FEWEST_VOTES,
            f"rounds.{key}={size}: of fewer than {FEWEST_VOTES} sites nobody can be outvoted; "
            f"raise it, or set rounds.robust={robust} to none",
        )
        for key, size in (("cohort_size", rounds.cohort_size), ("buffer_size", rounds.buffer_size))
    ]
    return [
        *few,
        (
            robust != "none" and hypernetwork.estimate != "none",
            f"rounds.robust={robust}: hypernetwork.estimate={hypernetwork.estimate} learns how "
            "sites differ from all that they send; set one of the two to none",
        ),
        (
            robust == "median" and method.startswith("pfedhn"),
            f"rounds.robust=median: would make the updates of all sites one, and {method} has "
            "nothing else to tell them apart by; use trimmed_mean or norm_bound",
        ),
    ]


def _time(config: Config) -> list[tuple[bool, str]]:
    rounds, simulation = config.rounds, config.simulation
    unused = [
        (
            getattr(simulation, key) is not None and not simulation.enabled,
            f"simulation.{key}: has no effect without simulation.enabled=true",
        )
        for key in ("durations", "absences", "seconds_per_bag")
    ]
    return [
        *unused,
        (
            rounds.replay is not None and simulation.enabled,
            f"rounds.replay={rounds.replay}: simulated time makes an order of its own, which the "
            "same settings repeat; leave rounds.replay unset",
        ),
        (
            rounds.replay is not None and config.run.resume,
            "rounds.replay: cannot be resumed; start it again in a new run.dir",
        ),
        (
            rounds.cohort_size is not None and rounds.min_sites > rounds.cohort_size,
            f"rounds.min_sites: got {rounds.min_sites}, more than rounds.cohort_size="
            f"{rounds.cohort_size} that are asked at a time",
        ),
        (
            simulation.dropout > 0 and not simulation.enabled,
            "simulation.dropout: has no effect without simulation.enabled=true",
        ),
    ]
