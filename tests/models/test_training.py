"""Every option of local training against PyTorch's own modules and against plain training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

from rayfed_hn.config import ModelConfig, TrainingConfig
from rayfed_hn.models import training
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.masks import CpuMasks
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import initial_parameters, make_model
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.tasks import Binary
from rayfed_hn.models.training import Trained, draw_bags, draw_rows, train_locally

MODEL = make_model(6, 2, ModelConfig(hidden_dim=5, attention_dim=4))
STILL = make_model(6, 2, ModelConfig(hidden_dim=5, attention_dim=4, dropout=0.0))
LAYOUT = ParameterLayout.of(MODEL)
START = initial_parameters(LAYOUT, seed=1)
RATE = 0.05

BINARY = Binary(("normal", "tumour"))


def some_bags(seed: int = 0, num: int = 6) -> list[LabelledBag]:
    rng = np.random.default_rng(seed)
    return [LabelledBag(rng.normal(size=(3 + i, 6)).astype(np.float32), i % 2) for i in range(num)]


BAGS, OTHERS = some_bags(), some_bags(1)


def train(num_steps: int = 12, *, model: Any = MODEL, seed: int = 3, **options: Any) -> Trained:
    """Train with some options of the configuration and some of the call."""
    call = {k: options.pop(k) for k in ("validation", "moments", "proximal_mu") if k in options}
    theta = options.pop("start", START)
    config = TrainingConfig(**options)
    return train_locally(
        model,
        theta,
        BAGS,
        config,
        task=BINARY,
        learning_rate=RATE,
        num_steps=num_steps,
        seed=seed,
        **call,
    )


def by_hand(
    optimiser: Callable[..., torch.optim.Optimizer],
    num_steps: int = 12,
    *,
    mu: float = 0.0,
    limit: float | None = None,
    bags: Sequence[LabelledBag] = BAGS,
    **options: Any,
) -> Tensor:
    """The same training over named tensors, every option in its textbook form."""
    named = {k: v.clone().requires_grad_(True) for k, v in LAYOUT.unflatten(START).items()}
    stepper = optimiser(named.values(), lr=RATE, **options)
    generator, labels = CpuMasks(3), [bag.label for bag in bags]
    for index in draw_bags(labels, num_steps, class_balanced=True, seed=3):
        logits, _ = functional_call(MODEL, named, (bags[index].tensor(), generator))
        loss = F.cross_entropy(logits, torch.tensor(labels[index]))
        for name, received in LAYOUT.unflatten(START).items():
            loss = loss + mu / 2 * (named[name] - received).square().sum()
        stepper.zero_grad()
        loss.backward()
        if limit is not None:
            torch.nn.utils.clip_grad_norm_(named.values(), limit)
        stepper.step()
    return LAYOUT.flatten(named)


# -- optimisers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "optimiser", "options"),
    [
        ("adam", torch.optim.Adam, {"weight_decay": 0.1}),
        ("adamw", torch.optim.AdamW, {"weight_decay": 0.1}),
        ("sgd", torch.optim.SGD, {"weight_decay": 0.1}),
        ("momentum", torch.optim.SGD, {"weight_decay": 0.1, "momentum": 0.9}),
    ],
)
def test_optimisers_are_pytorchs_over_the_named_tensors(
    name: str, optimiser: Callable[..., torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    ours = train(optimiser=name, weight_decay=0.1).parameters
    # Fused, as ours are: Adam makes much of how a gradient of zero is rounded.
    torch.testing.assert_close(ours, by_hand(optimiser, **options, fused=True))


def test_the_four_optimisers_are_different() -> None:
    names = ("adam", "adamw", "sgd", "momentum")
    ends = torch.stack([train(optimiser=n, weight_decay=0.1).parameters for n in names])
    gaps = torch.cdist(ends, ends)
    assert (gaps[~torch.eye(4, dtype=torch.bool)] > 1e-3).all()


# -- moments that are kept ---------------------------------------------------------------------


ORDER = np.array([0, 3, 1, 2, 5, 4, 1, 0, 2, 3])


def in_a_given_order(patch: pytest.MonkeyPatch, first: int) -> None:
    """Draw the bags of ``ORDER`` from here on, whatever the seed."""

    def draw(labels: Sequence[int], num_steps: int, **_: object) -> np.ndarray:
        return ORDER[first : first + num_steps]

    patch.setattr(training, "draw_bags", draw)


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd", "momentum"])
def test_two_calls_with_kept_moments_are_one_uninterrupted_call(
    monkeypatch: pytest.MonkeyPatch, optimiser: str
) -> None:
    # Without dropout, whose masks would begin anew.
    in_a_given_order(monkeypatch, 0)
    rest = {"model": STILL, "optimiser": optimiser, "keep_optimiser": True}
    whole, half = train(10, **rest), train(6, **rest)
    in_a_given_order(monkeypatch, 6)
    kept = {name: tensor.clone() for name, tensor in half.moments.items()}
    rest["start"] = half.parameters
    again = train(4, **rest, moments=half.moments)
    fresh = train(4, **rest)
    assert torch.equal(again.parameters, whole.parameters)
    assert again.moments.keys() == whole.moments.keys()
    for name, tensor in again.moments.items():
        assert torch.equal(tensor, whole.moments[name]), name
        assert torch.equal(half.moments[name], kept[name]), "what was passed in has changed"
    assert torch.equal(fresh.parameters, whole.parameters) == (optimiser == "sgd")


def test_plain_sgd_has_nothing_to_keep() -> None:
    assert train(optimiser="sgd", keep_optimiser=True).moments == {}
    assert train(optimiser="adam").moments == {}  # nobody asked for them
    assert set(train(optimiser="adam", keep_optimiser=True).moments) == {
        "step",
        "exp_avg",
        "exp_avg_sq",
    }


# -- FedProx -----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", ["adam", "momentum"])
def test_a_proximal_term_of_0_is_plain_training(optimiser: str) -> None:
    plain = train(optimiser=optimiser)
    assert torch.equal(train(optimiser=optimiser, proximal_mu=0.0).parameters, plain.parameters)
    assert not torch.equal(train(optimiser=optimiser, proximal_mu=0.1).parameters, plain.parameters)


def test_the_proximal_term_is_a_part_of_the_loss() -> None:
    ours = train(optimiser="sgd", proximal_mu=1.5, weight_decay=0.0).parameters
    torch.testing.assert_close(ours, by_hand(torch.optim.SGD, mu=1.5))


def test_a_stronger_pull_stays_nearer() -> None:
    def moved(mu: float) -> float:
        ended = train(40, optimiser="sgd", proximal_mu=mu).parameters
        return float((ended - START).norm())

    assert moved(10.0) < 0.5 * moved(1.0) < 0.5 * moved(0.0)


def test_the_reported_loss_is_the_cross_entropy_alone() -> None:
    pulled = train(optimiser="sgd", proximal_mu=1e-12)
    assert pulled.loss == pytest.approx(train(optimiser="sgd").loss)
    assert train(1, optimiser="sgd", proximal_mu=5.0).loss == train(1, optimiser="sgd").loss


# -- clipping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mu", [0.0, 2.0])
def test_clipping_is_of_the_joint_norm_and_of_the_whole_gradient(mu: float) -> None:
    ours = train(optimiser="sgd", clip_gradient=0.3, proximal_mu=mu, weight_decay=0.0).parameters
    torch.testing.assert_close(ours, by_hand(torch.optim.SGD, limit=0.3, mu=mu))
    assert not torch.allclose(ours, by_hand(torch.optim.SGD, mu=mu))


@given(st.floats(1e-3, 1.0), st.integers(1, 5))
@settings(deadline=None, max_examples=25)
def test_clipped_steps_are_bounded(limit: float, num_steps: int) -> None:
    ended = train(num_steps, optimiser="sgd", clip_gradient=limit, weight_decay=0.0).parameters
    assert (ended - START).norm() <= num_steps * RATE * limit * (1 + 1e-4) + 1e-6


def test_a_limit_that_is_never_reached_changes_nothing() -> None:
    loose = train(clip_gradient=1e6).parameters
    assert torch.equal(loose, train().parameters)


# -- early stopping ----------------------------------------------------------------------------


LONG = 26


@cache
def looks(every: int, seed: int) -> list[tuple[float, Trained]]:
    """Plain trainings of as many steps as there are at each look, and their validation losses.

    Draws and masks of a shorter training are the first ones of a longer one.
    """
    found = []
    for steps in [*range(every, LONG, every), LONG]:
        trained = train(steps, seed=seed)
        found.append((score_bags(MODEL, trained.parameters, OTHERS, BINARY).loss, trained))
    return found


@pytest.mark.parametrize("patience", [1, 2, 50])
@pytest.mark.parametrize(("every", "seed"), [(3, 0), (3, 3), (4, 1), (20, 3)])
def test_patience_stops_and_keeps_the_best(patience: int, every: int, seed: int) -> None:
    expected, in_vain, steps = None, 0, LONG
    for number, (loss, trained) in enumerate(looks(every, seed), 1):
        if expected is None or loss < expected[0]:
            expected, in_vain = (loss, trained), 0
        else:
            in_vain += 1
        if in_vain == patience:
            steps = min(number * every, LONG)
            break
    ours = train(LONG, seed=seed, patience=patience, look_every=every, validation=OTHERS)
    assert expected is not None
    assert torch.equal(ours.parameters, expected[1].parameters)
    assert ours.num_steps == steps
    assert ours.loss == train(steps, seed=seed).loss  # of the steps that were taken


def test_these_trainings_do_stop_early_and_before_their_end_is_best() -> None:
    # Otherwise the test above would show nothing.
    early = train(LONG, patience=1, look_every=3, validation=OTHERS)
    late = train(LONG, patience=50, look_every=3, validation=OTHERS)
    assert early.num_steps < LONG == late.num_steps
    assert not torch.equal(late.parameters, train(LONG).parameters)


def test_patience_without_validation_bags_never_stops() -> None:
    ours = train(30, patience=1, look_every=2)
    assert ours.num_steps == 30
    assert torch.equal(ours.parameters, train(30).parameters)


def test_validation_bags_without_patience_are_not_looked_at() -> None:
    assert torch.equal(train(validation=OTHERS).parameters, train().parameters)


# -- tiles and steps ---------------------------------------------------------------------------


def test_as_many_tiles_as_there_are_is_plain_training() -> None:
    assert torch.equal(train(max_instances=8).parameters, train().parameters)
    assert not torch.equal(train(max_instances=7).parameters, train().parameters)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32))
def test_some_tiles_are_different_tiles_in_their_order(num: int, limit: int, seed: int) -> None:
    rows = np.arange(num * 2, dtype=np.float32).reshape(num, 2)
    config = TrainingConfig(max_instances=limit)
    chosen = draw_rows(len(rows), config, np.random.default_rng(seed))
    drawn = LabelledBag(rows, 0).tensor(rows=chosen)
    assert drawn.shape == (min(num, limit), 2)
    numbers = (drawn[:, 0] / 2).tolist()
    assert numbers == sorted(set(numbers))
    np.testing.assert_array_equal(drawn, rows[[int(n) for n in numbers]])


def test_tiles_are_drawn_anew_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, bytes]] = []
    inner = LabelledBag.tensor

    def spy(self: LabelledBag, *args: Any) -> Tensor:
        tensor = inner(self, *args)
        seen.append((len(self.features_ND), tensor.numpy().tobytes()))
        return tensor

    monkeypatch.setattr(LabelledBag, "tensor", spy)
    train(60, max_instances=4, class_balanced=False)
    large = [content for num, content in seen if num == 8]
    assert len(set(large)) > len(large) / 2  # of 70 possible choices of 4 of its 8 tiles
    assert all(len(content) == 4 * 6 * 4 for num, content in seen if num >= 4)


def test_the_choice_of_tiles_repeats_with_the_seed() -> None:
    one = train(max_instances=3)
    assert torch.equal(train(max_instances=3).parameters, one.parameters)
    assert not torch.equal(train(max_instances=3, seed=4).parameters, one.parameters)


def test_no_steps_leave_the_network_as_it_was() -> None:
    still = train(0, patience=1, validation=OTHERS)
    assert torch.equal(still.parameters, START)
    assert (still.num_steps, still.moments) == (0, {})
