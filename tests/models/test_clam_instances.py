"""CLAM's loss of tiles, by hand and against loops."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
import torch
from small_models import OUTPUTS, call, class_target, objective_of, small, some_parameters
from small_models import some_tiles as tiles_of
from torch import Tensor

from rayfed_hn.config import ModelConfig
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import make_model
from rayfed_hn.models.site_model import BagTarget

BOTH = ("clam_sb", "clam_mb")


def softplus(x: float) -> float:
    return log(1 + exp(x))


def by_hand(present: tuple[bool, bool], absent_counts: bool, tiles: list[float]) -> float:
    """The loss of tiles of a CLAM-SB with one hidden value, h = x, and attention that rises with x.

    The classifier of output 0 has logits (0, h), that of output 1 (0, 2 h).
    """
    config = ModelConfig(name="clam_sb", hidden_dim=1, attention_dim=1)
    model = make_model(1, 2, config)
    layout = ParameterLayout.of(model)
    tensors = {name: torch.zeros(shape) for name, shape in layout.shapes}
    for name in ("projection", "attention_v", "attention_w"):
        tensors[f"{name}.weight"] += 1.0
    tensors["classifier.instance.weight"] += torch.tensor([[0.0], [1.0], [0.0], [2.0]])
    target = BagTarget(lambda logits: logits.sum() * 0, present, absent_counts)
    features = torch.tensor(tiles).unsqueeze(1)
    return objective_of(model)(layout.flatten(tensors), features, target).item() / 0.3


def test_by_hand_one_class_present() -> None:
    # N = 4, K = 2: the tiles 3 and 2 are positive examples of output 0, 0 and 1 negative ones.
    present = (softplus(-3) + softplus(-2) + softplus(0) + softplus(1)) / 4
    absent = (softplus(6) + softplus(4)) / 2  # of output 1, 3 and 2 are negative ones
    tiles = [1.0, 3.0, 0.0, 2.0]
    assert by_hand((True, False), False, tiles) == pytest.approx(present)
    assert by_hand((True, False), True, tiles) == pytest.approx((present + absent) / 2)


def test_by_hand_none_and_all_present() -> None:
    tiles = [2.0, 0.0, 5.0]  # K = 1: the tiles 5 and 0
    first, second = (softplus(-5) + softplus(0)) / 2, (softplus(-10) + softplus(0)) / 2
    assert by_hand((True, True), False, tiles) == pytest.approx((first + second) / 2)
    assert by_hand((False, False), False, tiles) == 0
    negative = (softplus(5) + softplus(10)) / 2
    assert by_hand((False, False), True, tiles) == pytest.approx(negative)


def test_no_tile_is_at_both_ends_when_all_tie() -> None:
    # Four tiles alike: two positive and two negative examples, whichever they are.
    expected = (softplus(-1) + softplus(1)) / 2
    assert by_hand((True, False), False, [1.0] * 4) == pytest.approx(expected)


def test_ties_go_by_the_order_of_tiles() -> None:
    # A classifier that tells apart what the attention, blind to it, does not: K = 1 of 3 tiles.
    model = make_model(2, 1, ModelConfig(name="clam_sb", hidden_dim=2, attention_dim=1))
    layout = ParameterLayout.of(model)
    tensors = {name: torch.zeros(shape) for name, shape in layout.shapes}
    tensors["projection.weight"] += torch.eye(2)
    tensors["classifier.instance.weight"] += torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    target = BagTarget(lambda logits: logits.sum() * 0, (True,))
    features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    found = objective_of(model)(layout.flatten(tensors), features, target).item()
    assert found == pytest.approx(0.3 * (softplus(-1) + softplus(4)) / 2)


@pytest.mark.parametrize("absent_counts", [True, False])
@pytest.mark.parametrize("name", BOTH)
def test_a_bag_of_one_tile_has_no_examples_and_keeps_its_weight(
    name: str, absent_counts: bool
) -> None:
    model, tiles, target = small(name), tiles_of(1), class_target(absent_counts=absent_counts)
    theta = some_parameters(model)
    expected = 0.7 * target.loss(call(model, theta, tiles)[0])
    torch.testing.assert_close(objective_of(model)(theta, tiles, target), expected)


@pytest.mark.parametrize("name", BOTH)
def test_without_classes_the_objective_is_the_bag_loss(name: str) -> None:
    model, tiles, target = small(name), tiles_of(9), replace(class_target(), present_O=None)
    theta = some_parameters(model)
    expected = target.loss(call(model, theta, tiles)[0])
    assert torch.equal(objective_of(model)(theta, tiles, target), expected)


def in_loops(name: str, theta: Tensor, tiles: Tensor, target: BagTarget) -> float:
    """.7 bag loss + .3 mean over outputs of the mean cross-entropy of their tiles."""
    model = small(name)
    t = {k: v.numpy() for k, v in ParameterLayout.of(model).unflatten(theta).items()}
    h = np.maximum(tiles.numpy() @ t["projection.weight"].T + t["projection.bias"], 0)
    v = np.tanh(h @ t["attention_v.weight"].T + t["attention_v.bias"])
    u = 1 / (1 + np.exp(-(h @ t["attention_u.weight"].T + t["attention_u.bias"])))
    scores = (v * u) @ t["attention_w.weight"].T + t["attention_w.bias"]
    count, losses = min(8, len(tiles) // 2), []
    assert target.present_O is not None
    for output, present in enumerate(target.present_O):
        branch = scores[:, 0 if name == "clam_sb" else output]
        ranked = sorted(range(len(tiles)), key=lambda n, b=branch: -b[n])
        examples = [(n, int(bool(present))) for n in ranked[:count]] if count else []
        if present:
            examples += [(n, 0) for n in ranked[len(ranked) - count :]]
        elif not target.absent_counts:
            continue
        rows = slice(2 * output, 2 * output + 2)
        weight, bias = t["classifier.instance.weight"][rows], t["classifier.instance.bias"][rows]
        each = []
        for n, truth in examples:
            logits = weight @ h[n] + bias
            each.append(np.log(np.exp(logits).sum()) - logits[truth])
        losses.append(np.mean(each))
    bag_loss = target.loss(call(model, theta, tiles)[0]).item()
    return 0.7 * bag_loss + 0.3 * float(np.mean(losses))


@pytest.mark.parametrize("absent_counts", [True, False])
@pytest.mark.parametrize("num_tiles", [2, 3, 15, 16, 40])
@pytest.mark.parametrize("name", BOTH)
def test_the_objective_is_its_loops(name: str, num_tiles: int, absent_counts: bool) -> None:
    model = small(name)
    theta, tiles = some_parameters(model, seed=num_tiles), tiles_of(num_tiles)
    for label in range(OUTPUTS):
        target = class_target(label, absent_counts=absent_counts)
        found = objective_of(model)(theta, tiles, target).item()
        assert found == pytest.approx(in_loops(name, theta, tiles, target), rel=1e-9)


@pytest.mark.parametrize("name", BOTH)
def test_the_loss_of_tiles_teaches_the_projection_and_not_the_attention(name: str) -> None:
    model, tiles = small(name), tiles_of(20)
    layout, theta = ParameterLayout.of(model), some_parameters(model).requires_grad_(True)
    target = replace(class_target(), loss=lambda logits: logits.sum() * 0)
    (gradient,) = torch.autograd.grad(objective_of(model)(theta, tiles, target), theta)
    moved = {key for key, part in layout.unflatten(gradient).items() if (part != 0).any()}
    taught = ("projection", "classifier.instance")
    assert moved == {f"{key}.{kind}" for key in taught for kind in ("weight", "bias")}
