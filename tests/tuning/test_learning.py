"""One trial: several federations in step are what each is alone, and no test case is scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from rayfed_hn.config import Config
from rayfed_hn.errors import FederationError
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.federation.score_messages import (
    CandidateMetrics,
    CandidatesRequest,
    EvaluateRequest,
    Scores,
)
from rayfed_hn.federation.site import Site
from rayfed_hn.federation.site_scorer import SiteScorer
from rayfed_hn.loading import is_knob, load
from rayfed_hn.tuning.dimensions import dimensions
from rayfed_hn.tuning.idle import _ONLY_WITH, EMBEDDING_DIM, alike_from, idle
from rayfed_hn.tuning.learning import Judged, Learning
from rayfed_hn.tuning.search import Search
from rayfed_hn.tuning.trials import divisions, on_division, trial_config

SHORT = ["rounds.num_versions=3", "training.steps=4", "training.learning_rate=0.02"]
SIMULATED = ["simulation.enabled=true", "simulation.slowest=3", "rounds.buffer_size=2"]


def config(*words: str) -> Config:
    return trial_config(load(None, [*SHORT, *words]), {})


def test_other_bags_are_not_judged(bag_root: Path) -> None:
    """They may be fewer, and easier."""
    learning = Learning(config("tune.folds=1"), bag_root)
    own = dict(learning.plans[0].num_bags)
    learning.check_bags(own)
    site, (train, validation, test) = next(iter(own.items()))
    with pytest.raises(FederationError, match=rf"{site} has {train} \+ {validation} \+ {test}"):
        learning.check_bags({**own, site: (train + 1, validation, test)})
    with pytest.raises(
        FederationError, match=r"elsewhere has no bags .* as configured 1 \+ 0 \+ 0"
    ):
        learning.check_bags({**own, "elsewhere": (1, 0, 0)})


@pytest.mark.parametrize(
    "words",
    [
        [],
        SIMULATED,
        ["privacy.noise_scale=0.1", "tune.seeds=2", "tune.folds=1"],
        ["method.name=hypernetwork_ft"],
        ["method.name=pooled"],
        [
            "privacy.mechanism=slide_dpsgd",
            "privacy.noise_multiplier=1",
            "training.class_balanced=false",
        ],
    ],
    ids=" ".join,
)
def test_every_version_is_judged_as_in_a_run_of_its_own(
    bag_root: Path, words: Sequence[str]
) -> None:
    asked = config(*words)
    judged = list(Learning(asked, bag_root))
    assert [one.version for one in judged] == [0, 1, 2, 3]
    assert [one.last for one in judged] == [False, False, False, True]
    for number, (seed, fold) in enumerate(divisions(asked)):
        reports: list[float | None] = []
        plan = make_plan(on_division(asked, seed, fold), bag_root)
        outcome = run_in_process(plan, lambda r, to=reports: to.append(r.mean_validation_metric))
        last = float(np.mean([s.validation_metric for s in outcome.scores]))  # type: ignore[arg-type]
        assert [one.by_division[number] for one in judged][:-1] == reports
        assert judged[-1].by_division[number] == pytest.approx(last)
    assert {one.mean for one in judged} != {None}


def test_no_test_case_is_scored(bag_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[str] = []
    original = SiteScorer.score

    def score(self: SiteScorer, request: EvaluateRequest) -> Scores:
        scored.append(request.site)
        return original(self, request)

    monkeypatch.setattr(SiteScorer, "score", score)
    assert list(Learning(config("tune.folds=1"), bag_root))
    assert not scored
    run_in_process(make_plan(config(), bag_root))
    assert len(scored) == 3


def test_a_trial_that_loses_a_site_is_not_judged_by_the_others(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SiteScorer.validate

    def break_down(self: SiteScorer, version: int, network: Tensor) -> object:
        if self._data.name == "west" and version == 2:
            raise ValueError("bag west-1 is broken")
        return original(self, version, network)

    monkeypatch.setattr(SiteScorer, "validate", break_down)
    with pytest.raises(FederationError, match="site west was lost at version 2"):
        list(Learning(config("tune.folds=1"), bag_root))


def test_a_site_that_is_lost_when_the_last_networks_are_judged_is_missed_too(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Site._judge

    def break_down(self: Site, request: CandidatesRequest) -> CandidateMetrics:
        if self.data.name == "west":
            raise ValueError("bag west-1 is broken")
        return original(self, request)

    monkeypatch.setattr(Site, "_judge", break_down)
    with pytest.raises(FederationError, match="site west was lost at version 3"):
        list(Learning(config("tune.folds=1"), bag_root))


def test_epsilon_is_that_of_a_run(bag_root: Path) -> None:
    asked = config("privacy.mechanism=site_ldp", "privacy.target_epsilon=8", "tune.folds=1")
    assert Learning(asked, bag_root).epsilon == pytest.approx(8, rel=1e-3)
    assert Learning(config("privacy.noise_scale=0.1", "tune.folds=1"), bag_root).epsilon is None


def test_an_undefined_division_makes_the_mean_undefined(bag_root: Path) -> None:
    assert Judged(0, (0.5, None)).mean is None
    assert Judged(0, (0.5, 1.0)).mean == 0.75


def test_from_the_number_of_sites_on_all_fixed_embeddings_make_the_same_model(
    bag_root: Path,
) -> None:
    def networks(size: int, *words: str) -> np.ndarray:
        # Adam takes steps of one length wherever the gradient is nothing but rounding.
        asked = config(
            "training.optimiser=sgd", f"{EMBEDDING_DIM}={size}", "hypernetwork.rho=0.6", *words
        )
        server = run_in_process(make_plan(asked, bag_root)).server
        return np.stack(server.networks(server.sites))

    assert alike_from(config(), 3) == 3
    three = networks(3)
    np.testing.assert_allclose(networks(9), three, atol=1e-5)
    assert np.abs(networks(2) - three).max() > 1e-3
    for words in (["hypernetwork.features=mlp"], ["method.name=pfedhn"]):
        assert alike_from(config(*words), 3) is None
    assert (
        np.abs(
            networks(3, "hypernetwork.features=mlp") - networks(9, "hypernetwork.features=mlp")
        ).max()
        > 1e-4
    )


def test_trials_whose_size_cannot_matter_are_named(bag_root: Path) -> None:
    words = ["tune.search=grid", f"tune.space.{EMBEDDING_DIM}=grid(2, 3, 9, null)"]
    search = Search.of(load(None, [*SHORT, *words]), bag_root)
    records = [
        {"trial": t.number, "settings": dict(t.settings), "status": "failed", "curve": [],
         "validation_metric": None} for t in search.trials
    ]  # fmt: skip
    assert search.concluded(records)["alike"] == {
        "key": EMBEDDING_DIM, "from": 3, "trials": [1, 2, 3],
    }  # fmt: skip


def test_keys_without_effect_are_named() -> None:
    words = ["hypernetwork.learning_rate=grid(1, 2)", "hypernetwork.feature_rate=grid(1, 2)"]
    words += ["training.proximal_mu=grid(1, 2)", "hypernetwork.rho=grid(0, 1)"]
    base = [f"tune.space.{word}" for word in words]

    def named(*more: str) -> set[str]:
        asked = load(None, [*base, *more])
        return {row["key"] for row in idle(asked, dimensions(asked))}

    rates = {"hypernetwork.learning_rate", "hypernetwork.feature_rate"}
    assert named() == rates | {"training.proximal_mu"}
    assert named("method.name=pfedhn") == {
        "hypernetwork.feature_rate", "training.proximal_mu", "hypernetwork.rho",
    }  # fmt: skip
    features = "tune.space.hypernetwork.features=choice(fixed, mlp)"
    assert "hypernetwork.feature_rate" not in named(features)
    assert "training.proximal_mu" not in named("tune.space.method.name=choice(fedprox, pfedhn)")
    assert "privacy.noise_scale" in named(
        "method.name=local", "tune.space.privacy.noise_scale=grid(0, 1)"
    )


def test_every_key_that_is_judged_exists() -> None:
    for key, needed in _ONLY_WITH.items():
        assert is_knob(key)
        assert all(is_knob(other) for other, _ in needed)


def test_idle_keys_change_nothing(bag_root: Path) -> None:
    """What is called idle under the defaults really is: another value gives the same digest."""
    others = {
        "hypernetwork.learning_rate": 0.5,
        "hypernetwork.feature_rate": 0.5,
        "hypernetwork.weight_decay": 0.5,
        "hypernetwork.optimiser": "adam",
        "training.proximal_mu": 5.0,
    }
    plain = run_in_process(make_plan(config("rounds.num_versions=2"), bag_root)).digest
    for key, value in others.items():
        asked = config("rounds.num_versions=2", f"{key}={value}")
        assert run_in_process(make_plan(asked, bag_root)).digest == plain, key
    asked = config("rounds.num_versions=2", "hypernetwork.rho=0.9")
    assert run_in_process(make_plan(asked, bag_root)).digest != plain
