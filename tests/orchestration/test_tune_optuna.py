"""A search by Optuna, where it is installed: later settings follow, also when it was cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayfed_hn.loading import load
from rayfed_hn.orchestration.tune import try_all
from rayfed_hn.orchestration.tune_trials import News
from rayfed_hn.tuning.learning import Learning
from rayfed_hn.tuning.search import Search
from rayfed_hn.tuning.trials import trial_config

pytest.importorskip("optuna")
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
WORDS = ["rounds.num_versions=1", "training.steps=1", "tune.search=optuna", "tune.num_trials=4"]
SPACE = [
    "tune.space.hypernetwork.rho=uniform(0, 1)",
    "tune.space.training.optimiser=choice(adam, sgd)",
    "tune.space.model.hidden_dim=choice(null, 8)",
    "tune.space.hypernetwork.embedding_dim=loguniform(2, 9)",
]


class Cut(Exception):
    pass


def test_a_search_that_was_cut_goes_on_after_what_it_has(bag_root: Path, tmp_path: Path) -> None:
    search = Search.of(load(None, [*WORDS, *SPACE, "tune.folds=1"]), bag_root)

    def cut(done: int, news: News | None) -> None:
        if done == 2:
            raise Cut

    with pytest.raises(Cut):
        try_all(search, bag_root, tmp_path, cut)
    begun = {p.name: p.read_bytes() for p in (tmp_path / "trials").glob("trial-*.json")}
    assert len(begun) == 2
    records = try_all(search, bag_root, tmp_path, lambda done, news: None)
    assert [r["trial"] for r in records] == [0, 1, 2, 3]
    assert {r["status"] for r in records} == {"finished"}
    assert all((tmp_path / "trials" / name).read_bytes() == b for name, b in begun.items())
    assert len({repr(r["settings"]) for r in records}) == 4
    for record in records:
        judged = list(Learning(trial_config(search.config, record["settings"]), bag_root))
        assert record["validation_metric"] == judged[-1].mean
