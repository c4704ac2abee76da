"""Trials on Ray Tune: each trains in a process of its own and tells how good every version is."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.logger import TBXLoggerCallback
from ray.tune.schedulers import ASHAScheduler

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, DataError, FederationError, NoRoom
from rayfed_hn.orchestration.packing import Cluster, Packing
from rayfed_hn.orchestration.resources import num_cpus
from rayfed_hn.orchestration.tune_actors import bundles, on_actors, share
from rayfed_hn.orchestration.tune_optuna import optuna_search
from rayfed_hn.orchestration.tune_quiet import quiet
from rayfed_hn.tuning.learning import Learning
from rayfed_hn.tuning.records import FOLDER, record_of
from rayfed_hn.tuning.search import Search
from rayfed_hn.tuning.trials import Trial, check_trial, trial_config

METRIC = "validation_metric"
_VERSION = "version"
_UNDEFINED = math.nan  # Ray Tune wants a number
_KEEP = 3  # asha: one of so many goes on
_TELLABLE = (ConfigError, FederationError)  # any other text may name a slide


@dataclass(frozen=True)
class News:
    """A trial has told of a version, or has ended.

    Attributes:
        trial: Which.
        version: The last one that was judged; -1: none was.
        metric: Its validation metric; None where undefined.
        record: Of a trial that has ended.
    """

    trial: Trial
    version: int
    metric: float | None
    record: Mapping[str, Any] | None = None


def run_trials(
    search: Search,
    root: Path,
    folder: Path,
    missing: Sequence[Trial],
    records: Sequence[Mapping[str, Any]],
    on_news: Callable[[News], object],
) -> None:
    """Run trials until all have ended.

    Args:
        search: Of which they are.
        root: The bag store.
        folder: The run directory; Ray Tune works in its ``trials``.
        missing: Those that are to be run; of a search that follows from results they are not known.
        records: Of the trials that have ended before.
        on_news: Called in this process after every version of every trial, and when one ends.
    """
    config = search.config
    known = _Known(max((r["trial"] for r in records), default=-1) + 1)
    packing, at_a_time = _share(search)
    how = _how(search, records, at_a_time)
    plain = [_plain(trial) for trial in missing]
    param_space = {} if search.adaptive else {"trial": tune.grid_search(plain)}

    num_bags = search.num_bags

    def train(chosen: dict[str, Any]) -> None:
        _train(config, root, _settings_of(chosen), num_bags, packing)

    with quiet():
        tune.Tuner(
            tune.with_resources(train, {"cpu": 1} if packing is None else bundles(packing)),
            param_space=param_space,
            tune_config=tune.TuneConfig(**how),
            run_config=tune.RunConfig(
                name=_attempt(folder),
                storage_path=str(folder / FOLDER),
                callbacks=[_Teller(config, known, on_news), TBXLoggerCallback()],
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
            ),
        ).fit()


def _share(search: Search) -> tuple[Packing | None, int]:
    """The actors of a trial, if it has some, and how many trials run at a time."""
    config = search.config
    if config.tune.actors:
        return share(search, Cluster.joined(config))
    cores = num_cpus(config)  # each trial has one
    return None, min(config.tune.max_concurrent or cores, cores)


def _how(search: Search, records: Sequence[Mapping[str, Any]], at_a_time: int) -> dict[str, Any]:
    """What Ray Tune is told of the search, but for its space."""
    how: dict[str, Any] = {"trial_name_creator": _name, "trial_dirname_creator": _name}
    how |= {"scheduler": _scheduler(search.config), "max_concurrent_trials": at_a_time}
    # To start a process takes seconds; but one whose trial was stopped may still be at work on it.
    how |= {"reuse_actors": search.config.tune.scheduler == "none"}
    if search.adaptive:
        how |= {"num_samples": search.num_trials - len(records)}
        how |= {"search_alg": optuna_search(search, records)}
    return how


def _scheduler(config: Config) -> Any:
    if config.tune.scheduler == "none":
        return None
    versions = config.rounds.num_versions
    return ASHAScheduler(
        time_attr=_VERSION,
        metric=METRIC,
        mode="max",
        max_t=versions + 1,  # the last version is always told
        grace_period=max(1, versions // 4),
        reduction_factor=_KEEP,
    )


def _train(
    config: Config,
    root: Path,
    settings: Mapping[str, Any],
    num_bags: Mapping[str, tuple[int, int, int]],
    packing: Packing | None,
) -> None:
    """Runs in a process of the trial's own.

    What goes wrong is told and not raised: Ray Tune would write the traceback into the run
    directory, and it may name a slide.
    """
    begun = time.monotonic()
    try:
        check_trial(config, Trial(0, settings))  # of Optuna's nobody has seen any before
        learning = Learning(trial_config(config, settings), root)
        learning.check_bags(num_bags)
        about = {"epsilon": learning.epsilon}
        for judged in learning if packing is None else on_actors(learning, packing):
            metric = _UNDEFINED if judged.mean is None else judged.mean
            told = {_VERSION: judged.version, METRIC: metric, "last": judged.last}
            told |= {"by_division": list(judged.by_division)}
            told |= {"seconds": round(time.monotonic() - begun, 2)}
            tune.report({**told, **about})
    except Exception as error:
        tune.report({_VERSION: 0, METRIC: _UNDEFINED, "last": True, "reason": _reason(error)})


def _reason(error: Exception) -> str:
    if isinstance(error, _TELLABLE) and not isinstance(error, DataError):
        return str(error)
    return f"{type(error).__name__}; 'rayfed-hn train' with these settings says more"


class _Teller(tune.Callback):
    """Makes records of what trials tell; runs where the search was started.

    Args:
        config: Of the search.
        known: Tells trials apart.
        on_news: Called with everything.
    """

    def __init__(self, config: Config, known: _Known, on_news: Callable[[News], object]) -> None:
        self._config, self._known, self._on_news = config, known, on_news
        self._curves: dict[str, list[float | None]] = {}
        self._last: dict[str, Mapping[str, Any]] = {}
        self._error: Exception | None = None
        self._limit = config.resources.start_limit
        self._busy = time.monotonic()  # when some trial was last at work

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._last[trial.trial_id] = result
        if "reason" in result:
            return
        metric = None if math.isnan(result[METRIC]) else result[METRIC]
        curve = self._curves.setdefault(trial.trial_id, [])
        del curve[result[_VERSION] :]  # of a process that was started anew
        curve.append(metric)
        self._tell(News(self._known(trial), result[_VERSION], metric))

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        now = time.monotonic()
        if any(trial.status == "RUNNING" for trial in trials):
            self._busy = now
        elif now - self._busy > self._limit and trials:
            raise NoRoom(_no_room(trials[-1], self._limit))  # Ray Tune would wait for ever
        if self._error is not None:  # Ray Tune only logs what is raised when a trial ends
            raise self._error

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        result = self._last.get(trial.trial_id, {})
        if "reason" in result:
            self._end(trial, "failed", result)
        elif result.get("last"):
            self._end(trial, "finished", result)
        elif self._config.tune.scheduler == "none":  # nobody is there to stop it
            self._end(trial, "failed", {"reason": "it ended before its last version"})
        else:
            self._end(trial, "stopped", result)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._end(trial, "failed", {"reason": "its process died"})

    def _end(self, trial: Any, status: str, result: Mapping[str, Any]) -> None:
        own, curve = self._known(trial), self._curves.get(trial.trial_id, [])
        record = record_of(own, self._config, status=status, curve=curve, about=result)
        self._tell(News(own, len(curve) - 1, record[METRIC], record))

    def _tell(self, news: News) -> None:
        if self._error is None:
            try:
                self._on_news(news)
            except Exception as error:
                self._error = error

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune pickles callbacks with its own state, which nobody reads."""
        return {}


