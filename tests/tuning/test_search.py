"""The whole search: the ready file, what is tested in the end, and when that is clean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, SetAside
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.loading import load
from rayfed_hn.tuning import search as search_module
from rayfed_hn.tuning.search import CONFIGURED, TUNED, Search, once, unseen
from rayfed_hn.tuning.search import words as about

READY = Path(__file__).parents[2] / "conf" / "tune.yaml"
SHORT = ["rounds.num_versions=1", "tune.num_trials=2"]


def test_the_ready_file_can_be_searched(bag_root: Path) -> None:
    search = Search.of(load(READY), bag_root)
    assert len(search.trials) == search.num_trials == 24
    assert not search.notes()
    assert about(search).startswith("24 trials over hypernetwork.embedding_dim, ")
    assert "each on 2 divisions of the cases; judged by validation AUC" in about(search)


def test_its_alternative_can_be_searched(bag_root: Path, tmp_path: Path) -> None:
    text = READY.read_text()
    for old, new in (
        ("    privacy.noise_scale:", "    # privacy.noise_scale:"),
        ("    # privacy.noise_multiplier:", "    privacy.noise_multiplier:"),
        ("# privacy:\n#   mech", "privacy:\n  mech"),
        ("#   noise_multiplier", "  noise_multiplier"),
        ("[validation_metric, noise_scale]", "[validation_metric, epsilon]"),
    ):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "tune.yaml"
    path.write_text(text)
    search = Search.of(load(path, SHORT), bag_root)
    assert {d.key for d in search.dimensions} >= {"privacy.noise_multiplier"}
    assert search.plan.promise()["epsilon"] is not None


def test_what_would_not_do_what_it_looks_like_is_noted(bag_root: Path) -> None:
    asked = load(READY, ["tune.scheduler=asha", "resources.gpus_per_site=0.1"])
    told = Search.of(asked, bag_root).notes()
    assert len(told) == 2
    assert told[0] == "trials run on CPUs; on GPUs with tune.actors=true"
    assert told[1].startswith("tune.scheduler=asha stops trials by the validation metric alone")
    both = load(READY, ["resources.gpus_per_site=0.1", "tune.actors=true"])
    (told,) = Search.of(both, bag_root).notes()
    assert told.startswith("the test in the end trains on CPUs")
    untested = load(READY, ["tune.actors=true", "tune.final_seeds=0"])
    assert not Search.of(untested, bag_root).notes()
    (told,) = Search.of(load(READY, ["run.track=mlflow"]), bag_root).notes()
    assert told.startswith("run.track: tune hands nothing on")
    one = load(READY, ["tune.scheduler=asha", "tune.objectives=validation_metric"])
    assert not Search.of(one, bag_root).notes()


def test_bags_that_do_not_fit_are_refused_before_anything_starts(bag_root: Path) -> None:
    word = "tune.space.rounds.min_sites=grid(9)"
    with pytest.raises(ConfigError, match=r"rounds\.min_sites: got 9"):
        Search.of(load(None, [*SHORT, "tune.search=grid", word]), bag_root)


def test_where_only_privacy_is_searched_there_is_nothing_to_measure_against(
    bag_root: Path,
) -> None:
    noise = "tune.space.privacy.noise_scale=grid(0, 0.1)"
    alone = Search.of(load(None, [*SHORT, noise]), bag_root)
    assert list(alone.finals({"privacy.noise_scale": 0.1})) == [TUNED]
    both = Search.of(load(None, [*SHORT, noise, "tune.space.training.steps=grid(1, 2)"]), bag_root)
    finals = both.finals({"privacy.noise_scale": 0.1, "training.steps": 2})
    assert list(finals) == [TUNED, CONFIGURED]
    assert {config.privacy.noise_scale for config in finals.values()} == {0.1}
    assert [config.training.steps for config in finals.values()] == [2, 40]
    assert not replace(both, config=load(None, ["tune.final_seeds=0"])).finals({})


def test_there_may_be_fewer_settings_than_were_asked_for(bag_root: Path) -> None:
    word = "tune.space.training.optimiser=choice(adam, sgd)"
    search = Search.of(load(None, ["tune.num_trials=9", word]), bag_root)
    assert search.notes() == ["there are but 2 different settings, not 9"]


def test_a_test_is_clean_only_with_a_given_division_and_one_fold() -> None:
    assert not unseen(load(None, ["tune.folds=1"]))
    assert not unseen(load(None, ["tune.folds=2", "data.splits=x"]))
    assert unseen(load(None, ["tune.folds=1", "data.splits=x"]))


def test_sites_that_any_division_does_without_are_told_once(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = SetAside("the site has no case to train on in this fold", "give it more cases")

    def without_west(config: Config, root: Path) -> Plan:
        missing = (config.run.seed, config.data.fold) != (0, 0)
        return replace(make_plan(config, root), set_aside=(("west", why),) if missing else ())

    monkeypatch.setattr(search_module, "make_plan", without_west)
    noise = "tune.space.privacy.noise_scale=grid(0, 0.1)"
    search = Search.of(load(None, [*SHORT, noise, "tune.seeds=2"]), bag_root)
    told = {"site": "west", "reason": why.reason, "remedy": why.remedy}
    assert list(search.set_aside) == [told]
    assert once([*search.set_aside, {**told, "seed": 3}, {**told, "site": "east"}]) == [
        told, told | {"site": "east"},
    ]  # fmt: skip
    alone = Search.of(load(None, [*SHORT, noise, "tune.folds=1"]), bag_root)
    assert not alone.set_aside


def test_sites_are_counted_though_the_first_trial_pools_them(bag_root: Path) -> None:
    words = ["tune.search=grid", "tune.space.hypernetwork.embedding_dim=grid(2, 3)"]
    words += ["tune.space.method.name=grid(pooled, hypernetwork)", *SHORT]
    search = Search.of(load(None, words), bag_root)
    assert search.plan.participants == ("pooled",)
    records = [
        {"trial": t.number, "settings": dict(t.settings), "status": "failed", "curve": [],
         "validation_metric": None} for t in search.trials
    ]  # fmt: skip
    settings = {"hypernetwork.embedding_dim": 3, "method.name": "hypernetwork"}
    (alike,) = (t.number for t in search.trials if dict(t.settings) == settings)
    found = search.concluded(records)["alike"]
    assert (found["from"], found["trials"]) == (3, [alike])
