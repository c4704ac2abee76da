"""A training run's directory: everything that happened, in files that anybody can read.

config.yaml, metrics.jsonl (a line per update), events.jsonl (what the server was told, in order),
tensorboard/, checkpoints/ (``commits``), sites/<name>/scores.parquet,
site_map.json (written by ``site_map``), summary.json and privacy.json (by ``privacy_record``).
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayfed_hn.errors import DataError, FederationError
from rayfed_hn.federation.commits import FOLDER, Commits, check_bags, digest_of, link_of
from rayfed_hn.federation.curves import Curves, finite, metric_records
from rayfed_hn.federation.event_trace import RESUMED, Recorded, verdicts
from rayfed_hn.federation.json_lines import JsonLines
from rayfed_hn.federation.ledger_watch import LedgerWatch
from rayfed_hn.federation.messages import Scores
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.server_state import (
    about_server,
    networks_of,
    resume_server,
    update_digests,
)
from rayfed_hn.federation.source import source_digest
from rayfed_hn.federation.versions import VersionReport
from rayfed_hn.files import clear_partial, write_atomically, write_text
from rayfed_hn.locks import hold
from rayfed_hn.points import EVENTS, METRICS, SUMMARY, reached
from rayfed_hn.run_directory import config_digest
from rayfed_hn.saving import saving

if TYPE_CHECKING:
    from rayfed_hn.federation.plan import Plan

LAST, BEST = "last", "best"
LOCK_SECONDS = 30.0  # a centre may outlive its driver for a moment
_FIRST = ""  # what the first link of the chain hangs on


class RunRecord:
    """Writes the directory of a training run, and takes up what was committed there.

    Args:
        folder: The run directory.
        plan: The run.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self._data_digest, self._config_digest = plan.digest, config_digest(plan.config)
        self._commits = Commits(folder, plan.config.run.keep_commits)
        self._metrics = JsonLines(folder / "metrics.jsonl")
        self._events = JsonLines(folder / "events.jsonl")
        self._best_metric, self._best_version = -1.0, None
        self._chain = _FIRST
        self._ledgers = LedgerWatch()
        self._curves = Curves(folder / "tensorboard", 0)

    def resume(self, server: Server, executor: Recorded) -> bool:
        """Put server and executor where the last commit left them. Returns whether there was one.

        What is in flight is asked again. Lines of versions that were never committed are dropped;
        they will be made again.

        Raises:
            DataError: No commit can be used, it is of another federation, or the bag store has
                changed: other bags would be dealt to other folds, and test cases have been trained
                on.
            FederationError: Another process writes here.
        """
        self._lock()
        commit, damaged = self._commits.newest()
        if commit is None:
            return False
        about = commit.about
        check_bags(self.folder, commit, self._data_digest)
        if about["config"] != self._config_digest:
            raise DataError(
                f"{self.folder}: its commits are of another configuration; if config.yaml was "
                "edited, undo that, or start again with another run.dir"
            )
        again = resume_server(server, commit)
        executor.begin_at(about["seconds"], about["clock"])
        self._best_metric, self._best_version = about["best_metric"], about["best_version"]
        self._chain = about["chain"]
        self._ledgers = LedgerWatch(about["ledgers"], about["ledgers_back"])
        self._curves = Curves(self.folder / "tensorboard", server.version)
        self._commits.go_back(server.version)
        if self._best_version is not None:
            self._commits.name(BEST, self._best_version)
        for lines in (self._metrics, self._events):
            lines.keep_until(server.version)
        self._events.append([
            RESUMED
            | {
                "made": server.version,
                "time": about["seconds"],
                "damaged": [asdict(one) for one in damaged],
                "other_code": about["code"] != source_digest(),
                "asked_again": again,
            }
        ])  # fmt: skip
        return True

    def begin(self, server: Server, first_event: Mapping[str, Any]) -> None:
        """Commit version 0.

        Raises:
            DataError: It cannot be written.
            FederationError: Another process writes here.
        """
        self._lock()
        for lines in (self._metrics, self._events):
            lines.keep(lambda record: False)  # of a run that was cut before its first commit
        self._events.append([{**first_event, "made": 0}])
        self._commit(server, 0.0, {}, [])

    def _lock(self) -> None:
        holder = hold(self.folder / FOLDER / "lock", LOCK_SECONDS)
        if holder is not None:
            raise FederationError(
                f"{self.folder}: {holder} commits here, and has for {LOCK_SECONDS:.0f} s; it is "
                "the centre of another run, or one that outlived its driver: end it, then give the "
                "same command again"
            )
        for pattern in ("metrics.jsonl", "events.jsonl"):
            clear_partial(self.folder, f".{pattern}")

    def commit(self, server: Server, report: VersionReport, executor: Recorded) -> None:
        """Record a version: its lines first, the commit that vouches for them last.

        Raises:
            DataError: It cannot be written; the commit before is still there.
        """
        records = metric_records(report)
        self._metrics.append(records)
        reached(METRICS)
        events = executor.take()
        lines = [*events, *verdicts(report, events)]
        self._events.append([{**event, "made": report.version} for event in lines])
        reached(EVENTS)
        self._curves.add(records, report.mean_validation_metric)
        # These metrics belong to the version before, whose commit is still the last one on disk.
        # Some sites, or older networks, say nothing about it.
        if len(report.updates) == report.num_alive and not any(report.staleness):
            self._keep_if_best(report.version - 1, report.mean_validation_metric)
        self._ledgers.see(report.updates)
        self._commit(server, report.time, executor.state(), update_digests(report.updates))

    def finish(self, version: int, scores: Sequence[Scores]) -> None:
        """Take the metrics of the final version; without any ever, the last version is the best."""
        defined = [s.validation_metric for s in scores if s.validation_metric is not None]
        self._keep_if_best(version, sum(defined) / len(defined) if defined else None)
        if self._best_version is None:
            self._commits.name(BEST, version)
        self._curves.close()

    def _keep_if_best(self, version: int, mean_value: float | None) -> None:
        if mean_value is not None and mean_value >= self._best_metric:
            self._best_metric, self._best_version = mean_value, version
            self._commits.name(BEST, version)

    def _commit(
        self,
        server: Server,
        seconds: float,
        clock: Mapping[str, Any],
        updates: Sequence[Mapping[str, Any]],
    ) -> None:
        state = server.state()
        digest = digest_of(state)
        self._chain = link_of(self._chain, digest)
        networks, in_flight = networks_of(server)
        about = {
            "version": server.version,
            "seconds": seconds,
            **about_server(server),
            "in_flight": in_flight,
            "buffer": [],  # a version empties it, and commits are made of versions alone
            "clock": dict(clock),
            "updates": list(updates),
            **self._ledgers.about,
            "best_version": self._best_version,
            "best_metric": self._best_metric,
            "config": self._config_digest,
            "code": source_digest(),
            "data": self._data_digest,
            "digest": digest,
            "chain": self._chain,
        }
        self._commits.write(server.version, state | networks, about, self._data_digest)

    def scores(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write ``sites/<name>/scores.parquet`` for every hospital that has test scores."""
        by_site: dict[str, list[Mapping[str, Any]]] = {}
        for record in records:
            by_site.setdefault(record["site"], []).append(record)
        for site, rows in by_site.items():
            write_table(self.folder / "sites" / site / "scores.parquet", rows, drop=("site",))


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], drop: tuple[str, ...] = ()) -> None:
    """Write records as Parquet, whole or not at all."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    table = table.drop_columns([name for name in drop if name in table.column_names])
    with saving(path):
        write_atomically(path, lambda temporary: pq.write_table(table, temporary))


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``."""
    write_record(folder / "summary.json", summary)
    reached(SUMMARY)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all; a value that it does not have (NaN) becomes null."""
    with saving(path):
        write_text(path, json.dumps(_clean(record), indent=2) + "\n")


def package_versions() -> dict[str, str]:
    """What a reader needs to repeat a run."""
    names = ("rayfed_hn", "ray", "torch", "numpy", "pyarrow", "openslide-python", "scikit-image")
    return {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in names}


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return finite(value) if isinstance(value, float) else value
