from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rayfed_hn.evaluation.metrics import auc
from rayfed_hn.evaluation.survival import concordance_index, kaplan_meier, logrank

# Few distinct times and risks make ties the rule, at events and at censored bags alike.
_BAG = st.tuples(st.integers(0, 6), st.integers(0, 1), st.integers(-2, 2))
_BAGS = st.lists(_BAG, max_size=25)


def _split(bags: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    times_B, events_B, thirds_B = np.array(bags, dtype=int).reshape(-1, 3).T
    return times_B, events_B, thirds_B


def _oracle_concordance(bags: list[tuple[int, int, int]]) -> float | None:
    pairs, won = 0, 0.0
    for time_i, event_i, risk_i in bags:
        for time_j, event_j, risk_j in bags:
            earlier = time_i < time_j and event_i
            outlasted = time_i == time_j and event_i and not event_j
            if earlier or outlasted:
                pairs += 1
                won += (risk_i > risk_j) + (risk_i == risk_j) / 2
    return won / pairs if pairs else None


@given(_BAGS)
def test_concordance_is_the_share_of_comparable_pairs_in_order(bags: list) -> None:
    assert concordance_index(*_split(bags)) == _oracle_concordance(bags)


def test_concordance_agrees_with_the_double_loop_at_size() -> None:
    rng = np.random.default_rng(5)
    bags = list(
        zip(
            rng.integers(90, size=400),
            rng.random(400) < 0.6,
            rng.integers(70, size=400),
            strict=True,
        )
    )
    assert concordance_index(*zip(*bags, strict=True)) == _oracle_concordance(bags)


@given(_BAGS, st.randoms())
def test_concordance_is_of_orders_alone(bags: list, random) -> None:
    found = concordance_index(*_split(bags))
    random.shuffle(bags)
    times, events, risks = _split(bags)
    assert concordance_index(np.expm1(times), events.astype(bool), risks**3 / 7) == found


@given(_BAGS)
def test_turning_risks_round_turns_concordance_round(bags: list) -> None:
    times, events, risks = _split(bags)
    found, turned = (concordance_index(times, events, sign * risks) for sign in (1, -1))
    assert (found is None) == (turned is None)
    if found is not None and turned is not None:
        assert found + turned == pytest.approx(1)


@given(_BAGS)
def test_concordance_of_the_best_is_1_and_of_a_constant_a_half(bags: list) -> None:
    times, events, _ = _split(bags)
    best = 1 - 2 * times + events  # at one time the event before the censored
    found = [concordance_index(times, events, risk) for risk in (best, np.zeros(len(bags)))]
    assert found == ([None, None] if _oracle_concordance(bags) is None else [1, 0.5])


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), max_size=25))
def test_concordance_of_events_then_censored_is_the_auc(bags: list[tuple[int, int]]) -> None:
    events, risks = [event for event, _ in bags], [risk for _, risk in bags]
    assert concordance_index([4.0] * len(bags), events, risks) == auc(events, risks)


def test_who_is_comparable() -> None:
    assert concordance_index([1, 2], [1, 0], [2, 1]) == 1
    assert concordance_index([1, 2], [0, 1], [2, 1]) is None  # unknown whether 1 outlived 2
    assert concordance_index([2, 2], [1, 0], [1, 2]) == 0
    assert concordance_index([2, 2], [1, 1], [1, 2]) is None


