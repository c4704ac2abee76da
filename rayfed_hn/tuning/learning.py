"""One trial: its setting is trained on several divisions of the cases, all of them in step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rayfed_hn.config import Config
from rayfed_hn.errors import FederationError
from rayfed_hn.federation.experiment import prepare
from rayfed_hn.federation.loop import (
    Executor,
    InProcessExecutor,
    last_validation,
    run_federation,
)
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.tuning.trials import divisions, on_division


@dataclass(frozen=True)
class Judged:
    """How good the networks of one version are.

    Attributes:
        version: Of the networks that sites were sent (of the last updates, where they differ).
        by_division: Validation metric of every division, mean over sites; None where undefined.
        last: Whether no version follows.
    """

    version: int
    by_division: tuple[float | None, ...]
    last: bool = False

    @property
    def mean(self) -> float | None:
        """Mean over divisions; None unless all are defined: others would be easier or harder."""
        values = [value for value in self.by_division if value is not None]
        return sum(values) / len(values) if len(values) == len(self.by_division) else None


class Learning:
    """The federations of one trial, a version at a time.

    No test case is ever scored: the settings are chosen by what comes out.

    Args:
        config: Of the trial.
        root: The bag store; bags are mapped into memory, and shared with other trials.

    Attributes:
        plans: Of every division.
    """

    def __init__(self, config: Config, root: Path) -> None:
        self.plans = [
            make_plan(on_division(config, seed, fold), root) for seed, fold in divisions(config)
        ]

    def check_bags(self, num_bags: Mapping[str, tuple[int, int, int]]) -> None:
        """Refuse a setting with which other bags are judged than with other settings.

        Args:
            num_bags: Of every site on the first division, with the configuration as it was given.

        Raises:
            FederationError: Its metric could not be compared with theirs.
        """
        own = self.plans[0].num_bags
        for site in sorted(own.keys() | num_bags.keys()):
            if own.get(site) != num_bags.get(site):
                raise FederationError(
                    f"with this setting {site} has {_three(own.get(site))} bags for training, "
                    f"validation and test, as configured {_three(num_bags.get(site))}: its metric "
                    "is of other bags than that of other trials"
                )

    @property
    def epsilon(self) -> float | None:
        """The largest that a run with these settings would promise; None without a guarantee."""
        found = [plan.promise().get("epsilon") for plan in self.plans]
        return None if None in found else max(found)  # type: ignore[type-var]

    def __iter__(self) -> Iterator[Judged]:
        """With all sites in this process."""
        hosts = [SiteHost(plan, plan.participants) for plan in self.plans]
        yield from self.on(
            [
                InProcessExecutor(*one)
                for one in zip(hosts, (p.read for p in self.plans), strict=True)
            ]
        )

    def on(self, executors: Sequence[Executor], device: str = "cpu") -> Iterator[Judged]:
        """With sites wherever the executors have them.

        Args:
            executors: One a division.
            device: Of the servers.
        """
        torch.set_num_threads(1)
        runs = [
            _run(plan, executor, device)
            for plan, executor in zip(self.plans, executors, strict=True)
        ]
        version = 0
        while True:
            values = [next(run, _ENDED) for run in runs]
            if any(value is _ENDED for value in values):
                return
            last = version == self.plans[0].config.rounds.num_versions
            yield Judged(version, tuple(values), last)
            version += 1


_ENDED: Any = object()


def _three(counts: tuple[int, int, int] | None) -> str:
    return "no" if counts is None else " + ".join(map(str, counts))


def _run(plan: Plan, inner: Executor, device: str) -> Iterator[float | None]:
    """The validation metric of every version from 0 to the last."""
    server = plan.server(device)
    executor = plan.executor(inner)
    prepare(plan, server, executor)
    for report in run_federation(server, executor):
        _check_all_there(server)
        yield report.mean_validation_metric
    last = last_validation(server, executor)
    _check_all_there(server)
    yield last


def _check_all_there(server: Server) -> None:
    """Without a site the metric is of other bags than that of other trials."""
    for loss in server.lost:
        if not loss.returns:
            raise FederationError(
                f"site {loss.site} was lost at version {loss.version}: {loss.reason}"
            )
