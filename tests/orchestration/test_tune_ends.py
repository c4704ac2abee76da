"""What becomes of trials that cannot be, and how many trainings of the end run at a time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from rayfed_hn.errors import FederationError
from rayfed_hn.loading import load
from rayfed_hn.orchestration import tune as tune_module
from rayfed_hn.orchestration import tune_trials
from rayfed_hn.tuning.records import record_of
from rayfed_hn.tuning.search import Search

pytestmark = pytest.mark.ray  # which the modules import


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What trials report, without Ray Tune."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(tune_trials.tune, "report", found.append)
    return found


def test_settings_that_are_impossible_together_fail_the_trial_and_are_not_trained(
    bag_root: Path, told: list[dict[str, Any]]
) -> None:
    """Those of Optuna are made up on the way: nobody has checked them before."""
    settings = {"privacy.mechanism": "none", "privacy.noise_scale": 0.1}
    tune_trials._train(load(None, ["rounds.num_versions=1"]), bag_root, settings, {}, None)
    (one,) = told
    assert one["last"]
    assert "privacy.mechanism=none privacy.noise_scale=0.1 cannot be tried" in one["reason"]


@pytest.mark.parametrize("kind", [AttributeError, AssertionError, ImportError, RayError])
def test_no_error_of_a_trial_reaches_ray_tune_with_its_words(
    bag_root: Path, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    def broken(*_: object) -> None:
        raise kind("bag jane-doe-1")

    monkeypatch.setattr(tune_trials, "Learning", broken)
    tune_trials._train(load(), bag_root, {}, {}, None)
    (one,) = told
    assert one["reason"].startswith(kind.__name__)
    assert "jane" not in str(one)


@pytest.mark.parametrize(
    ("scheduler", "last", "status"),
    [("none", True, "finished"), ("none", False, "failed"),
     ("asha", True, "finished"), ("asha", False, "stopped")],
)  # fmt: skip
def test_only_a_scheduler_stops_trials(scheduler: str, last: bool, status: str) -> None:
    """One that ends early by itself is lost, and makes the search degraded."""
    ended: list[Any] = []
    config = load(None, [f"tune.scheduler={scheduler}"])
    teller = tune_trials._Teller(config, tune_trials._Known(0), ended.append)
    trial = SimpleNamespace(trial_id="x", config={"trial": {"number": 0, "settings": {}}})
    told = {"version": 0, "validation_metric": 0.5, "last": last}
    teller.on_trial_result(0, [trial], trial, told)
    teller.on_trial_complete(0, [trial], trial)
    assert ended[-1].record["status"] == status


def test_trials_that_have_not_ended_are_missed(
    bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_of_two(search: Search, *rest: Any) -> None:
        told = {"seconds": 1.0}
        trial = search.trials[0]
        record = record_of(trial, search.config, status="finished", curve=[0.5], about=told)
        rest[-1](tune_trials.News(trial, 0, 0.5, record))

    monkeypatch.setattr(tune_module, "run_trials", one_of_two)
    noise = "tune.space.privacy.noise_scale=grid(0, 0.1)"
    search = Search.of(load(None, [noise, "tune.search=grid"]), bag_root)
    with pytest.raises(FederationError, match="1 of 2 trials have not ended"):
        tune_module.try_all(search, bag_root, tmp_path, lambda *_: None)


@pytest.mark.parametrize(("asked", "most"), [("2", 2), ("null", 6)])
def test_the_test_in_the_end_keeps_to_the_number_of_trials_at_a_time(
    bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, most: int
) -> None:
    noise, waiting, seen = "tune.space.privacy.noise_scale=grid(0, 0.1)", [], []

    class Later:
        def remote(self, cell: Any, *_: object) -> Any:
            waiting.append(cell)
            seen.append(len(waiting))
            return cell

    def take(references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        waiting.remove(references[0])
        return references[:1], references[1:]

    monkeypatch.setattr(tune_module, "_run_cell", Later())
    monkeypatch.setattr(ray, "wait", take)
    monkeypatch.setattr(ray, "get", lambda cell: {"seed": cell.seed, "fold": cell.fold})
    search = Search.of(load(None, [noise, f"tune.max_concurrent={asked}"]), bag_root)
    chosen = {"privacy.noise_scale": 0.1}
    found, failed = tune_module._final(search, chosen, bag_root, tmp_path, lambda *_: None)
    assert not failed
    assert [(one["seed"], one["fold"]) for one in found["tuned"]] == [
        (seed, fold) for seed in (1, 2, 3) for fold in (0, 1)
    ]
    assert max(seen) == most
