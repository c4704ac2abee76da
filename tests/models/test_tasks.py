"""Losses and predictions of every task against their formulas, by numpy or by PyTorch itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.tasks import Binary, Multiclass, Ordinal, Survival, Task

BINARY = Binary(("normal", "tumour"))
MULTICLASS = Multiclass(("a", "b", "c", "d"))
ORDINAL = Ordinal(("0", "1", "2", "3"))
CUTS = (1.0, 2.5, 7.0)
SURVIVAL = Survival(("0", "1", "2", "3"), "slide", CUTS, 0.15)
TASKS: tuple[Task, ...] = (BINARY, MULTICLASS, ORDINAL, SURVIVAL)
EVERY_TASK = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)


def bag(label: int, **about: Any) -> LabelledBag:
    return LabelledBag(np.zeros((1, 2), np.float32), label, **about)


def logits(size: int, bound: float = 20.0) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float64, size, elements=st.floats(-bound, bound))


def evidence_of(task: Task, logits_O: np.ndarray) -> np.ndarray:
    """Of one bag, (1, E)."""
    return task.evidence(torch.tensor(logits_O)[None]).numpy()


def loss_of(task: Task, logits_O: np.ndarray, bag: LabelledBag, smoothing: float = 0.0) -> float:
    return task.target(bag, smoothing).loss(torch.tensor(logits_O)).item()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# -- many bags at one go -----------------------------------------------------------------------


@EVERY_TASK
@given(seed=st.integers(0, 2**32), smoothing=st.sampled_from([0.0, 0.2]))
def test_losses_of_many_bags_are_those_of_each(task: Task, seed: int, smoothing: float) -> None:
    rng = np.random.default_rng(seed)
    bags = [bag(int(rng.integers(len(task.names))), event=rng.random() < 0.5) for _ in range(6)]
    logits_BO = torch.tensor(rng.normal(scale=5, size=(6, task.num_outputs)), requires_grad=True)
    together_B = task.losses(logits_BO, bags, smoothing)
    pairs = zip(bags, logits_BO, strict=True)
    each_B = torch.stack([task.target(own, smoothing).loss(row_O) for own, row_O in pairs])
    torch.testing.assert_close(together_B, each_B)
    slopes = [torch.autograd.grad(losses.sum(), logits_BO)[0] for losses in (together_B, each_B)]
    torch.testing.assert_close(*slopes)


# -- survival ----------------------------------------------------------------------------------


def histofl_loss(logits_T: np.ndarray, interval: int, censored: int, alpha: float) -> float:
    """``nll_loss`` of HistoFL and MCAT (utils/core_utils.py), without its epsilon."""
    hazards = sigmoid(logits_T)
    survival = np.cumprod(1 - hazards)
    padded = np.concatenate([[1.0], survival])  # S(-1) = 1: all are alive at the start
    uncensored = -(1 - censored) * (np.log(padded[interval]) + np.log(hazards[interval]))
    of_censored = -censored * np.log(padded[interval + 1])
    both = of_censored + uncensored
    return float((1 - alpha) * both + alpha * uncensored)


@given(logits(4), st.integers(0, 3), st.booleans(), st.floats(0, 1))
def test_the_survival_loss_is_histofls(
    logits_T: np.ndarray, interval: int, event: bool, alpha: float
) -> None:
    task = Survival(SURVIVAL.names, "slide", CUTS, alpha)
    found = loss_of(task, logits_T, bag(interval, event=event))
    expected = histofl_loss(logits_T, interval, int(not event), alpha)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(logits(4))
def test_hazards_make_a_distribution(logits_T: np.ndarray) -> None:
    # The chance of an event in every interval, and of none, add up to 1.
    losses = [loss_of(SURVIVAL, logits_T, bag(t, event=True)) for t in range(4)]
    never = Survival(SURVIVAL.names, "slide", CUTS, 0.0)
    losses.append(loss_of(never, logits_T, bag(3, event=False)))
    assert np.exp(-np.array(losses)).sum() == pytest.approx(1)


@given(logits(4))
def test_the_risk_is_minus_the_expected_number_of_intervals(logits_T: np.ndarray) -> None:
    expected = -np.cumprod(1 - sigmoid(logits_T)).sum()
    evidence_BE = evidence_of(SURVIVAL, logits_T)
    assert evidence_BE[0, 0] == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(SURVIVAL.predict(evidence_BE), evidence_BE.astype(np.float32))


@given(logits(4), st.integers(0, 3), st.floats(0.5, 5))
def test_a_higher_hazard_is_a_higher_risk(logits_T: np.ndarray, t: int, more: float) -> None:
    raised = logits_T.copy()
    raised[t] += more
    assert evidence_of(SURVIVAL, raised) >= evidence_of(SURVIVAL, logits_T)
    assert evidence_of(SURVIVAL, np.zeros(4) + more) > evidence_of(SURVIVAL, np.zeros(4))


@given(st.floats(0, 20))
def test_an_interval_begins_with_its_cut(time: float) -> None:
    t = SURVIVAL.interval(time)
    edges = [-math.inf, *CUTS, math.inf]
    assert edges[t] <= time < edges[t + 1]
    assert [SURVIVAL.interval(cut) for cut in CUTS] == [1, 2, 3]


# -- grades ------------------------------------------------------------------------------------


@given(logits(3))
def test_probabilities_of_grades_are_continuation_ratios(logits_O: np.ndarray) -> None:
    found = ORDINAL.predict(evidence_of(ORDINAL, logits_O))[0]
    higher = [1.0, *np.cumprod(sigmoid(logits_O)), 0.0]  # P(y > k - 1)
    expected = [higher[k] - higher[k + 1] for k in range(4)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.sum() == pytest.approx(1, abs=1e-6)
    assert (found >= 0).all()
    above = 1 - np.cumsum(found[:-1])
    assert (np.diff(above) <= 1e-6).all()


@given(logits(3), st.integers(0, 3), st.sampled_from([0.0, 0.3]))
def test_the_ordinal_loss_is_the_cross_entropy_of_the_prediction(
    logits_O: np.ndarray, grade: int, smoothing: float
) -> None:
    reached = np.concatenate([[1.0], np.cumprod(sigmoid(logits_O))])
    probability = reached * np.concatenate([1 - sigmoid(logits_O), [1.0]])
    weight = np.full(4, smoothing / 4)
    weight[grade] += 1 - smoothing
    expected = -(weight * np.log(probability)).sum()
    found = loss_of(ORDINAL, logits_O, bag(grade), smoothing)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("grade", range(4))
def test_a_grade_is_present_for_every_threshold_below_it(grade: int) -> None:
    target = ORDINAL.target(bag(grade))
    # Output k compares grade k with those above: it says nothing of lower grades.
    assert target.present_O == tuple(grade > k if grade >= k else None for k in range(3))
    assert target.absent_counts


# -- classes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [BINARY, MULTICLASS], ids=["binary", "multiclass"])
@given(st.data())
def test_the_loss_of_classes_is_pytorchs(task: Task, data: st.DataObject) -> None:
    logits_O = data.draw(logits(task.num_outputs))
    label = data.draw(st.integers(0, task.num_outputs - 1))
    smoothing = data.draw(st.sampled_from([0.0, 0.1, 0.9]))
    tensor, index = torch.tensor(logits_O), torch.tensor(label)
    expected = F.cross_entropy(tensor, index, label_smoothing=smoothing).item()
    assert loss_of(task, logits_O, bag(label), smoothing) == expected
    hard = F.one_hot(index, task.num_outputs).double()
    shared = (1 - smoothing) * hard + smoothing / task.num_outputs
    assert expected == pytest.approx(F.cross_entropy(tensor, shared).item(), abs=1e-9)
    assert task.target(bag(label)).present_O == tuple(k == label for k in range(task.num_outputs))


@given(logits(2, 50.0))
def test_a_binary_prediction_is_the_softmax(logits_O: np.ndarray) -> None:
    evidence_BE = evidence_of(BINARY, logits_O)
    assert evidence_BE[0, 0] == logits_O[1] - logits_O[0]
    expected = torch.softmax(torch.tensor(logits_O), 0)[1].item()
    assert BINARY.predict(evidence_BE)[0, 0] == pytest.approx(expected, rel=1e-6, abs=1e-30)
    assert not BINARY.target(bag(1)).absent_counts  # normal tiles lie in tumour slides too


@given(logits(4, 50.0), st.floats(-100, 100))
def test_a_multiclass_prediction_is_the_softmax_whatever_logits_have_in_common(
    logits_O: np.ndarray, common: float
) -> None:
    evidence_BE = evidence_of(MULTICLASS, logits_O + common)
    expected = torch.softmax(torch.tensor(logits_O), 0).numpy()
    np.testing.assert_allclose(MULTICLASS.predict(evidence_BE)[0], expected, atol=1e-6)
    np.testing.assert_allclose(evidence_BE, evidence_of(MULTICLASS, logits_O), atol=1e-9)
    assert evidence_BE.sum() == pytest.approx(0, abs=1e-9)


# -- every task --------------------------------------------------------------------------------


@EVERY_TASK
@given(st.data())
def test_gradients_and_predictions_are_finite_at_extreme_logits(
    task: Task, data: st.DataObject
) -> None:
    values = st.sampled_from([-1e4, -50.0, 0.0, 50.0, 1e4])
    drawn = data.draw(st.lists(values, min_size=task.num_outputs, max_size=task.num_outputs))
    label = data.draw(st.integers(0, len(task.names) - 1))
    for event in (True, False):
        logits_O = torch.tensor(drawn, dtype=torch.float32, requires_grad=True)
        loss = task.target(bag(label, event=event)).loss(logits_O)
        (gradient_O,) = torch.autograd.grad(loss, logits_O)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient_O).all()
    evidence_BE = task.evidence(torch.tensor([drawn]))
    assert evidence_BE.dtype == torch.float32
    predictions_BS = task.predict(evidence_BE.numpy())
    assert np.isfinite(predictions_BS).all()
    assert predictions_BS.dtype == np.float32


@EVERY_TASK
@given(st.data())
def test_bags_are_predicted_one_by_one(task: Task, data: st.DataObject) -> None:
    size = (data.draw(st.integers(0, 4)), task.num_outputs)
    logits_BO = data.draw(hnp.arrays(np.float32, size, elements=st.floats(-20, 20, width=32)))
    evidence_BE = task.evidence(torch.tensor(logits_BO))
    assert evidence_BE.shape == (len(logits_BO), task.num_evidence)
    together = task.predict(evidence_BE.numpy())
    apart = [task.predict(evidence_BE[i : i + 1].numpy())[0] for i in range(len(logits_BO))]
    np.testing.assert_array_equal(together, np.array(apart).reshape(together.shape))


def steps_to(task: Task, about: LabelledBag, steps: int = 400) -> Tensor:
    """Logits that gradient descent on one bag's loss finds from 0."""
    logits_O = torch.zeros(task.num_outputs, requires_grad=True)
    for _ in range(steps):
        (slope_O,) = torch.autograd.grad(task.target(about).loss(logits_O), logits_O)
        logits_O = (logits_O - 0.5 * slope_O).detach().requires_grad_(True)
    return logits_O.detach()


