"""The bootstrap against one that is written out sample by sample, and its properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated_scores import BINARY, binary_scores, held_out

from rayfed_hn.evaluation import bootstrap
from rayfed_hn.evaluation.bootstrap import MEAN, POOLED, bootstrap_tests
from rayfed_hn.evaluation.held_out import HeldOut
from rayfed_hn.evaluation.measures import main_measure, more_measures
from rayfed_hn.evaluation.metrics import auc

AUC = (main_measure(BINARY),)
ALIKE = {"fedavg": 1.0, "local": 1.0}


def by_scope(
    records: list[dict[str, Any]], *, resamples: int = 200, seed: int = 0
) -> dict[str, dict[str, Any]]:
    found = bootstrap_tests(held_out(records), AUC, resamples=resamples, seed=seed)
    return {test["scope"]: test for test in found}


def weights_of(found: HeldOut, resamples: int, seed: int) -> list[dict[str, np.ndarray]]:
    whole: dict[str, list[np.ndarray]] = {site: [] for site in found.sites}
    for some in bootstrap._samples(found, resamples, seed):
        for site, weight_BR in some.items():
            whole[site].append(weight_BR)
    joined = {site: np.concatenate(parts, axis=1) for site, parts in whole.items()}
    return [{site: w[:, r] for site, w in joined.items()} for r in range(resamples)]


def one_sample(records: list[dict[str, Any]], weights: dict[str, np.ndarray]) -> tuple[float, ...]:
    """Difference of the mean of sites, and pooled, with bags repeated as often as drawn."""
    by_seed = []
    for seed in sorted({r["seed"] for r in records}):
        means, pooled = {}, {}
        for method in ALIKE:
            parts, areas = [], []
            for site, weight_B in weights.items():
                own = [r for r in records if (r["method"], r["seed"], r["site"]) ==
                       (method, seed, site)]  # fmt: skip
                own.sort(key=lambda r: r["slide"])
                again = [r for r, w in zip(own, weight_B, strict=True) for _ in range(int(w))]
                areas.append(auc([r["label"] for r in again], [r["score"] for r in again]))
                parts += again
            means[method] = np.array([np.nan if a is None else a for a in areas])
            pooled[method] = auc([r["label"] for r in parts], [r["score"] for r in parts])
        by_seed.append((means["fedavg"] - means["local"], pooled["fedavg"] - pooled["local"]))
    gaps_S = np.mean([gap for gap, _ in by_seed], axis=0)
    return float(np.nanmean(gaps_S)), float(np.mean([gap for _, gap in by_seed]))


@pytest.mark.parametrize("slides", [1, 2])
def test_it_is_the_bootstrap_written_out(slides: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 1000)  # several portions of samples
    rng = np.random.default_rng(slides)
    records = binary_scores(rng, ALIKE, sizes=(5, 9), slides=slides, seeds=2)
    found = held_out(records)
    values = np.array([one_sample(records, w) for w in weights_of(found, 150, seed=7)])
    tests = by_scope(records, resamples=150, seed=7)
    for scope, value_R in zip((MEAN, POOLED), values.T, strict=True):
        assert [tests[scope]["low"], tests[scope]["high"]] == pytest.approx(
            np.nanquantile(value_R, [0.025, 0.975])
        )
        least = 1 + min((value_R <= 0).sum(), (value_R >= 0).sum())
        assert tests[scope]["p"] == pytest.approx(min(1, 2 * least / 151))
    ones = {site: np.ones(len(case_B)) for site, case_B in found.case_B.items()}
    assert one_sample(records, ones) == pytest.approx(
        (tests[MEAN]["difference"], tests[POOLED]["difference"])
    )


def test_samples_are_of_whole_cases_within_sites() -> None:
    records = binary_scores(np.random.default_rng(0), ALIKE, sizes=(6, 10), slides=3)
    for weights in weights_of(held_out(records), 20, seed=1):
        for size, weight_B in zip((6, 10), weights.values(), strict=True):
            by_case = weight_B.reshape(size, 3)
            assert (by_case == by_case[:, :1]).all()
            assert by_case[:, 0].sum() == size


def test_draws_follow_from_the_seed_and_the_site_alone() -> None:
    records = binary_scores(np.random.default_rng(0), ALIKE)
    first = by_scope(records)
    assert by_scope(sorted(records, key=lambda record: -record["slide"])) == first
    assert by_scope(records, seed=1)[MEAN]["low"] != first[MEAN]["low"]
    alone = [r for r in records if r["site"] == "site-1"]
    own = weights_of(held_out(alone), 10, seed=0)
    among = weights_of(held_out(records), 10, seed=0)
    assert all((a["site-1"] == b["site-1"]).all() for a, b in zip(own, among, strict=True))


def test_the_same_method_twice_does_not_differ() -> None:
    records = binary_scores(np.random.default_rng(0), {"fedavg": 1.0})
    twin = [record | {"method": "local"} for record in records]
    for test in by_scope(records + twin).values():
        assert (test["difference"], test["low"], test["high"], test["p"]) == (0, 0, 0, 1)


def test_all_measures_but_the_calibration_error_are_tested() -> None:
    records = binary_scores(np.random.default_rng(0), {"fedavg": 0.2, "local": 3.0})
    measures = (*AUC, *more_measures(BINARY))
    found = bootstrap_tests(held_out(records), measures, resamples=200, seed=0)
    by_metric = {t["metric"]: t for t in found if t["scope"] == MEAN}
    assert set(by_metric) == {"AUC", "balanced accuracy", "F1", "Brier score"}
    assert by_metric["AUC"]["high"] < 0 < by_metric["Brier score"]["low"]  # less is better
    assert all(t["p"] == pytest.approx(2 / 201) for t in by_metric.values())


def test_a_site_of_one_class_is_left_out_and_no_site_at_all_is_no_test() -> None:
    records = binary_scores(np.random.default_rng(0), ALIKE)
    flat = [r | {"label": 0} if r["site"] == "site-0" else r for r in records]
    without = [r for r in records if r["site"] != "site-0"]
    found = by_scope(flat)
    assert found[MEAN]["low"] == by_scope(without)[MEAN]["low"]
    assert (found[MEAN]["num_sites"], found[MEAN]["num_cases"]) == (2, 70)
    assert (found[POOLED]["num_sites"], found[POOLED]["num_cases"]) == (3, 90)
    assert by_scope([r | {"label": 0} for r in records]) == {}


def test_only_what_both_methods_have_is_compared() -> None:
    records = binary_scores(np.random.default_rng(0), ALIKE)
    lost = [r for r in records if (r["method"], r["site"]) != ("local", "site-2")]
    found = by_scope(lost)
    assert set(found) == {MEAN}
    assert (found[MEAN]["num_sites"], found[MEAN]["num_cases"]) == (2, 50)