class _Known:
    """Which of our trials is which of Ray Tune's.

    Args:
        first: Number of the first one whose settings follow from results.
    """

    def __init__(self, first: int) -> None:
        self._next = itertools.count(first)
        self._trials: dict[str, Trial] = {}

    def __call__(self, trial: Any) -> Trial:
        if trial.trial_id not in self._trials:
            number = (
                trial.config["trial"]["number"] if _is_plain(trial.config) else next(self._next)
            )
            self._trials[trial.trial_id] = Trial(number, _settings_of(trial.config))
        return self._trials[trial.trial_id]


def _no_room(trial: Any, seconds: float) -> str:
    asked, free = trial.placement_group_factory.required_resources, ray.available_resources()
    names = [name for name in ("CPU", "GPU") if asked.get(name)]
    wanted = " and ".join(f"{asked[name]:g} {name}" for name in names)
    there = " and ".join(f"{free.get(name, 0.0):g} {name}" for name in names)
    return (
        f"resources: no trial could start within {seconds:g} s; one asks for {wanted}, and "
        f"of the cluster's {there} are free; wait for others, or ask for less (resources.cpus, "
        "resources.gpus_per_site, resources.sites_per_actor, tune.actors=false); "
        "resources.start_limit waits longer"
    )


def _name(trial: Any) -> str:
    """Of the folder that Ray Tune logs in."""
    plain = trial.config.get("trial")
    return f"trial-{trial.trial_id}" if plain is None else Trial(**plain).name


def _plain(trial: Trial) -> dict[str, Any]:
    return {"number": trial.number, "settings": dict(trial.settings)}


def _is_plain(chosen: Mapping[str, Any]) -> bool:
    return "trial" in chosen


def _settings_of(chosen: Mapping[str, Any]) -> dict[str, Any]:
    return dict(chosen["trial"]["settings"] if _is_plain(chosen) else chosen)


def _attempt(folder: Path) -> str:
    """A name that Ray Tune has not used here: it takes up nothing, since records are ours."""
    number = 1
    while (folder / FOLDER / f"attempt-{number}").exists():
        number += 1
    return f"attempt-{number}"