def test_twenty_thousand_bags_fit_in_little_memory() -> None:
    rng = np.random.default_rng(7)
    times, risks = rng.permutation(20_000), rng.normal(size=20_000)
    risks -= times / 20_000
    tracemalloc.start()
    found = concordance_index(times, np.ones(20_000), risks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tau = np.asarray(stats.kendalltau(times, -risks))[0]  # without ties: concordant less discordant
    assert found == pytest.approx((tau + 1) / 2, abs=1e-12)
    assert peak < 20_000 * 8 * 100  # a matrix of pairs has 20,000 such lists


def test_infinite_risks_have_an_order() -> None:
    assert concordance_index([1, 2, 3], [1, 1, 1], [math.inf, 0.0, -math.inf]) == 1


def test_a_survival_curve_worked_by_hand() -> None:
    # At risk: 8 at 1, of whom 1 dies; 6 at 3 (one left at 2), of whom 2 die and one leaves; 2 at 5
    # (one left at 4), of whom 1 dies; the last leaves at 6.
    times, events = [3, 1, 3, 3, 2, 4, 5, 6], [1, 1, 0, 1, 0, 0, 1, 0]
    time_V, survival_V = kaplan_meier(times, events)
    assert time_V.tolist() == [1, 3, 5]
    assert survival_V == pytest.approx([7 / 8, 7 / 8 * 4 / 6, 7 / 8 * 4 / 6 * 1 / 2])


@given(st.lists(_BAG, min_size=1, max_size=25))
def test_a_survival_curve_agrees_with_scipy(bags: list) -> None:
    times, events, _ = _split(bags)
    time_V, survival_V = kaplan_meier(times, events)
    assert time_V.tolist() == sorted({t for t, event, _ in bags if event})
    sample = stats.CensoredData.right_censored(times, events == 0)
    assert survival_V == pytest.approx(stats.ecdf(sample).sf.evaluate(time_V), abs=1e-12)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=25))
def test_a_survival_curve_without_censoring_is_the_share_left(times: list[int]) -> None:
    time_V, survival_V = kaplan_meier(times, np.ones(len(times)))
    left = [sum(t > at for t in times) / len(times) for at in time_V]
    assert survival_V == pytest.approx(left, abs=1e-12)
    assert survival_V[-1] == 0


def test_a_survival_curve_without_events_has_no_step() -> None:
    assert [found.tolist() for found in kaplan_meier([1, 2], [0, 0])] == [[], []]
    with pytest.raises(ValueError, match="needs a bag"):
        kaplan_meier([], [])


@given(_BAGS)
def test_logrank_agrees_with_scipy_and_is_blind_to_names(bags: list) -> None:
    times, events, thirds = _split(bags)
    groups = thirds > 0
    found = logrank(times, events, groups)
    dies_at = [(at, (times == at) & (events == 1)) for at in times[events == 1]]
    telling = [
        len(set(groups[times >= at])) == 2 and not dies_B[times >= at].all()
        for at, dies_B in dies_at
    ]
    assert (found is not None) == any(telling)
    if found is None:
        return
    one, other = (
        stats.CensoredData.right_censored(times[inside], events[inside] == 0)
        for inside in (groups, ~groups)
    )
    assert found == pytest.approx(stats.logrank(one, other).pvalue, abs=1e-9)
    assert found == pytest.approx(logrank(times, events, ~groups), abs=1e-9)


@pytest.mark.parametrize("group", [0, 1])
def test_one_group_has_no_p_value(group: int) -> None:
    assert logrank([1, 2, 3], [1, 1, 1], [group] * 3) is None


def test_no_bags_and_no_events_are_undefined() -> None:
    assert concordance_index([], [], []) is None
    assert logrank([], [], []) is None
    assert concordance_index([1, 2], [0, 0], [1, 2]) is None
    assert logrank([1, 2], [0, 0], [0, 1]) is None


@pytest.mark.parametrize(
    ("times", "events", "match"),
    [
        ([1, math.nan], [1, 0], "1 of 2 times are NaN"),
        ([1, math.inf], [1, 0], "finite"),
        ([1, -0.5], [1, 0], "at least 0"),
        ([1, 2], [1, 2], "events must be whole numbers from 0 to 1"),
        ([1, 2], [1, math.nan], "events must be"),
        ([1, 2], [1], "lists of one length"),
        ([[1, 2]], [[1, 0]], "lists of one length"),
    ],
)
def test_what_is_no_observation_is_refused(times, events, match: str) -> None:
    third = np.zeros(np.shape(times))
    for refused in (
        lambda: concordance_index(times, events, third),
        lambda: kaplan_meier(times, events),
        lambda: logrank(times, events, third),
    ):
        with pytest.raises(ValueError, match=match):
            refused()


def test_risks_and_groups_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 risks are NaN"):
        concordance_index([1, 2], [1, 1], [math.nan, 0])
    with pytest.raises(ValueError, match="lists of one length"):
        concordance_index([1, 2], [1, 1], [0])
    with pytest.raises(ValueError, match="groups must be whole numbers from 0 to 1"):
        logrank([1, 2], [1, 1], [0, 2])
