"""The mixture readout against its formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.config import ModelConfig
from rayfed_hn.evaluation.metrics import auc
from rayfed_hn.federation.data import SiteBag, SiteData
from rayfed_hn.federation.mixture import (
    MovingAverage,
    combine,
    mean_metrics,
    scales,
    shares,
    weights,
)
from rayfed_hn.federation.score_messages import EvaluateRequest
from rayfed_hn.federation.site_scorer import SiteScorer
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import initial_parameters, make_model
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.tasks import Binary

NAN = np.nan

# -- moving averages ---------------------------------------------------------------------------

BINARY = Binary(("normal", "tumour"))


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values)


steps = st.lists(
    st.tuples(st.floats(-100, 100, width=32), st.sampled_from([1.0, 0.25, 0.5, 2.0])),
    min_size=1,
    max_size=9,
)


@given(steps)
def test_an_average_is_the_weighted_mean_of_all_that_was_added(
    values: list[tuple[float, float]],
) -> None:
    average, ages, age = MovingAverage(), [], 0.0
    for value, rounds in values:
        average = average.add(vector(value), rounds, 0.0)
    for _, rounds in reversed(values):  # an older value weighs .8 a round less
        ages.append(0.8**age * (1 - 0.8**rounds))
        age += rounds
    expected = np.average([value for value, _ in values], weights=ages[::-1])
    assert average.value().item() == pytest.approx(expected, abs=1e-3)


def test_two_half_rounds_of_one_value_weigh_as_a_whole_one() -> None:
    start = MovingAverage().add(vector(1.0), 1.0, 0.0)
    halves = start.add(vector(5.0), 0.5, 0.0).add(vector(5.0), 0.5, 0.0)
    whole = start.add(vector(5.0), 1.0, 0.0)
    torch.testing.assert_close(halves.value(), whole.value())
    assert halves.weight == pytest.approx(whole.weight)


def test_marks_are_the_averages_of_their_time() -> None:
    average, at = MovingAverage(), {}
    for number in range(1, 9):
        average = average.add(vector(float(number)), 1.0, number / 8)
        at[number] = average.value()
    assert [c.item() for c in average.candidates()] == [at[2].item(), at[4].item(), at[8].item()]


@pytest.mark.parametrize(
    ("progress", "numbers"),
    [
        ([0.1, 0.2], [1, 1, 1]),  # no mark was passed: the end stands for all
        ([0.1, 0.3, 0.4], [1, 2, 2]),
        ([0.3, 0.6, 1.0], [0, 1, 2]),
        ([0.2, 0.9, 1.0], [1, 1, 2]),  # two at once
        ([1.0], [0, 0, 0]),
    ],
)
def test_every_average_has_three_candidates(progress: list[float], numbers: list[int]) -> None:
    average, seen = MovingAverage(), []
    for number, share in enumerate(progress):
        average = average.add(vector(float(number)), 1.0, share)
        seen.append(average.value().item())
    # An average that was never marked is the last one.
    expected = [seen[n] if n < len(seen) else seen[-1] for n in numbers]
    assert [c.item() for c in average.candidates()] == expected


@pytest.mark.parametrize("cut", range(5))
def test_an_average_goes_on_from_its_state(cut: int) -> None:
    average = MovingAverage()
    for number in range(5):
        if number == cut:
            average = MovingAverage.of(average.state() | {"private": vector(3.0)})
        average = average.add(vector(float(number)), 0.7, number / 5)
    straight = MovingAverage()
    for number in range(5):
        straight = straight.add(vector(float(number)), 0.7, number / 5)
    for one, other in zip(average.candidates(), straight.candidates(), strict=True):
        assert torch.equal(one, other)


# -- weights -----------------------------------------------------------------------------------


aucs = st.lists(st.floats(0, 1), min_size=2, max_size=6)


@given(aucs, st.data())
def test_weights_are_their_formula(own: list[float], data: st.DataObject) -> None:
    mean = data.draw(st.lists(st.floats(0, 1), min_size=len(own), max_size=len(own)))
    num_bags = data.draw(st.integers(0, 30))
    raised = np.exp(num_bags * np.array(own) + 20 * np.array(mean))
    np.testing.assert_allclose(
        weights(np.array(own), num_bags, np.array(mean)), raised / raised.sum(), rtol=1e-9
    )


def test_many_bags_do_not_overflow() -> None:
    found = weights(np.array([1.0, 0.999, 0.5]), 10**6, np.full(3, 0.5))
    np.testing.assert_allclose(found, [1, 0, 0])


def test_a_hospital_whose_auc_is_undefined_takes_the_federations_word() -> None:
    mean = np.array([0.9, 0.7, 0.8])
    expected = np.exp(20 * mean) / np.exp(20 * mean).sum()
    np.testing.assert_allclose(weights(np.full(3, NAN), 40, mean), expected)
    # Half an opinion would weigh a candidate by what is not known of it.
    np.testing.assert_allclose(weights(np.array([1, NAN, 0]), 40, mean), expected)


def test_the_federations_word_is_the_mean_where_it_is_defined() -> None:
    table = [np.array([1.0, NAN, NAN]), np.array([0.5, 0.25, NAN]), np.array([0.0, NAN, NAN])]
    np.testing.assert_allclose(mean_metrics(table), [0.5, 0.25, 0.5])


# -- log-odds ----------------------------------------------------------------------------------


def test_scales_are_standard_deviations_where_there_are_any() -> None:
    odds_CBE = np.random.default_rng(0).normal(size=(4, 9, 1)).astype(np.float32)
    np.testing.assert_allclose(scales(odds_CBE), odds_CBE[..., 0].std(axis=1))
    np.testing.assert_array_equal(scales(odds_CBE[:, :1]), np.ones(4))  # a single bag
    np.testing.assert_array_equal(scales(odds_CBE[:, :0]), np.ones(4))
    np.testing.assert_array_equal(scales(np.zeros((2, 5, 1), np.float32)), [1, 1])


def test_several_numbers_of_a_bag_have_one_scale() -> None:
    evidence_CBE = np.random.default_rng(1).normal(size=(3, 8, 4)).astype(np.float32)
    evidence_CBE[..., 2] = 5  # a number that never varies counts as one that varies by 0
    expected = [np.sqrt(np.mean([np.var(e[:, k]) for k in range(4)])) for e in evidence_CBE]
    np.testing.assert_allclose(scales(evidence_CBE), expected, rtol=1e-6)
    # One number alone has the scale of the task with one number.
    np.testing.assert_allclose(scales(evidence_CBE[..., :1]), evidence_CBE[..., 0].std(axis=1))


def test_combined_evidence_is_the_weighted_sum() -> None:
    evidence_CBE = np.array([[[0], [2], [-900]], [[1], [-4], [-900]]], np.float32)
    mixed = combine(evidence_CBE, np.array([0.5, 0.25]))
    np.testing.assert_allclose(mixed, [[0.25], [0], [-675]], atol=1e-7)
    assert mixed.dtype == np.float32


# -- a site --------------------------------------------------------------------------------------


MODEL = make_model(6, 2, ModelConfig(hidden_dim=5, attention_dim=4))
LAYOUT = ParameterLayout.of(MODEL)
CANDIDATES = [2 * initial_parameters(LAYOUT, seed) for seed in range(4)]


def bag(number: int, origin: int = 0, label: int | None = None) -> SiteBag:
    features_ND = np.random.default_rng(number).normal(size=(5, 6)).astype(np.float32)
    return SiteBag(features_ND, number % 2 if label is None else label, number, number, origin)


def site(one_class: bool = False, num_origins: int = 1) -> SiteData:
    """Origin 0 may have validation bags of one class only."""
    every = range(num_origins)
    validation = [
        bag(100 * o + i, o, 1 if one_class and o == 0 else None) for o in every for i in range(7)
    ]
    test = [bag(100 * o + 50 + i, o) for o in every for i in range(4)]
    origins = tuple(f"h{o}" for o in every)
    return SiteData("north", origins, (), tuple(validation), tuple(test))


def scored(data: SiteData, mean: np.ndarray) -> np.ndarray:
    scorer = SiteScorer(data, MODEL, BINARY, None, "cpu")
    scorer.judge(3, CANDIDATES[0], None, CANDIDATES)
    return scorer.score(EvaluateRequest("north", 3, mean)).mixture_BE


MEAN = np.array([0.55, 0.6, 0.5, 0.62])


@pytest.mark.parametrize(("one_class", "num_origins"), [(False, 1), (True, 1), (True, 2)])
def test_the_mixture_is_its_formula_for_every_hospital(one_class: bool, num_origins: int) -> None:
    data = site(one_class, num_origins)
    expected = []
    for origin in range(num_origins):
        known = [b for b in data.validation if b.origin == origin]
        asked = [b for b in data.test if b.origin == origin]
        exponents, odds, spreads = [], [], []
        for candidate, mean in zip(CANDIDATES, MEAN, strict=True):
            scores = score_bags(MODEL, candidate, known, BINARY)
            own = auc(np.array([b.label for b in known]), scores.evidence_BE[:, 0])
            assert (own is None) == (one_class and origin == 0)
            exponents.append((0.0 if own is None else len(known) * own) + 20 * mean)
            spreads.append(scores.evidence_BE.std())
            found_BE = score_bags(MODEL, candidate, asked, BINARY).evidence_BE
            odds.append(found_BE[:, 0] / spreads[-1])
        share = np.exp(exponents) / np.exp(exponents).sum()
        expected.append((share @ np.array(spreads)) * (share @ np.stack(odds)))
    found = scored(data, MEAN)[:, 0]
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-4, atol=1e-5)


def test_the_validation_bags_of_one_class_say_nothing_about_candidates() -> None:
    mean, labels = np.array([0.9, 0.5, 0.5, 0.5]), site(one_class=True)
    ones = scored(labels, mean)
    zeros = replace(labels, validation=tuple(replace(b, label=0) for b in labels.validation))
    np.testing.assert_array_equal(ones, scored(zeros, mean))
    assert not np.allclose(ones, scored(site(), mean))


def test_a_louder_candidate_has_no_louder_voice() -> None:
    # Its log-odds, classifier weights and biases alike, are ten times as large.
    loud = LAYOUT.unflatten(CANDIDATES[1].clone())
    loud = {k: v * 10 if k.startswith("classifier.") else v for k, v in loud.items()}
    data, request = site(), EvaluateRequest("north", 3, MEAN)
    scorer = SiteScorer(data, MODEL, BINARY, None, "cpu")
    changed = [CANDIDATES[0], LAYOUT.flatten(loud), *CANDIDATES[2:]]
    scorer.judge(3, CANDIDATES[0], None, changed)
    louder, plain = scorer.score(request).mixture_BE, scored(data, MEAN)
    # All are louder by the same factor: the candidates keep their shares.
    np.testing.assert_allclose(louder / plain, (louder / plain).mean(), rtol=1e-4)


def test_a_mixture_of_copies_is_the_network() -> None:
    weight_C, scale_C = np.array([0.2, 0.5, 0.3]), np.full(3, 7.0)
    evidence_BE = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    mixed = combine(np.stack([evidence_BE] * 3), shares(weight_C, scale_C))
    np.testing.assert_allclose(mixed, evidence_BE, rtol=1e-6)


def test_opinions_are_the_aucs_and_nan_where_undefined() -> None:
    data = site(one_class=True, num_origins=2)
    opinion = SiteScorer(data, MODEL, BINARY, None, "cpu").judge(3, CANDIDATES[0], None, CANDIDATES)
    assert opinion.metric_OC.shape == (2, 4)
    assert np.isnan(opinion.metric_OC[0]).all()
    known = [b for b in data.validation if b.origin == 1]
    labels = np.array([b.label for b in known])
    for candidate, found in zip(CANDIDATES, opinion.metric_OC[1], strict=True):
        assert found == auc(labels, score_bags(MODEL, candidate, known, BINARY).evidence_BE[:, 0])


def test_a_request_for_other_candidates_is_refused() -> None:
    with pytest.raises(ValueError, match="before the candidates were judged"):
        scored(site(), np.full(3, 0.5))
    fresh = SiteScorer(site(), MODEL, BINARY, None, "cpu")
    with pytest.raises(ValueError, match="before the candidates were judged"):
        fresh.score(EvaluateRequest("north", 3, MEAN))


def test_logits_that_deviate_by_their_rounding_have_no_scale() -> None:
    assert scales(np.full((1, 7, 1), 0.7, np.float32)).tolist() == [1.0]
    assert scales(np.array([[[1e-3], [2e-3]]], np.float32))[0] == pytest.approx(5e-4)
