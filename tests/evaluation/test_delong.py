"""DeLong's test against its definition, pair by pair, and against known properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from simulated_scores import binary_scores, held_out

from rayfed_hn.evaluation.delong import SITE, delong_tests, paired, placements
from rayfed_hn.evaluation.metrics import auc


def by_definition(label_B: np.ndarray, scores_2B: np.ndarray) -> dict[str, Any]:
    """DeLong, DeLong and Clarke-Pearson 1988, equations 3 to 6, with every pair of bags."""
    places = []
    for score_B in scores_2B:
        positive, negative = score_B[label_B == 1][:, None], score_B[label_B == 0][None]
        won = (positive > negative) + 0.5 * (positive == negative)
        places.append((won.mean(axis=1), won.mean(axis=0)))
    difference = places[0][0].mean() - places[1][0].mean()
    variance = sum((one - other).var(ddof=1) / len(one) for one, other in zip(*places, strict=True))
    reach, z = norm.ppf(0.975) * np.sqrt(variance), abs(difference) / np.sqrt(variance)
    return {
        "difference": pytest.approx(difference),
        "low": pytest.approx(difference - reach),
        "high": pytest.approx(difference + reach),
        "p": pytest.approx(2 * norm.sf(z)),
    }


def placed(label_B: np.ndarray, score_B: np.ndarray) -> np.ndarray:
    found = placements(label_B, score_B)
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(5))
def test_it_is_delong_s_test_where_every_bag_is_a_case(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label_B = rng.permutation(np.arange(30) % 3 == 0).astype(int)
    scores_2B = np.round(rng.normal(size=(2, 30)) + label_B, 1)  # with ties
    one_B, other_B = (placed(label_B, score_B) for score_B in scores_2B)
    found = paired(label_B, one_B, other_B, rng.permutation(30))
    assert found == by_definition(label_B, scores_2B)
    for place_B, score_B in zip((one_B, other_B), scores_2B, strict=True):
        for label in (0, 1):
            assert place_B[label_B == label].mean() == pytest.approx(auc(label_B, score_B))


def test_bags_of_a_case_count_as_what_they_are() -> None:
    """Every case twice is no more evidence than every case once."""
    rng = np.random.default_rng(0)
    label_C = np.arange(30) % 2
    scores_2C = rng.normal(size=(2, 30)) + label_C
    one_C, other_C = (placed(label_C, score_C) for score_C in scores_2C)
    once = paired(label_C, one_C, other_C, np.arange(30))
    label_B, case_B = np.repeat(label_C, 3), np.repeat(np.arange(30), 3)
    one_B, other_B = (placed(label_B, np.repeat(score_C, 3)) for score_C in scores_2C)
    assert once is not None
    assert paired(label_B, one_B, other_B, case_B) == pytest.approx(once)
    naive = paired(label_B, one_B, other_B, np.arange(90))
    assert naive is not None
    assert naive["high"] - naive["low"] < 0.6 * (once["high"] - once["low"])


def test_slides_of_a_case_with_different_labels_are_one_case() -> None:
    """Case by case, what a case adds to the positive and to the negative mean moves together."""
    label_B, case_B = np.tile([0, 1], 20), np.repeat(np.arange(20), 2)
    rng = np.random.default_rng(2)
    one_B, other_B = (placed(label_B, rng.normal(size=40)) for _ in range(2))
    gap_C2 = (one_B - other_B).reshape(20, 2)
    found = paired(label_B, one_B, other_B, case_B)
    assert found is not None
    error = (found["high"] - found["low"]) / 2 / norm.ppf(0.975)
    expected = gap_C2.sum(axis=1).var(ddof=1) / 20
    assert error**2 == pytest.approx(expected)


def test_the_same_scores_do_not_differ_and_one_case_says_nothing() -> None:
    label_B = np.array([0, 0, 1, 1])
    same_B = placed(label_B, np.arange(4.0))
    assert paired(label_B, same_B, same_B, np.arange(4)) == {
        "difference": 0, "low": 0, "high": 0, "p": 1
    }  # fmt: skip
    opposite = paired(label_B, same_B, placed(label_B, -np.arange(4.0)), np.arange(4))
    assert opposite == {"difference": 1, "low": None, "high": None, "p": None}
    assert paired(label_B, same_B, same_B, np.array([0, 0, 1, 1])) is None
    assert placements(np.zeros(3, int), np.arange(3.0)) is None


def test_seeds_are_averaged_and_sites_are_those_of_the_first_method() -> None:
    skill = {"fedavg": 1.0, "local": 1.0, "hypernetwork": 1.5}
    records = binary_scores(np.random.default_rng(0), skill, seeds=3)
    found = delong_tests(held_out(records))
    pooled = [t for t in found if t["site"] is None]
    assert [(t["method"], t["against"]) for t in pooled] == [
        ("hypernetwork", "fedavg"), ("hypernetwork", "local"), ("fedavg", "local")
    ]  # fmt: skip
    sites = [t for t in found if t["scope"] == SITE]
    assert {t["method"] for t in sites} == {"hypernetwork"}
    assert len(sites) == 2 * 3
    for test in found:
        aucs = {}
        for method in (test["method"], test["against"]):
            of_seeds = []
            for seed in range(3):
                own = [
                    r
                    for r in records
                    if (r["method"], r["seed"]) == (method, seed)
                    and test["site"] in (None, r["site"])
                ]
                of_seeds.append(auc([r["label"] for r in own], [r["score"] for r in own]))
            aucs[method] = np.mean(of_seeds)
        assert test["difference"] == pytest.approx(aucs[test["method"]] - aucs[test["against"]])
    assert {t["num_cases"] for t in pooled} == {90}


def test_an_incomplete_method_is_not_tested_pooled() -> None:
    records = binary_scores(np.random.default_rng(0), {"fedavg": 1.0, "local": 1.0})
    found = delong_tests(held_out(records[1:]))  # a bag of site-0 has no score of fedavg
    assert {(t["scope"], t["site"]) for t in found} == {(SITE, "site-1"), (SITE, "site-2")}
