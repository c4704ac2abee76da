"""Hands a run on to MLflow or Weights & Biases, through their own clients, where that is asked for.

What is handed on: the settings (without paths), means over sites by version, and the results. No
score of a slide or a case, no name of one, no network. A tracker that cannot be reached costs a
run nothing: calls are made by a thread of their own, and the first that fails is the last.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.files import write_text
from rayfed_hn.reporting.points import points
from rayfed_hn.trees import flatten

Name = Literal["none", "mlflow", "wandb"]
PACKAGES = {"mlflow": "mlflow-skinny", "wandb": "wandb"}
PROJECT = "rayfed-hn"
LAST_SECONDS = 60.0  # that a finished run waits for what is still to be handed on
CUT_SECONDS = 5.0  # one that was interrupted, or failed
_KEPT = "tracking.json"  # which of the tracker's runs this is, for a run that goes on
_PATHS = (
    "data.",
    "run.dir",
    "run.resume",
    "run.track",
    "embed.weights",
    "embed.encoder",
    "simulation.",
    "rounds.replay",
)
# The client would tell of the host, of folders, and of what is printed. One that does not know
# these settings refuses them: nothing is handed on then.
_QUIET = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
}
_Metrics = Mapping[str, float]


class Client(Protocol):
    """A tracker's client. Anything may fail."""

    def begin(self, name: str, settings: Mapping[str, str], known: str | None) -> str:
        """Begin or go on with a run; returns what the tracker knows it by."""
        ...

    def log(self, metrics: _Metrics, step: int) -> None: ...

    def end(self, status: str) -> None: ...


class _MLflow:
    def __init__(self, module: Any, folder: Path) -> None:
        self._mlflow = module

    def begin(self, name: str, settings: Mapping[str, str], known: str | None) -> str:
        if known is None:
            self._mlflow.set_experiment(PROJECT)
            about = {"mlflow.source.name": "rayfed-hn"}  # it would tell the path of the program
            run = self._mlflow.start_run(run_name=name, tags=about)
            self._mlflow.log_params({key: value[:250] for key, value in settings.items()})
        else:
            run = self._mlflow.start_run(run_id=known)
        return run.info.run_id

    def log(self, metrics: _Metrics, step: int) -> None:
        allowed = {re.sub(r"[^\w\-. /]", "_", name): value for name, value in metrics.items()}
        self._mlflow.log_metrics(allowed, step=step)

    def end(self, status: str) -> None:
        words = {"complete": "FINISHED", "degraded": "FINISHED", "interrupted": "KILLED"}
        self._mlflow.set_tag("status", status)
        self._mlflow.end_run(words.get(status, "FAILED"))


class _Wandb:
    def __init__(self, module: Any, folder: Path) -> None:
        self._wandb, self._folder, self._run = module, folder, None

    def begin(self, name: str, settings: Mapping[str, str], known: str | None) -> str:
        again = {} if known is None else {"id": known, "resume": "allow"}
        quiet = self._wandb.Settings(**_QUIET)
        self._run = self._wandb.init(
            project=PROJECT,
            name=name,
            config=dict(settings),
            dir=str(self._folder),
            settings=quiet,
            **again,
        )
        return self._run.id

    def log(self, metrics: _Metrics, step: int) -> None:
        assert self._run is not None
        self._run.log({**metrics, "step": step})  # its own step may not go back

    def end(self, status: str) -> None:
        assert self._run is not None
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status in ("complete", "degraded") else 1)


_CLIENTS: dict[str, Callable[[Any, Path], Client]] = {"mlflow": _MLflow, "wandb": _Wandb}


class Tracker:
    """Takes what is to be handed on, and never waits and never fails.

    Args:
        client: Of the tracker; None: nothing is handed on.
        folder: The run directory.
        config: Of the run.
        verb: What makes it.
    """

    def __init__(self, client: Client | None, folder: Path, config: Config, verb: str) -> None:
        self._client, self._folder = client, folder
        self._status = "complete"
        self._calls: queue.SimpleQueue[Callable[[Client], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        if client is not None:
            name = f"{verb} {folder.name}"
            self._thread.start()
            self._calls.put(lambda client: self._begin(client, name, settings(config)))

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Hand on values of a step; None is left out."""
        known = {name: float(value) for name, value in metrics.items() if value is not None}
        if known and self._client is not None:
            self._calls.put(lambda client: client.log(known, step))

    def results(self, summary: Mapping[str, Any]) -> None:
        """Hand on what a finished run found."""
        if self._client is None:
            return
        self._status = summary["status"]
        self.log(_of_sites(summary), int(summary.get("num_versions", 0)))
        self._calls.put(lambda client: self._curves(client, summary))

    def end(self, status: str | None = None) -> None:
        """Hand on how it ended, and wait a while until everything is.

        Args:
            status: If it did not end as it should; nobody wants to wait long then.
        """
        if self._client is None:
            return
        ended = status or self._status
        self._calls.put(lambda client: client.end(ended))
        self._calls.put(None)
        patience = LAST_SECONDS if status is None else CUT_SECONDS
        self._thread.join(patience)
        if self._thread.is_alive():
            _warn(f"still busy after {patience:.0f} s; the rest is not handed on")

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                assert self._client is not None
                call(self._client)
            except Exception as error:  # of a network, of a server, of an account
                _warn(f"{type(error).__name__}: {error}; nothing more is handed on")
                break

    def _curves(self, client: Client, summary: Mapping[str, Any]) -> None:
        for point in points(self._folder, summary):
            client.log({f"{point.line}/{point.tag}": point.value}, point.step)

    def _begin(self, client: Client, name: str, told: Mapping[str, str]) -> None:
        path = self._folder / _KEPT
        known = json.loads(path.read_text(encoding="utf-8"))["id"] if path.exists() else None
        write_text(path, json.dumps({"id": client.begin(name, told, known)}) + "\n")


@contextmanager
def tracked(config: Config, folder: Path, verb: str) -> Iterator[Tracker]:
    """A tracker for the block; its run ends as the block does."""
    tracker = Tracker(_client(config.run.track, folder), folder, config, verb)
    try:
        yield tracker
    except BaseException as error:
        tracker.end("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    tracker.end()


def check_tracker(name: Name) -> None:
    """Refuse a tracker whose client is not here, before anything starts.

    Raises:
        ConfigError: Says how to install it.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        raise ConfigError(
            f"run.track: {name} is not installed; 'pip install {PACKAGES[name]}' installs it, or "
            "leave run.track out: TensorBoard's files are written in any case"
        )


def settings(config: Config) -> dict[str, str]:
    """The configuration by key, without what names places on this machine."""
    found = flatten(asdict(config))
    return {key: str(value) for key, value in found if not key.startswith(_PATHS)}


def _client(name: Name, folder: Path) -> Client | None:
    return None if name == "none" else _CLIENTS[name](importlib.import_module(name), folder)


def _of_sites(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Mean and worst of the sites' test metric of ``train``, by readout."""
    if summary["verb"] != "train":
        return {}
    found: dict[str, float | None] = {}
    for readout in ("last", "best", "mixture"):
        values = [site.get(f"test_{readout}") for site in summary["sites"]]
        defined = [value for value in values if value is not None]
        if defined:
            name = f"test {summary['metric']}, readout {readout}"
            found |= {f"{name}/mean site": sum(defined) / len(defined)}
            found |= {f"{name}/worst site": min(defined)}
    return found


def _warn(what: str) -> None:
    print(f"warning: run.track: {what}. The run itself goes on", file=sys.stderr, flush=True)
