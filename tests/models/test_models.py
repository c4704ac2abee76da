"""Layouts, the attention classifier, local training and the embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from rayfed_hn.config import ModelConfig, TrainingConfig
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.masks import CpuMasks
from rayfed_hn.models.parameters import ParameterLayout, bind
from rayfed_hn.models.registry import (
    initial_parameters,
    learning_rate,
    make_model,
    widths,
)
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.site_features import unit_embeddings
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.tasks import Binary
from rayfed_hn.models.training import draw_bags, train_locally

BINARY = Binary(("normal", "tumour"))


def small() -> tuple[SiteModel, ParameterLayout, torch.Tensor]:
    model = make_model(6, 2, ModelConfig(hidden_dim=5, attention_dim=4))
    layout = ParameterLayout.of(model)
    return model, layout, initial_parameters(layout, seed=1)


def bags(num: int = 6) -> list[LabelledBag]:
    rng = np.random.default_rng(0)
    return [LabelledBag(rng.normal(size=(3 + i, 6)).astype(np.float32), i % 2) for i in range(num)]


def test_the_papers_network_has_the_papers_size() -> None:
    assert widths(1024, ModelConfig()) == (512, 256)
    assert ParameterLayout.of(make_model(1024, 2, ModelConfig())).size == 788_739


@pytest.mark.parametrize(
    ("dim", "hidden"), [(12, 32), (72, 64), (150, 128), (768, 512), (2048, 512)]
)
def test_widths_follow_the_features(dim: int, hidden: int) -> None:
    assert widths(dim, ModelConfig()) == (hidden, hidden // 2)


def test_flatten_and_unflatten_are_inverse() -> None:
    _, layout, theta = small()
    torch.testing.assert_close(layout.flatten(layout.unflatten(theta)), theta, rtol=0, atol=0)
    places = dict(layout.places())
    for name, tensor in layout.unflatten(theta).items():
        assert torch.equal(theta[places[name]], tensor.reshape(-1))


def test_a_vector_of_another_length_is_refused() -> None:
    _, layout, theta = small()
    with pytest.raises(ValueError, match="expected a vector of"):
        layout.unflatten(theta[:-1])


def test_start_is_xavier_with_zero_biases() -> None:
    layout = ParameterLayout.of(make_model(1024, 2, ModelConfig()))
    tensors = layout.unflatten(initial_parameters(layout, 0))
    assert all(bool((t == 0).all()) for name, t in tensors.items() if name.endswith("bias"))
    assert tensors["projection.weight"].std().item() == pytest.approx(0.036, abs=5e-4)
    assert tensors["attention_v.weight"].std().item() == pytest.approx(0.051, abs=5e-4)


def test_forward_is_its_equation() -> None:
    model, layout, theta = small()
    t = {k: v.double() for k, v in layout.unflatten(theta + 0.1).items()}
    x = torch.randn(7, 6, dtype=torch.float64)
    h = torch.clamp(x @ t["projection.weight"].T + t["projection.bias"], min=0)
    v = torch.tanh(h @ t["attention_v.weight"].T + t["attention_v.bias"])
    u = 1 / (1 + torch.exp(-(h @ t["attention_u.weight"].T + t["attention_u.bias"])))
    a = torch.exp((v * u) @ t["attention_w.weight"][0] + t["attention_w.bias"])
    alpha = a / a.sum()
    expected = (alpha[:, None] * h).sum(0) @ t["classifier.weight"].T + t["classifier.bias"]
    logits, attention = functional_call(model, t, (x,))
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(attention, alpha)


@pytest.mark.parametrize("seed", [None, 7])
def test_a_bound_network_is_the_functional_call_to_the_last_bit(seed: int | None) -> None:
    model, layout, theta = small()
    own = theta.clone()
    bound = bind(model, own, trains=True)

    def masks() -> torch.Generator | None:
        return None if seed is None else torch.Generator().manual_seed(seed)

    for step in range(3):  # later changes to the vector are seen
        theirs = own.clone().requires_grad_(True)
        total, gradient = torch.zeros_like(theta), torch.zeros_like(theta)
        bound.zero_grad()
        for bag in bags():  # and gradients add up
            expected = functional_call(model, layout.unflatten(theirs), (bag.tensor(), masks()))
            found = bound(bag.tensor(), masks())
            for one, other in zip(found, expected, strict=True):
                assert torch.equal(one, other)
            label = torch.tensor(bag.label)
            torch.nn.functional.cross_entropy(found[0], label).backward()
            loss = torch.nn.functional.cross_entropy(expected[0], label)
            total += torch.autograd.grad(loss, theirs)[0]
            parts = [p.grad.flatten() for p in bound.parameters() if p.grad is not None]
            gradient = torch.cat(parts)
            assert torch.equal(gradient, total)
        assert (gradient != 0).any(), step
        own -= 0.1 * gradient


def test_binding_for_evaluation_leaves_model_and_vector_as_they_were() -> None:
    model, layout, theta = small()
    before = theta.clone()
    bound = bind(model, theta)
    logits, _ = bound(bags()[0].tensor())
    expected, _ = functional_call(model, layout.unflatten(theta), (bags()[0].tensor(),))
    assert torch.equal(logits, expected)
    assert torch.equal(theta, before)
    assert all(parameter.is_meta for parameter in model.parameters())


@settings(deadline=None)
@given(st.permutations(range(9)))
def test_the_order_of_tiles_does_not_matter(order: list[int]) -> None:
    model, layout, theta = small()
    x = torch.linspace(-1, 1, 54).reshape(9, 6).sin()
    logits, attention = functional_call(model, layout.unflatten(theta), (x,))
    permuted = functional_call(model, layout.unflatten(theta), (x[order],))
    torch.testing.assert_close(permuted[0], logits)
    torch.testing.assert_close(permuted[1], attention[order])


def test_training_is_adam_over_the_named_tensors() -> None:
    model, layout, theta = small()
    config = TrainingConfig(steps=5)
    trained = train_locally(
        model, theta, bags(), config, task=BINARY, learning_rate=0.01, num_steps=5, seed=3
    )
    named = {k: v.clone().requires_grad_(True) for k, v in layout.unflatten(theta).items()}
    decay = config.weight_decay
    adam = torch.optim.Adam(named.values(), lr=0.01, weight_decay=decay, fused=True)
    generator = CpuMasks(3)
    labels = [bag.label for bag in bags()]
    for index in draw_bags(labels, 5, class_balanced=True, seed=3):
        logits, _ = functional_call(model, named, (bags()[index].tensor(), generator))
        adam.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.tensor(labels[index])).backward()
        adam.step()
    flat = layout.unflatten(trained.parameters)
    torch.testing.assert_close(flat, {k: v.detach() for k, v in named.items()})


def test_training_changes_neither_its_input_nor_torchs_random_state() -> None:
    model, _, theta = small()
    before, state = theta.clone(), torch.get_rng_state()
    trained = train_locally(
        model, theta, bags(), TrainingConfig(), task=BINARY, learning_rate=0.01, num_steps=3, seed=0
    ).parameters
    assert torch.equal(theta, before)
    assert not torch.equal(trained, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_class_balance_draws_the_rare_class_as_often() -> None:
    labels = [1] + [0] * 19
    balanced = draw_bags(labels, 4000, class_balanced=True, seed=0)
    plain = draw_bags(labels, 4000, class_balanced=False, seed=0)
    assert np.mean(balanced == 0) == pytest.approx(0.5, abs=0.03)
    assert np.mean(plain == 0) == pytest.approx(0.05, abs=0.015)


def test_a_site_with_one_class_trains_and_scores() -> None:
    model, _, theta = small()
    one_class = [LabelledBag(bag.features_ND, 1) for bag in bags()]
    trained = train_locally(
        model,
        theta,
        one_class,
        TrainingConfig(),
        task=BINARY,
        learning_rate=0.01,
        num_steps=3,
        seed=0,
    )
    assert np.isfinite(trained.loss)
    assert score_bags(model, trained.parameters, one_class, BINARY).evidence_BE.shape == (6, 1)


def test_no_bags_have_no_loss() -> None:
    model, _, theta = small()
    scores = score_bags(model, theta, [], BINARY)
    assert scores.evidence_BE.shape == (0, 1)
    assert np.isnan(scores.loss)


@pytest.mark.parametrize(("num_sites", "dim"), [(1, 16), (5, 16), (16, 16), (40, 16)])
def test_embeddings_are_unit_rows_and_orthonormal_where_there_is_room(
    num_sites: int, dim: int
) -> None:
    rows = unit_embeddings(num_sites, dim, seed=0)
    gram = rows @ rows.T
    torch.testing.assert_close(torch.diagonal(gram), torch.ones(num_sites, dtype=torch.float64))
    if dim >= num_sites:
        torch.testing.assert_close(gram, torch.eye(num_sites, dtype=torch.float64))
    assert torch.equal(rows, unit_embeddings(num_sites, dim, seed=0))
    assert not torch.equal(rows, unit_embeddings(num_sites, dim, seed=1))


def test_the_rate_is_the_papers_at_the_papers_width_and_falls_with_width() -> None:
    assert learning_rate(512) == pytest.approx(2e-4)
    assert learning_rate(64) == pytest.approx(8 * learning_rate(512))
