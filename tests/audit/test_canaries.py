"""Made-up bags and updates, put in by coins: what they find, and that true promises survive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audited_runs import DIM, DPSGD, SITE_LDP, attacked, plan_of

from rayfed_hn.audit.canaries import REACH, guess_canaries, make_canaries, with_canaries
from rayfed_hn.audit.coins import play_sites
from rayfed_hn.audit.measures import measure
from rayfed_hn.audit.run import on_scale
from rayfed_hn.audit.verdict import BAGS, GAUSSIAN, PromiseCheck, bounds, towards_bag
from rayfed_hn.federation import plan as plans
from rayfed_hn.federation.plan import Plan
from rayfed_hn.privacy.accounting import Spent
from rayfed_hn.privacy.mechanisms import SiteGaussian, TrainedPrivately


def nothing(what: str, done: int, total: int) -> None:
    pass


def by_canaries(plan: Plan) -> dict[str, PromiseCheck]:
    return {one.by: one for one in bounds(plan, nothing)}


def test_canaries_are_far_out_and_at_right_angles(leaky_root: Path) -> None:
    plan = plan_of(leaky_root)
    canaries = make_canaries(on_scale(plan), plan.task, 11, seed=0)
    assert [c.site for c in canaries] == ["north"] * 6 + ["south"] * 5
    features_MD = torch.stack([c.bag.tensor()[0] for c in canaries if c.site == "north"])
    gram_MM = features_MD @ features_MD.T
    torch.testing.assert_close(gram_MM, REACH**2 * DIM * torch.eye(6), atol=1e-2, rtol=0)
    assert len({c.bag.case for c in canaries}) == 11


def test_only_coins_decide_who_is_there(leaky_root: Path) -> None:
    plan = plan_of(leaky_root)
    data = on_scale(plan)
    canaries = make_canaries(data, plan.task, 40, seed=1)
    bags = with_canaries(data, canaries)
    there = {bag.slide for own in bags.values() for bag in own.train}
    assert [c.bag.slide in there for c in canaries] == [c.included for c in canaries]
    assert 8 < sum(c.included for c in canaries) < 32
    again = make_canaries(data, plan.task, 40, seed=1)
    assert [c.included for c in again] == [c.included for c in canaries]


def test_without_noise_canaries_are_found(leaky_root: Path) -> None:
    found = by_canaries(plan_of(leaky_root, "audit.repeats=2"))
    assert list(found) == [BAGS]
    test = found[BAGS]
    assert test.promised is None
    assert not test.broken
    assert test.guessing is not None
    assert test.guessing.auc > 0.8
    assert 0.5 < test.bound.epsilon <= test.bound.most


def test_behind_strong_noise_they_are_not(leaky_root: Path) -> None:
    for test in by_canaries(plan_of(leaky_root, *SITE_LDP)).values():
        assert not test.broken
        assert test.promised == pytest.approx(1, abs=1e-6)
    guessed = guess_canaries(plan_of(leaky_root, *SITE_LDP))
    each = np.arange(len(guessed.score_M))
    told = measure(guessed.included_M, guessed.score_M, each, level=0.95)
    assert told is not None
    assert told.auc_low < 0.5 < told.auc_high


def test_repeats_have_coins_and_noise_of_their_own(leaky_root: Path) -> None:
    plan = plan_of(leaky_root, "audit.repeats=2", "rounds.num_versions=1", "training.steps=2")
    versions: list[None] = []
    guessed = guess_canaries(plan, lambda: versions.append(None))
    assert len(versions) == 2
    one, other = np.split(guessed.included_M, 2)
    assert not np.array_equal(one, other)
    first_M, second_M = np.split(guessed.score_M, 2)
    assert not np.allclose(first_M, second_M)


@dataclass(frozen=True)
class LyingGaussian(SiteGaussian):
    """It adds a hundredth of the noise that it speaks of."""

    @property
    def deviation(self) -> float:
        return super().deviation / 100


@dataclass(frozen=True)
class LyingSteps(TrainedPrivately):
    """It speaks of a thousand times the noise that it adds."""

    def spent(self, steps: int) -> Spent | None:
        true = super().spent(steps)
        assert true is not None
        return Spent(true.unit, true.neighbouring, 1000 * true.multiplier, true.rate, true.steps)


def put_in(monkeypatch: pytest.MonkeyPatch, mechanism: Any) -> None:
    monkeypatch.setattr(plans, "make_mechanism", lambda privacy, multiplier: mechanism)


def test_a_lie_about_site_noise_is_found(leaky_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(leaky_root, *SITE_LDP)
    assert plan.noise_multiplier is not None
    put_in(monkeypatch, LyingGaussian(1.0, plan.noise_multiplier, "replace"))
    found = by_canaries(plan)
    assert all(found[by].broken for by in found if by != BAGS)


@pytest.mark.parametrize("neighbouring", ["replace", "zero_out"])
def test_half_the_noise_is_found_and_all_of_it_is_not(
    leaky_root: Path, monkeypatch: pytest.MonkeyPatch, neighbouring: Any
) -> None:
    """The classical slip: a sensitivity of C where 2 C is right."""
    words = (*SITE_LDP[:1], "privacy.target_epsilon=8", f"privacy.neighbouring={neighbouring}")
    plan = plan_of(leaky_root, *words, "audit.coins=400")
    assert plan.noise_multiplier is not None
    true = by_canaries(plan)
    assert not any(test.broken for test in true.values())
    assert 2 < true[GAUSSIAN].bound.epsilon < 8

    @dataclass(frozen=True)
    class Half(SiteGaussian):
        @property
        def deviation(self) -> float:
            return super().deviation / 2

    put_in(monkeypatch, Half(1.0, plan.noise_multiplier, neighbouring))
    assert by_canaries(plan)[GAUSSIAN].broken


def test_a_lie_about_private_steps_is_found(
    leaky_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(leaky_root, *DPSGD, "training.steps=20", "audit.repeats=3")
    put_in(monkeypatch, TrainedPrivately("patient", 1.0, 20.0, 0.1))
    assert not by_canaries(plan)[BAGS].broken
    put_in(monkeypatch, LyingSteps("patient", 1.0, 0.02, 0.1))
    assert by_canaries(plan)[BAGS].broken


def test_against_no_update_at_all_a_bag_may_change_twice_as_much(leaky_root: Path) -> None:
    replace, zero_out = (
        towards_bag(plan_of(leaky_root, *SITE_LDP, f"privacy.neighbouring={kind}"))
        for kind in ("replace", "zero_out")
    )
    assert replace == pytest.approx(1)
    assert zero_out is not None
    assert zero_out > 2


def test_plays_are_as_many_as_asked_for_and_repeat(leaky_root: Path) -> None:
    plan = plan_of(leaky_root, *SITE_LDP)
    mechanism = plan.mechanism()
    assert isinstance(mechanism, SiteGaussian)
    one, other = play_sites(plan, mechanism), play_sites(plan, mechanism)
    assert len(one.score_M) == 100
    np.testing.assert_array_equal(one.score_M, other.score_M)
    np.testing.assert_array_equal(one.included_M, other.included_M)


def test_canaries_of_some_sites_only(leaky_root: Path) -> None:
    plan = plan_of(leaky_root, "audit.sites=south", "rounds.num_versions=1", "training.steps=2")
    assert len(guess_canaries(plan).score_M) == 32
    assert list(attacked(leaky_root, "audit.sites=south").sites) == ["south"]
