"""What holds for every site model: order, size of bags, gradients, dropout, memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import (
    DIM,
    NAMES,
    call,
    class_target,
    masks,
    objective_of,
    small,
    some_parameters,
    some_tiles,
)
from torch import Tensor

from rayfed_hn.config import ModelConfig
from rayfed_hn.models.attention import GatedAttentionMIL
from rayfed_hn.models.parameters import ParameterLayout, bind
from rayfed_hn.models.registry import MODELS, initial_parameters, make_model
from rayfed_hn.models.standardise import Standardisation

every_model = pytest.mark.parametrize("name", NAMES)

COUNTS = {
    "gated_attention": 788_739,
    "attention": 657_410,
    "mean": 525_826,
    "max": 525_826,
    "clam_sb": 790_791,
    "clam_mb": 791_048,
    "dsmil": 724_996,
    "set_transformer": 2_044_930,
}


@every_model
def test_a_model_has_the_parameters_that_its_docstring_says(name: str) -> None:
    size = ParameterLayout.of(make_model(1024, 2, ModelConfig(name=name))).size  # type: ignore[arg-type]
    assert size == COUNTS[name]
    assert f"it has {size:,} parameters" in " ".join((MODELS[name].__doc__ or "").split())


def test_gated_attention_is_the_default() -> None:
    assert type(make_model(6, 2, ModelConfig())) is GatedAttentionMIL


# -- bags ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(17)))
@every_model
def test_the_order_of_tiles_does_not_matter(name: str, order: list[int]) -> None:
    model, tiles, target = small(name), some_tiles(17), class_target()
    theta, objective = some_parameters(model), objective_of(model)
    logits, attention = call(model, theta, tiles)
    permuted = call(model, theta, tiles[order])
    torch.testing.assert_close(permuted[0], logits)
    torch.testing.assert_close(permuted[1], attention[order])
    torch.testing.assert_close(
        objective(theta, tiles[order], target), objective(theta, tiles, target)
    )


@every_model
def test_nor_does_it_where_every_tile_is_there_twice(name: str) -> None:
    model, target = small(name), class_target()
    once = some_tiles(9)
    theta, objective = some_parameters(model), objective_of(model)
    blocks, pairs = torch.cat([once, once]), once.repeat_interleave(2, dim=0)
    torch.testing.assert_close(call(model, theta, blocks)[0], call(model, theta, pairs)[0])
    torch.testing.assert_close(objective(theta, blocks, target), objective(theta, pairs, target))


@pytest.mark.parametrize("num_tiles", [1, 2, 3, 17, 50_000])
@every_model
def test_bags_of_any_size(name: str, num_tiles: int) -> None:
    model = small(name)
    theta = initial_parameters(ParameterLayout.of(model), seed=0)
    tiles = some_tiles(num_tiles).float()
    logits, attention = call(model, theta, tiles)
    assert logits.isfinite().all()
    assert attention.shape == (num_tiles,)
    assert (attention >= 0).all()
    assert attention.double().sum().item() == pytest.approx(1, abs=1e-4)
    bound = bind(model, theta.clone(), trains=True)
    bound.objective(tiles, class_target(), masks(0)).backward()
    gradient = torch.cat([p.grad.flatten() for p in bound.parameters() if p.grad is not None])
    assert gradient.isfinite().all()
    assert (gradient != 0).any()


# -- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 3])
@every_model
def test_the_gradient_is_the_slope_of_the_objective(name: str, seed: int | None) -> None:
    model, tiles, target = small(name), some_tiles(5), class_target()
    objective, theta = objective_of(model), some_parameters(model, seed=1).requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective(theta, tiles, target, masks(seed)), theta)
    generator, step = torch.Generator().manual_seed(0), 1e-6
    with torch.no_grad():
        for key, place in ParameterLayout.of(model).places():
            along = torch.zeros_like(theta)  # a direction in one tensor at a time
            along[place].normal_(generator=generator)
            after, before = (
                objective(theta + sign * step * along, tiles, target, masks(seed)).item()
                for sign in (1, -1)
            )
            slope = (after - before) / (2 * step)
            assert slope == pytest.approx((gradient @ along).item(), rel=1e-5, abs=1e-8), key


@every_model
def test_every_tensor_has_a_gradient(name: str) -> None:
    model = small(name)
    theta = some_parameters(model).requires_grad_(True)
    loss = objective_of(model)(theta, some_tiles(20), class_target())
    (gradient,) = torch.autograd.grad(loss, theta)
    # A bias of all scores cancels in the softmax; that of HistoFL and CLAM has stayed.
    cancels = "attention_w.bias"
    for key, part in ParameterLayout.of(model).unflatten(gradient).items():
        assert (part.abs().max() > 1e-6) == (key != cancels), key
    assert (cancels in dict(model.named_parameters())) == (
        name in ("gated_attention", "clam_sb", "clam_mb")
    )


@every_model
def test_training_from_the_initial_parameters_learns(name: str) -> None:
    model = small(name, dropout=0.0)
    vector = initial_parameters(ParameterLayout.of(model), seed=2)
    bags = [(some_tiles(12, seed=i).float(), i % 2) for i in range(4)]
    for tiles, label in bags:
        tiles[:6, 0] += 4.0 * label
    network = bind(model, vector, trains=True)
    adam = torch.optim.Adam(network.parameters(), 0.02)
    losses = []
    for _ in range(24):
        for tiles, label in bags:
            adam.zero_grad()
            loss = network.objective(tiles, class_target(label))  # type: ignore[operator]
            loss.backward()
            adam.step()
            losses.append(loss.item())
    assert np.mean(losses[-4:]) < 0.4 * np.mean(losses[:4])


# -- dropout -------------------------------------------------------------------------------------


@every_model
def test_dropout_is_the_generators_alone(name: str) -> None:
    model, tiles = small(name), some_tiles(9)
    theta, state = some_parameters(model), torch.get_rng_state()
    still = call(model, theta, tiles)[0]
    one, again, other = (call(model, theta, tiles, masks(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, still)
    assert torch.equal(call(small(name, dropout=0.0), theta, tiles, masks(1))[0], still)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_dropout_leaves_makes_up_for_what_it_takes() -> None:
    dropped = small("mean", dropout=0.2)._drop(torch.ones(20_000), masks(0))
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 1.25]))
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)


# -- the flat vector -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 7])
@every_model
def test_a_bound_network_is_the_functional_call(name: str, seed: int | None) -> None:
    model, tiles, target = small(name), some_tiles(9).float(), class_target()
    theta = some_parameters(model).float()
    bound = bind(model, theta)
    for found, expected in zip(
        bound(tiles, masks(seed)), call(model, theta, tiles, masks(seed)), strict=True
    ):
        assert torch.equal(found, expected)
    found = bound.objective(tiles, target, masks(seed))  # type: ignore[operator]
    assert torch.equal(found, objective_of(model)(theta, tiles, target, masks(seed)))
    assert all(parameter.is_meta for parameter in model.parameters())


@every_model
def test_what_starts_at_zero_is_a_bias(name: str) -> None:
    layout = ParameterLayout.of(small(name))
    for key, tensor in layout.unflatten(initial_parameters(layout, seed=0)).items():
        assert bool((tensor == 0).all()) == key.endswith(".bias"), key


@every_model
def test_logits_are_the_private_layers(name: str) -> None:
    model = small(name)
    layout = ParameterLayout.of(model)
    tensors = layout.unflatten(some_parameters(model))
    theirs = {k: v * (not k.startswith("classifier.")) for k, v in tensors.items()}
    logits, _ = call(model, layout.flatten(theirs), some_tiles(4).float())
    assert (logits == 0).all()


@every_model
def test_the_scale_of_features_folds_into_the_first_layer(name: str) -> None:
    model, tiles = small(name), some_tiles(9).float()
    layout, theta = ParameterLayout.of(model), some_parameters(model).float()
    scale = Standardisation(np.full(DIM, 0.5, np.float32), np.full(DIM, 3, np.float32))
    expected = call(model, theta, scale.apply(tiles))
    torch.testing.assert_close(call(model, scale.fold(theta, layout), tiles), expected)


# -- memory --------------------------------------------------------------------------------------


class SavedBytes:
    """Bytes that are kept for the backward pass of what runs inside."""

    def __enter__(self) -> SavedBytes:
        self.total = 0
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def _keep(self, tensor: Tensor) -> Tensor:
        self.total += tensor.numel() * tensor.element_size()
        return tensor


@every_model
def test_memory_grows_with_the_bag_and_not_with_its_square(name: str) -> None:
    model, totals = small(name), []
    theta = some_parameters(model).float().requires_grad_(True)
    for num_tiles in (2_000, 8_000):
        with SavedBytes() as saved:
            objective_of(model)(theta, some_tiles(num_tiles).float(), class_target(), masks(0))
        totals.append(saved.total)
    assert totals[0] > 2_000 * DIM * 4  # the tiles at least
    assert totals[1] <= 4.1 * totals[0]


def test_the_count_of_bytes_sees_a_square() -> None:
    totals = []
    for num_tiles in (100, 400):
        tiles = some_tiles(num_tiles).requires_grad_(True)
        with SavedBytes() as saved:
            torch.softmax(tiles @ tiles.T, dim=1)
        totals.append(saved.total)
    assert totals[1] > 10 * totals[0]


def test_a_target_without_classes_trains_every_model() -> None:
    target = replace(class_target(), present_O=None)
    for name in NAMES:
        model = small(name)
        theta = some_parameters(model).requires_grad_(True)
        loss = objective_of(model)(theta, some_tiles(6), target)
        assert (torch.autograd.grad(loss, theta)[0] != 0).any(), name
