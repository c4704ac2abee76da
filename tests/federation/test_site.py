"""How a site trains: optimisers that go on, fine-tuning, steps and halves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from one_site import ask, plan, trained_by_hand
from torch import Tensor

from rayfed_hn.federation.data import SiteBag, halves
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.site import Site
from rayfed_hn.models import cohort
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.tasks import Binary
from rayfed_hn.models.training import train_locally

BINARY = Binary(("normal", "tumour"))


@pytest.mark.parametrize("optimiser", ["adam", "momentum"])
def test_a_kept_optimiser_is_passed_from_turn_to_turn(bag_root: Path, optimiser: str) -> None:
    words = ["method.name=fedavg", f"training.optimiser={optimiser}"]
    keeping = plan(bag_root, *words, "training.keep_optimiser=true")
    site, fresh = keeping.site("north"), plan(bag_root, *words).site("north")
    theta, moments = keeping.initial(), None
    for turn in range(3):
        trained = train_locally(
            keeping.model(),
            theta,
            site.data.train,
            keeping.config.training,
            task=keeping.task,
            learning_rate=keeping.learning_rate,
            num_steps=3,
            seed=site._trainer._seed("local training", turn),
            moments=moments,
        )
        expected, moments = (theta - trained.parameters).numpy(), trained.moments
        np.testing.assert_array_equal(ask(site, turn, theta).update, expected)
        assert np.array_equal(ask(fresh, turn, theta).update, expected) == (turn == 0)
        theta = theta * 1.01


@pytest.mark.parametrize(("steps", "words"), [(15, []), (7, ["training.fine_tuning_steps=7"])])
def test_fedavg_ft_is_fedavg_and_then_a_training_at_every_site(
    bag_root: Path, steps: int, words: list[str]
) -> None:
    tuning = plan(bag_root, "method.name=fedavg_ft", *words)
    shared = plan(bag_root, "method.name=fedavg")
    tuned, plain = run_in_process(tuning), run_in_process(shared)
    assert tuned.digest == plain.digest
    for one, other in zip(tuned.scores, plain.scores, strict=True):
        site = shared.site(one.site)
        theta = torch.from_numpy(plain.server.parameters_for(one.site))
        own = trained_by_hand(shared, site, theta, 0, "fine-tuning", num_steps=steps)
        last_B = score_bags(shared.model(), own, site.data.test, BINARY).evidence_BE
        np.testing.assert_array_equal(one.last_BE, last_B)
        assert not np.array_equal(one.last_BE, other.last_BE)


def test_no_steps_of_fine_tuning_are_no_fine_tuning(bag_root: Path) -> None:
    none = plan(bag_root, "method.name=fedavg_ft", "training.fine_tuning_steps=0")
    plain = plan(bag_root, "method.name=fedavg")
    for one, other in zip(run_in_process(none).scores, run_in_process(plain).scores, strict=True):
        np.testing.assert_array_equal(one.last_BE, other.last_BE)


def test_fine_tuning_keeps_a_hypernetworks_rule(bag_root: Path) -> None:
    methods = ("hypernetwork", "hypernetwork_ft", "pfedhn", "pfedhn_ft")
    digests = [run_in_process(plan(bag_root, f"method.name={m}")).digest for m in methods]
    assert digests[0] == digests[1] != digests[2] == digests[3]


@pytest.mark.parametrize(("epochs", "steps"), [(2.0, 12), (0.5, 3), (0.01, 1)])
def test_epochs_are_passes_over_the_training_bags(
    bag_root: Path, epochs: float, steps: int
) -> None:
    passes = plan(bag_root, "method.name=fedavg", f"training.epochs={epochs}")
    assert passes.num_bags["north"][0] == 6
    assert ask(passes.site("north"), 0, passes.initial()).num_steps == steps
    pooled = plan(bag_root, "method.name=pooled", "training.epochs=2")
    assert ask(pooled.site("pooled"), 0, pooled.initial()).num_steps == 2 * 18


def labelled(labels: list[int]) -> list[SiteBag]:
    return [SiteBag(np.zeros((1, 1), np.float32), label, i, i) for i, label in enumerate(labels)]


@given(st.lists(st.integers(0, 1), min_size=2, max_size=30), st.integers(0, 2**62))
def test_halves_are_disjoint_and_stratified(labels: list[int], seed: int) -> None:
    one, other = halves(labelled(labels), labels, seed)
    slides = [[bag.slide for bag in half] for half in (one, other)]
    assert not set(slides[0]) & set(slides[1])
    assert sorted(slides[0] + slides[1]) == list(range(len(labels)))
    assert abs(len(one) - len(other)) <= 1
    for label in (0, 1):
        counts = [sum(bag.label == label for bag in half) for half in (one, other)]
        assert abs(counts[0] - counts[1]) <= 1


def test_a_single_bag_is_both_halves() -> None:
    one, other = halves(labelled([1]), [1], 0)
    assert [bag.slide for bag in one] == [bag.slide for bag in other] == [0]
    assert [bag.slide for bag in halves(labelled([0, 1, 0, 1, 1]), [0, 1, 0, 1, 1], 3)[0]] == [
        bag.slide for bag in halves(labelled([0, 1, 0, 1, 1]), [0, 1, 0, 1, 1], 3)[0]
    ]


def test_every_draw_has_a_seed_of_its_own(bag_root: Path) -> None:
    usual = plan(bag_root)
    seeds = {
        site._trainer._seed(purpose, turn)
        for site in map(usual.site, ("north", "south"))
        for purpose in ("local training", "halves", "paper noise", "fine-tuning")
        for turn in range(3)
    }
    assert len(seeds) == 2 * 4 * 3
    assert plan(bag_root, "run.seed=1").site("north")._trainer._seed("halves", 0) not in seeds


def seen_bags(
    monkeypatch: pytest.MonkeyPatch, site: Site, theta: Tensor, turns: range
) -> list[set[int]]:
    """The bags that a site trains on in every turn."""
    inner: Callable[..., Any] = cohort.train_locally
    found: list[set[int]] = []

    def spy(model: Any, parameters: Tensor, bags: tuple[SiteBag, ...], *rest: Any, **options: Any):
        found.append({bag.slide for bag in bags})
        return inner(model, parameters, bags, *rest, **options)

    monkeypatch.setattr(cohort, "train_locally", spy)
    for turn in turns:
        ask(site, turn, theta, version=min(turn, 3))
    return found


@pytest.mark.parametrize("estimate", ["rho", "kernel"])
def test_two_turns_of_a_pair_see_different_halves(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch, estimate: str
) -> None:
    estimating = plan(bag_root, f"hypernetwork.estimate={estimate}")
    site = estimating.site("north")
    everything = {bag.slide for bag in site.data.train}
    seen = seen_bags(monkeypatch, site, estimating.initial(), range(8))
    for first in range(0, 8, 2):
        assert not seen[first] & seen[first + 1]
        assert seen[first] | seen[first + 1] == everything
    assert len({frozenset(seen[turn]) for turn in range(0, 8, 2)}) > 1  # divided anew every pair


@pytest.mark.parametrize("words", [[], ["method.name=fedavg", "hypernetwork.estimate=rho"]])
def test_without_an_estimate_every_turn_sees_everything(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    usual = plan(bag_root, *words)
    site = usual.site("north")
    seen = seen_bags(monkeypatch, site, usual.initial(), range(3))
    assert seen == [{bag.slide for bag in site.data.train}] * 3
