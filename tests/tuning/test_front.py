"""Which trials are best, and which no other beats in two things: against an oracle."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.tuning.front import best, front

COARSE = st.integers(0, 4).map(float)  # many equal ones


@st.composite
def trials(draw: st.DrawFn) -> list[dict[str, Any]]:
    pairs = draw(st.lists(st.tuples(COARSE | st.none(), COARSE | st.none()), max_size=12))
    return [
        {
            "trial": n,
            "status": draw(st.sampled_from(("finished", "finished", "stopped", "failed"))),
            "validation_metric": metric,
            "epsilon": amount,
            "noise_scale": amount,
        }
        for n, (metric, amount) in enumerate(pairs)
    ]


def oracle(records: list[dict[str, Any]], name: str, sign: float) -> set[int]:
    """Those for which nobody is at least as good in both and better in one, pair by pair."""
    valid = [
        (r["validation_metric"], sign * r[name], r["trial"])
        for r in records
        if r["status"] == "finished" and None not in (r["validation_metric"], r[name])
    ]
    return {
        number
        for metric, amount, number in valid
        if not any(m >= metric and a >= amount and (m > metric or a > amount) for m, a, _ in valid)
    }


@given(trials(), st.sampled_from((("epsilon", -1.0), ("noise_scale", 1.0))))
def test_the_front_is_what_nobody_beats(
    records: list[dict[str, Any]], objective: tuple[str, float]
) -> None:
    name, sign = objective
    found = front(records, ["validation_metric", name])
    assert len(set(found)) == len(found)
    assert set(found) == oracle(records, name, sign)
    amounts = [sign * records[n][name] for n in found]
    metrics = [records[n]["validation_metric"] for n in found]
    assert amounts == sorted(amounts, reverse=True)
    assert metrics == sorted(metrics)


@given(trials())
def test_the_best_has_the_highest_metric_and_is_the_first_of_these(
    records: list[dict[str, Any]],
) -> None:
    valid = [r for r in records if r["status"] == "finished" and r["validation_metric"] is not None]
    found = best(records)
    if not valid:
        assert found is None
        return
    assert found is not None
    top = max(r["validation_metric"] for r in valid)
    assert found["trial"] == min(r["trial"] for r in valid if r["validation_metric"] == top)


def test_stopped_trials_are_never_best() -> None:
    stopped = {"trial": 0, "status": "stopped", "validation_metric": 1.0}
    done = {"trial": 1, "status": "finished", "validation_metric": 0.5}
    assert best([stopped, done]) == done
