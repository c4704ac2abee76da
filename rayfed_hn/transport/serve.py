"""The server of a run whose sites are elsewhere: waits for them, trains, and closes the books."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, FederationError, RayfedError
from rayfed_hn.federation.centre import Centre, Progress, Result
from rayfed_hn.federation.faults import Faults
from rayfed_hn.federation.history import history
from rayfed_hn.federation.plan import Plan, plan_of
from rayfed_hn.federation.privacy_record import write_privacy
from rayfed_hn.federation.record import write_summary
from rayfed_hn.federation.run_summary import failure_of, summary_of
from rayfed_hn.federation.survey import merge, task_of_cards
from rayfed_hn.run_directory import run_id
from rayfed_hn.transport.agreement import check_possible, settings, stated_task
from rayfed_hn.transport.care import Care
from rayfed_hn.transport.executor import TransportExecutor
from rayfed_hn.transport.frames import Ending
from rayfed_hn.transport.greetings import Welcome
from rayfed_hn.transport.links import Transport
from rayfed_hn.transport.reception import CardFolder, Reception
from rayfed_hn.transport.requests import answer_bytes

CARDS = "cards"  # folder in the run directory


def check_sites(config: Config, sites: Sequence[str]) -> None:
    """Refuse what cannot be served.

    Raises:
        ConfigError: Names the option or the key.
    """
    check_possible(config)
    if len(set(sites)) != len(sites) or not sites:
        raise ConfigError(f"--sites: got {','.join(sites)!r}; name every site once")
    if left_out := sorted(set(sites) & set(config.data.leave_out)):
        raise ConfigError(f"data.leave_out: {left_out[0]} is among --sites; take it out of one")


class Service:
    """One run, as the process of its server.

    Args:
        config: Of the run.
        folder: The run directory.
        sites: Who takes part.
        transport: Streams of the sites.
        tell: Called with what the operator should know, in a line.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        sites: Sequence[str],
        transport: Transport,
        tell: Callable[[str], object] = print,
    ) -> None:
        self._config, self._folder, self._transport = config, folder, transport
        task = stated_task(config)
        classes = () if task.kind == "survival" else task.names
        self._run = run_id(folder)
        self._reception = Reception(
            transport,
            sites,
            Welcome(self._run, settings(config)),
            classes,
            CardFolder(folder / CARDS, classes),
            tell,
        )

    def gather(self) -> Plan:
        """Wait for the cards of all sites, and make the plan.

        Raises:
            FederationError: Some did not come.
            DataError, ConfigError: What they have does not fit together.
        """
        try:
            self._reception.gather(self._config.resources.node_limit)
            cards = list(self._reception.cards.values())
            found = merge(self._config, cards, task_of_cards(self._config, cards))
            # There are no bags here: nothing may look for them.
            plan = plan_of(found, self._config, self._folder / "no-bags-here")
            plan = replace(plan, run_id=self._run, apart=True)
            plan.check()
            self._reception.keep()
        except (RayfedError, OSError):
            self._reception.close(Ending.FAILED)
            raise
        for site, _ in found.set_aside:
            if site not in found.hospitals:
                self._reception.dismiss(site, Ending.NO_PART)
        self._transport.allow(answer_bytes(plan))
        return plan

    def run(self, plan: Plan, on_version: Callable[[Progress], object]) -> dict[str, Any]:
        """Train, write the run directory, and return the summary.

        Raises:
            FederationError: The run cannot go on.
            DataError: The run directory cannot be used.
        """
        begun, faults = time.monotonic(), Faults(self._folder)
        try:
            result = self._train(plan, faults, on_version)
        except RayfedError as error:
            seconds = time.monotonic() - begun
            write_summary(self._folder, failure_of(plan, error, faults, seconds))
            self._reception.close(Ending.FAILED)
            raise
        self._reception.close(Ending.FINISHED)
        summary = summary_of(plan, result, faults, time.monotonic() - begun)
        summary |= history(self._folder, plan.config.run.keep_commits)
        write_summary(self._folder, summary)
        write_privacy(self._folder, summary)
        with suppress(KeyboardInterrupt):  # all is written; whoever is in a hurry may go
            self._reception.linger(result.best_versions, plan.config.resources.node_wait)
        return summary

    def _train(
        self, plan: Plan, faults: Faults, on_version: Callable[[Progress], object]
    ) -> Result:
        calls = TransportExecutor(
            self._reception, plan.participants, plan.read, Care.of(plan.config)
        )
        resume = plan.config.run.resume
        centre = Centre(plan, self._folder, calls, calls.restarts, resume)
        if centre.start() > 0:
            self._reception.begin(plan.participants)
        for news in centre.run():
            faults.note(news.restarts)
            if isinstance(news, Result):
                return news
            on_version(replace(news, restarts=faults.restarts))
        raise FederationError("the run ended without a result")
