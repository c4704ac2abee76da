"""What a new site is told to use: by hand, from labelled bags alone, and from the files kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from joining import arms_for, everything, task_origin
from safetensors.torch import load_file
from tiny_federations import TASK_WORDS

from rayfed_hn.federation.data import SiteBag
from rayfed_hn.federation.onboarding import recommend as deciding
from rayfed_hn.federation.onboarding.arms import TRAINED, ZERO_SHOT, Arms
from rayfed_hn.federation.onboarding.keep import file_name, keep_networks
from rayfed_hn.federation.onboarding.recommend import Recommendation, recommend, truth_of
from rayfed_hn.federation.onboarding.trial import RECOMMENDED, Labelled, attempt
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.seeds import derive


def _arms(root: Path, kind: str, *words: str, fedavg: bool = False) -> Arms:
    second = task_origin(root, kind, "method.name=fedavg", *words) if fedavg else None
    return arms_for(task_origin(root, kind, *words), second)


def _told(arms: Arms, bags: tuple[SiteBag, ...]) -> Recommendation:
    return recommend(arms, arms.fit(bags, 0), bags, 0)


@pytest.mark.parametrize("kind", TASK_WORDS)
def test_weights_are_those_of_the_formula(tasks_root: Path, kind: str) -> None:
    arms = _arms(tasks_root, kind, fedavg=True)
    task = arms.origin.task
    bags = everything(tasks_root, task).bags
    told = _told(arms, bags)
    strata = [task.stratum(bag) for bag in bags]
    folds = deciding._folds(bags, strata, derive(0, "onboarding folds", "c", 0))
    assert folds is not None
    metrics = []
    for arm in TRAINED:
        evidence = np.zeros((len(bags), task.num_evidence), np.float32)
        for fold in range(5):
            inside = [bag for i, bag in enumerate(bags) if folds[i] != fold]
            fitted = arms.fit(inside, 0)[arm]
            for i in np.flatnonzero(folds == fold):
                evidence[i] = arms.evidence(fitted, [bags[i]])[0]
        found = task.judge.ranking(truth_of(bags), task.predict(evidence))
        assert found is not None
        metrics.append(found)
    raised = np.exp(len(bags) * np.array(metrics) / 4)
    assert list(told.metrics.values()) == pytest.approx(metrics, abs=1e-9)
    assert list(told.weights) == list(TRAINED)
    assert list(told.weights.values()) == pytest.approx(raised / raised.sum(), abs=1e-9)
    assert sum(told.weights.values()) == pytest.approx(1, abs=1e-12)


def test_an_arm_that_ranks_better_counts_more(
    tasks_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = _arms(tasks_root, "binary", fedavg=True)
    bags = everything(tasks_root, arms.origin.task).bags
    found = dict(zip(TRAINED, (0.6, 0.7, 0.9), strict=True))
    monkeypatch.setattr(deciding, "_held_out", lambda *_: found)
    weights = list(_told(arms, bags).weights.values())
    raised = np.exp(len(bags) / 4 * np.array([0.6, 0.7, 0.9]))
    assert weights == pytest.approx(raised / raised.sum())


def test_the_bags_under_test_decide_nothing(tasks_root: Path) -> None:
    arms = _arms(tasks_root, "binary", fedavg=True)
    labelled = everything(tasks_root, arms.origin.task)
    others = [
        replace(bag, label=1 - bag.label, features_ND=9 - 2 * bag.features_ND)
        for bag in labelled.test
    ]
    one = attempt(arms, labelled, 0)
    for test in (tuple(others), labelled.test[:1], ()):
        other = attempt(arms, Labelled(labelled.bags, test), 0)
        assert other.recommendation == one.recommendation
        for arm, fitted in one.fitted.items():
            assert torch.equal(fitted.network_P, other.fitted[arm].network_P)
    assert attempt(arms, Labelled(labelled.bags, ()), 0).values == dict.fromkeys(one.values)


def test_the_labelled_bags_do(tasks_root: Path) -> None:
    arms = _arms(tasks_root, "binary")
    bags = everything(tasks_root, arms.origin.task).bags
    flipped = tuple(replace(bag, label=1 - bag.label) for bag in bags)
    assert _told(arms, flipped) != _told(arms, bags)


def test_without_labels_it_is_the_base(tasks_root: Path) -> None:
    arms = _arms(tasks_root, "binary", fedavg=True)
    labelled = everything(tasks_root, arms.origin.task)
    tried = attempt(arms, Labelled((), labelled.test), 0)
    assert tried.recommendation.weights == {ZERO_SHOT: 1.0}
    assert tried.recommendation.metrics == {ZERO_SHOT: None}
    assert tried.values[RECOMMENDED] == tried.values[ZERO_SHOT]


def test_where_nothing_can_be_compared_all_weigh_the_same(tasks_root: Path) -> None:
    arms = _arms(tasks_root, "binary", fedavg=True)
    bags = everything(tasks_root, arms.origin.task).bags
    one_class = tuple(bag for bag in bags if bag.label)
    two_cases = (one_class[0], next(bag for bag in bags if not bag.label))
    for few in (one_class, two_cases, one_class[:1]):
        told = _told(arms, few)
        assert told.weights == pytest.approx(dict.fromkeys(TRAINED, 1 / 3))
        assert set(told.metrics.values()) == {None}
        assert np.isfinite(list(told.scales.values())).all()


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=25), st.integers(0, 2**60)
)
def test_folds_are_by_case_and_leave_something_to_fit(
    rows: list[tuple[int, int]], seed: int
) -> None:
    empty = np.zeros((1, 2), np.float32)
    bags = [SiteBag(empty, label, slide=i, case=case) for i, (case, label) in enumerate(rows)]
    folds = deciding._folds(bags, [bag.label for bag in bags], seed)
    cases = {case for case, _ in rows}
    if folds is None:
        assert len(cases) < 3
        return
    of_case: dict[int, set[int]] = {}
    for bag, fold in zip(bags, folds.tolist(), strict=True):
        of_case.setdefault(bag.case, set()).add(fold)
    assert all(len(found) == 1 for found in of_case.values())
    assert 2 <= len(set(folds.tolist())) <= min(5, len(cases))
    salted = [replace(bag, case=hash((bag.case, seed))) for bag in bags]
    again = deciding._folds(
        salted, [bag.label for bag in salted], seed
    )  # whatever the salt of the store
    assert again is not None
    assert np.array_equal(again, folds)


@pytest.mark.parametrize("asked", ["shared", "site", "none"])
@pytest.mark.parametrize("kind", ["binary", "ordinal", "survival"])
def test_the_files_say_of_raw_features_what_was_reported(
    tasks_root: Path, tmp_path: Path, asked: str, kind: str
) -> None:
    arms = _arms(tasks_root, kind, f"model.standardise={asked}", fedavg=True)
    origin, layout = arms.origin, ParameterLayout.of(arms.origin.model)
    labelled = everything(tasks_root, origin.task)
    tried = attempt(arms, labelled, 0)
    path = keep_networks(tmp_path, "c", layout, tried.fitted, tried.recommendation)
    names = {f"network_{file_name(arm)}.safetensors" for arm in tried.fitted}
    assert {p.name for p in tmp_path.iterdir()} == names | {path.name, "site_embedding.safetensors"}
    assert len(names) == len(tried.fitted)

    def says(network_P: torch.Tensor) -> np.ndarray:
        return score_bags(origin.model, network_P, labelled.test, origin.task).evidence_BE

    by_arm = {}
    for arm, fitted in tried.fitted.items():
        named = load_file(tmp_path / f"network_{file_name(arm)}.safetensors")
        by_arm[arm] = says(layout.flatten(named))
        reported = arms.evidence(fitted, labelled.test)
        np.testing.assert_allclose(by_arm[arm], reported, atol=2e-5, rtol=1e-4)
    mixture = load_file(path)
    (shares_C,) = mixture["weights"].numpy()
    assert len(shares_C) == 3
    mixed = sum(w * says(P) for w, P in zip(shares_C, mixture["candidates"], strict=True))
    reported = tried.recommendation.evidence(
        {arm: arms.evidence(fitted, labelled.test) for arm, fitted in tried.fitted.items()}
    )
    np.testing.assert_allclose(mixed, reported, atol=1e-3, rtol=1e-3)
    value = origin.task.judge.value(truth_of(labelled.test), origin.task.predict(reported))
    assert tried.values[RECOMMENDED] == value


def test_the_file_of_the_base_alone(tasks_root: Path, tmp_path: Path) -> None:
    arms = _arms(tasks_root, "binary")
    layout = ParameterLayout.of(arms.origin.model)
    tried = attempt(arms, Labelled((), everything(tasks_root, arms.origin.task).test), 0)
    kept = load_file(keep_networks(tmp_path, "c", layout, tried.fitted, tried.recommendation))
    assert arms.origin.scale is not None
    folded_P = arms.origin.scale.fold(arms.origin.base, layout)
    assert torch.equal(kept["candidates"], folded_P[None])
    assert torch.equal(kept["weights"], torch.ones(1, 1))
    assert not (tmp_path / "site_embedding.safetensors").exists()
