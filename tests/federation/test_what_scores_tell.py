"""What a site tells of its test bags, and what the centre refuses of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_federations import TASK_WORDS, for_all_tasks, plan_of

from rayfed_hn.federation import experiment
from rayfed_hn.federation.experiment import Outcome, run_in_process
from rayfed_hn.federation.messages import Scores

QUICK = ("rounds.num_versions=1", "training.steps=1", "method.name=fedavg")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose bags have labels, times and events."""
    return for_all_tasks(tmp_path_factory.mktemp("scores") / "bags")


@pytest.mark.parametrize("kind", TASK_WORDS)
def test_times_are_told_where_time_is_predicted_and_nowhere_else(root: Path, kind: str) -> None:
    for scores in run_in_process(plan_of(root, *TASK_WORDS[kind], *QUICK)).scores:
        assert len(scores.label_B)
        assert scores.time_B.any() == (kind == "survival")
        assert scores.event_B.all() or kind == "survival"


@pytest.mark.parametrize(
    "changes",
    [
        {"label_B": np.array([2])},
        {"time_B": np.array([3.0])},
        {"whole_case_B": np.array([True])},
        {"last_BE": np.zeros((1, 2), np.float32)},
    ],
)
def test_scores_of_another_task_lose_their_site(
    root: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    inner = experiment.evaluate_sites

    def spoilt(*arguments: Any) -> Any:
        scores, lost = inner(*arguments)
        return [_changed(scores[0], changes), *scores[1:]], lost

    monkeypatch.setattr(experiment, "evaluate_sites", spoilt)
    outcome: Outcome = run_in_process(plan_of(root, *TASK_WORDS["binary"], *QUICK))
    (loss,) = outcome.lost
    assert "another task" in loss.reason
    assert loss.site not in {scores.site for scores in outcome.scores}


def _changed(scores: Scores, changes: dict[str, Any]) -> Scores:
    """The first value of each column replaced; a wider one takes the place of all."""
    columns = {}
    for name, value in changes.items():
        own = getattr(scores, name).copy()
        if value.ndim > 1:
            columns[name] = np.repeat(value, len(own), axis=0)
        else:
            own[0] = value[0]
            columns[name] = own
    return replace(scores, **columns)
