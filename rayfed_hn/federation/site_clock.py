"""How long sites take and when they are there, in simulated seconds.

Everything is drawn from (seed, purpose, site, turn), so it does not depend on what else happens.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist

import numpy as np

from rayfed_hn.config import SimulationConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.seeds import derive


@dataclass(frozen=True)
class Work:
    """What becomes of one request.

    Attributes:
        seconds: From the request to the answer, or to the moment at which the site drops out.
        back_at: None if it answers; else the moment at which the site is back.
    """

    seconds: float
    back_at: float | None = None


class SiteClock:
    """Durations, drop-out and availability of every site.

    A site's mean duration is ``seconds`` (or ``seconds_per_bag`` times its training bags) times its
    own slowness, which spreads evenly in the logarithm from 1 to ``slowest`` over the sites in the
    order of a draw; the duration of a request spreads about that mean as ``duration`` says.

    Args:
        config: ``simulation``.
        num_bags: Training bags of every site.
        seed: The run's.

    Raises:
        ConfigError: The trace file cannot be used.
    """

    def __init__(self, config: SimulationConfig, num_bags: Mapping[str, int], seed: int) -> None:
        self._config = config
        self._seed = seed
        sites = sorted(num_bags)
        order = np.random.Generator(np.random.Philox(derive(seed, "slowness"))).permutation(
            len(sites)
        )
        steps = max(1, len(sites) - 1)
        self._mean = {
            site: config.slowest ** (float(place) / steps) * self._seconds(num_bags[site])
            for site, place in zip(sites, order, strict=True)
        }
        self._trace = _read_trace(config.durations, sites) if config.durations else {}
        self._absent = _read_absences(config.absences, sites) if config.absences else {}

    def _seconds(self, num_bags: int) -> float:
        per_bag = self._config.seconds_per_bag
        return self._config.seconds if per_bag is None else per_bag * num_bags

    def work(self, site: str, turn: int, now: float) -> Work:
        """What becomes of a request that is sent now."""
        seconds = self.duration(site, turn)
        leaves = self._next_absence(site, now)
        if leaves is not None and leaves[0] < now + seconds:
            return Work(max(0.0, leaves[0] - now), leaves[1])
        chance, share = self._draws("drop-out", site, turn, 2)
        if chance < self._config.dropout:
            return Work(share * seconds, now + share * seconds + self._config.away_seconds)
        return Work(seconds)

    def duration(self, site: str, turn: int) -> float:
        """Seconds of undisturbed work."""
        if site in self._trace:
            values = self._trace[site]
            return values[turn % len(values)]
        mean, spread = self._mean[site], self._config.spread
        (draw,) = self._draws("duration", site, turn, 1)
        if self._config.duration == "lognormal":
            return mean * math.exp(spread * NormalDist().inv_cdf(draw) - spread**2 / 2)
        if self._config.duration == "pareto":  # shape 1 + 1/spread, so that the mean exists
            shape = 1 + 1 / spread
            return mean * (shape - 1) / shape * (1 - draw) ** (-1 / shape)
        return mean

    def _next_absence(self, site: str, now: float) -> tuple[float, float] | None:
        """The absence that lasts now or begins next, (from, until)."""
        spans = self._absent.get(site, [])
        place = bisect_right([until for _, until in spans], now)
        return spans[place] if place < len(spans) else None

    def _draws(self, purpose: str, site: str, turn: int, count: int) -> list[float]:
        rng = np.random.Generator(np.random.Philox(derive(self._seed, purpose, site, turn)))
        return [float(value) for value in rng.uniform(1e-12, 1, count)]


def _read_trace(path: str, sites: Sequence[str]) -> dict[str, list[float]]:
    rows = _read_rows(path, "simulation.durations", ("site", "seconds"), sites)
    trace: dict[str, list[float]] = {}
    for site, seconds in rows:
        if not 0 < seconds[0] < math.inf:
            raise ConfigError(
                f"simulation.durations: {path}: seconds of {site} are {seconds[0]:g}; they must be "
                "above 0 and finite"
            )
        trace.setdefault(site, []).append(seconds[0])
    if missing := sorted(set(sites) - trace.keys()):
        raise ConfigError(f"simulation.durations: {path} has no line of {missing[0]}; add one")
    return trace


def _read_absences(path: str, sites: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    rows = _read_rows(path, "simulation.absences", ("site", "from", "until"), sites)
    spans: dict[str, list[tuple[float, float]]] = {}
    for site, (start, until) in rows:
        if not 0 <= start < until:
            raise ConfigError(f"simulation.absences: {path}: {site}: from must be before until")
        spans.setdefault(site, []).append((start, until))
    for site, own in spans.items():
        own.sort()
        if any(a[1] > b[0] for a, b in pairwise(own)):
            raise ConfigError(f"simulation.absences: {path}: absences of {site} overlap; join them")
    return spans


def _read_rows(
    path: str, key: str, columns: tuple[str, ...], sites: Sequence[str]
) -> list[tuple[str, list[float]]]:
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != columns:
                raise ConfigError(f"{key}: {path} must have the columns {','.join(columns)}")
            rows = [(row["site"], [float(row[c]) for c in columns[1:]]) for row in reader]
    except FileNotFoundError:
        wanted = f"give a CSV with the columns {','.join(columns)}"
        raise ConfigError(f"{key}: {path} does not exist; {wanted}") from None
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ConfigError(f"{key}: {path} cannot be read as a table ({error})") from error
    unknown = sorted({site for site, _ in rows} - set(sites))
    if unknown:
        raise ConfigError(f"{key}: {path} names {unknown[0]}; the sites are {', '.join(sites)}")
    return rows
