"""Settings of rounds, simulated time and methods that cannot go together."""

from __future__ import annotations

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError


def check_rounds(config: Config) -> None:
    """Raise ``ConfigError`` at the first combination that is impossible or without effect."""
    for bad, words in (*_estimate(config), *_time(config)):
        if bad:
            raise ConfigError(words)


def _estimate(config: Config) -> list[tuple[bool, str]]:
    rounds, estimate = config.rounds, config.hypernetwork.estimate
    needs = (
        f"hypernetwork.estimate={estimate}: compares the sites of a complete round; leave "
        "rounds.{key} unset, or set hypernetwork.estimate=none and hypernetwork.rho"
    )
    waits = {"buffer_size": rounds.buffer_size is None, "deadline": rounds.deadline is None}
    return [(estimate != "none" and not fine, needs.format(key=key)) for key, fine in waits.items()]


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
            "rounds.replay: follows the order of another run, and simulated time makes its own; "
            "set simulation.enabled=false",
        ),
        (
            rounds.replay is not None and config.run.resume,
            "rounds.replay: cannot be resumed; start it again in a new run.dir",
        ),
        (
            rounds.min_sites > 1 and rounds.deadline is None,
            f"rounds.min_sites: got {rounds.min_sites}, which counts at a deadline; set "
            "rounds.deadline",
        ),
    ]