@pytest.mark.parametrize("task", [MULTICLASS, ORDINAL], ids=["multiclass", "ordinal"])
@pytest.mark.parametrize("label", range(4))
def test_what_the_loss_asks_for_is_predicted(task: Task, label: int) -> None:
    evidence_BE = task.evidence(steps_to(task, bag(label))[None]).numpy()
    assert task.predict(evidence_BE)[0].argmax() == label


def test_the_survival_loss_puts_events_in_order_and_the_censored_last() -> None:
    risks = [SURVIVAL.evidence(steps_to(SURVIVAL, bag(t, event=True))[None]) for t in range(4)]
    risks.append(SURVIVAL.evidence(steps_to(SURVIVAL, bag(3, event=False))[None]))
    assert risks == sorted(risks, reverse=True)
    assert len(set(map(float, risks))) == 5


def test_the_label_of_a_case() -> None:
    for task in (BINARY, ORDINAL):
        assert (task.case_label({0, 1}), task.case_label({0}), task.case_label({1})) == (1, 0, 1)
    assert ORDINAL.case_label({0, 3, 2}) == 3
    assert (MULTICLASS.case_label({2}), MULTICLASS.case_label({2, 1})) == (2, None)
    assert SURVIVAL.case_label({3}) == 3


def test_strata_are_classes_or_events() -> None:
    for task in (BINARY, MULTICLASS, ORDINAL):
        assert [task.stratum(bag(k, event=True)) for k in range(2)] == [0, 1]
    assert [SURVIVAL.stratum(bag(3, event=event)) for event in (False, True)] == [0, 1]
