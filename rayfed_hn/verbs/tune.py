"""The verb that searches for good settings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayfed_hn.progress import Bar, bar, seconds_left
from rayfed_hn.storage.remote import named
from rayfed_hn.verbs.common import (
    before_anything_starts,
    configuration,
    connected,
    existing,
    lasting,
    planned_dir,
    print_placement,
    print_troubles,
    resumable,
    run_dir,
)

if TYPE_CHECKING:
    from rayfed_hn.orchestration.tune_trials import News
    from rayfed_hn.tuning.search import Search


def tune(words: Sequence[str], only_plan: bool = False) -> int:
    """See ``rayfed-hn tune --help``."""
    from rayfed_hn.files import write_text
    from rayfed_hn.reporting.tune_table import tune_table
    from rayfed_hn.tuning.search import Search
    from rayfed_hn.tuning.search import words as about

    config = configuration(words, only_plan=only_plan)
    root = existing(
        config.data.bags, "data.bags", "make the bag store with 'rayfed-hn embed' first"
    )
    root = lasting(root, "data.bags")
    if config.tune.search == "optuna":
        from rayfed_hn.orchestration.tune_optuna import check_optuna

        check_optuna()
    with before_anything_starts():
        search = Search.of(config, root)
    print(about(search))
    for note in (*search.plan.notes, *search.notes()):
        print(f"note: {note}")
    folder = planned_dir(config, "tune")
    with resumable() as going_on, connected(config):
        from rayfed_hn.orchestration.tune_actors import placement

        print_placement(placement(search))
        if only_plan:
            return 0
        run_dir(config, "tune", folder)
        again = f"the same command with run.dir={named(folder)} run.resume=true goes on"
        going_on.how = f"{again}, and so does 'rayfed-hn resume {named(folder)}'"
        summary = _run(search, root, folder)
    table = tune_table(summary)
    write_text(folder / "table.md", table)
    print("\n" + table)
    print_troubles(summary)
    for failed in summary["failed_trials"]:
        print(f"missing: trial {failed['trial']}: {failed['reason']}")
    print(f"\nTrain with the best setting: rayfed-hn train {folder / 'best.yaml'}")
    print(f"Run directory: {named(folder)}. Pictures: rayfed-hn report {named(folder)}")
    return summary["exit_code"]


def _run(search: Search, root: Path, folder: Path) -> dict[str, Any]:
    from rayfed_hn.orchestration.tune import conclude, try_all

    with bar("trials", search.num_trials) as progress:
        records = try_all(search, root, folder, _Shown(search, progress).hear)
    total = search.num_finals(records)
    if not total:
        return conclude(search, records, root, folder, lambda done, _: None)
    with bar("testing on other divisions", total) as progress:
        return conclude(search, records, root, folder, lambda done, _: progress.update(done))


class _Shown:
    """Progress of all trials, and a line for each that ends."""

    def __init__(self, search: Search, progress: Bar) -> None:
        self._search, self._bar = search, progress
        self._share: dict[int, float] = {}  # of every trial that is at work
        self._first: dict[int, tuple[int, float]] = {}  # version that it told of first, and when

    def hear(self, done: int, news: News | None) -> None:
        if news is None:
            self._bar.update(done, share=done / self._search.num_trials)
            return
        number, settings = news.trial.number, news.trial.settings
        versions = settings.get("rounds.num_versions", self._search.config.rounds.num_versions)
        self._share[number] = 0.0 if news.record is not None else news.version / (versions + 1)
        share = (done + sum(self._share.values())) / self._search.num_trials
        if news.record is not None:
            self._bar.update(done, _ended(news), share=share, line=True)
            return
        note = f"trial {number}: version {news.version}/{versions}, validation {_number(news)}"
        self._bar.update(done, note + self._left(news, versions), share=share)

    def _left(self, news: News, versions: int) -> str:
        """When this trial will be done, if its other versions take as long as those so far."""
        number, now = news.trial.number, time.monotonic()
        version, told = self._first.get(number, (news.version, now))
        if news.version <= version:  # its first word, or that of a process that was started anew
            self._first[number] = news.version, now
            return ""
        left = (now - told) / (news.version - version) * (versions - news.version)
        return f", {seconds_left(left)}" if left else ""


def _ended(news: News) -> str:
    from rayfed_hn.tuning.trials import told

    assert news.record is not None
    status = news.record["status"]
    if status == "failed":
        status = f"failed: {news.record['reason']}"
    elif status == "stopped":
        status = f"stopped at version {news.version}"
    return f"trial {news.trial.number}: {told(news.trial.settings)}: {_number(news)} ({status})"


def _number(news: News) -> str:
    return "undefined" if news.metric is None else f"{news.metric:.3f}"
