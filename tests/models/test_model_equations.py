"""Every site model against its equations, written out in numpy, tile by tile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_models import NAMES, call, class_target, objective_of, small, some_parameters, some_tiles

from rayfed_hn.models.parameters import ParameterLayout

Tensors = dict[str, np.ndarray]
Found = tuple[np.ndarray, np.ndarray]


def linear(t: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    return x @ t[f"{name}.weight"].T + t.get(f"{name}.bias", 0.0)


def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.0)


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.array([np.exp(score) for score in scores])
    return powers / powers.sum()


def hidden(t: Tensors, x: np.ndarray) -> np.ndarray:
    return relu(linear(t, "projection", x))


def weighted(alpha: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.sum([a * row for a, row in zip(alpha, rows, strict=True)], axis=0)


def gate(t: Tensors, h: np.ndarray) -> np.ndarray:
    """Scores (R,) of one tile."""
    v = np.tanh(linear(t, "attention_v", h))
    u = 1 / (1 + np.exp(-linear(t, "attention_u", h)))
    return linear(t, "attention_w", v * u)


def gated_attention(t: Tensors, x: np.ndarray, last: str = "classifier") -> Found:
    h = hidden(t, x)
    alpha = softmax(np.array([gate(t, row)[0] for row in h]))
    return linear(t, last, weighted(alpha, h)), alpha


def attention(t: Tensors, x: np.ndarray) -> Found:
    h = hidden(t, x)
    scores = [t["attention_w.weight"][0] @ np.tanh(linear(t, "attention_v", row)) for row in h]
    alpha = softmax(np.array(scores))
    return linear(t, "classifier", weighted(alpha, h)), alpha


def mean(t: Tensors, x: np.ndarray) -> Found:
    tile_logits = [linear(t, "classifier", row) for row in hidden(t, x)]
    return np.mean(tile_logits, axis=0), np.full(len(x), 1 / len(x))


def maximum(t: Tensors, x: np.ndarray) -> Found:
    tile_logits = [linear(t, "classifier", row) for row in hidden(t, x)]
    logits, alpha = [], np.zeros(len(x))
    for values in zip(*tile_logits, strict=True):
        logits.append(max(values))
        alpha[values.index(max(values))] += 1 / len(tile_logits[0])
    return np.array(logits), alpha


def clam_sb(t: Tensors, x: np.ndarray) -> Found:
    return gated_attention(t, x, "classifier.bag")


def clam_mb(t: Tensors, x: np.ndarray) -> Found:
    h = hidden(t, x)
    scores = np.array([gate(t, row) for row in h])
    logits, alphas = [], []
    for output, (row, bias) in enumerate(
        zip(t["classifier.bag.weight"], t["classifier.bag.bias"], strict=True)
    ):
        alphas.append(softmax(scores[:, output]))
        logits.append(row @ weighted(alphas[-1], h) + bias)
    return np.array(logits), np.mean(alphas, axis=0)


def dsmil_streams(t: Tensors, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    h = hidden(t, x)
    tile_logits = linear(t, "classifier.instance", h)
    q = [np.tanh(linear(t, "query", relu(linear(t, "query_hidden", row)))) for row in h]
    first, alphas = [], []
    for values in tile_logits.T:
        critical = int(np.argmax(values))
        first.append(values[critical])
        alphas.append(softmax(np.array([row @ q[critical] / len(row) ** 0.5 for row in q])))
    z = np.stack([weighted(alpha, h) for alpha in alphas])
    kernels = t["classifier.bag.weight"].reshape(len(z), *z.shape)
    second = [np.sum(kernel * z) for kernel in kernels] + t["classifier.bag.bias"]
    return np.array(first), second, np.mean(alphas, axis=0)


def dsmil(t: Tensors, x: np.ndarray) -> Found:
    first, second, alpha = dsmil_streams(t, x)
    return (first + second) / 2, alpha


def norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def block(t: Tensors, name: str, queries: np.ndarray, keys: np.ndarray) -> Found:
    k, v = linear(t, f"{name}.key", keys), linear(t, f"{name}.value", keys)
    width, heads = k.shape[1], 4
    out, alphas = [], []
    for query in linear(t, f"{name}.query", queries):
        found = np.zeros(width)
        for head in np.split(np.arange(width), heads):
            scores = [query[head] @ key[head] / np.sqrt(width / heads) for key in k]
            alphas.append(softmax(np.array(scores)))
            found[head] = weighted(alphas[-1], v[:, head])
        mixed = norm(query + found)
        out.append(norm(mixed + relu(linear(t, f"{name}.feed_forward", mixed))))
    return np.stack(out), np.mean(alphas, axis=0)


def set_transformer(t: Tensors, x: np.ndarray) -> Found:
    tiles = hidden(t, x)
    for name in ("induced1", "induced2"):
        points, _ = block(t, f"{name}.gather", t[f"{name}.points"], tiles)
        tiles, _ = block(t, f"{name}.spread", tiles, points)
    pooled, alpha = block(t, "pooling", t["pooling_query"], tiles)
    return linear(t, "classifier", pooled[0]), alpha


EQUATIONS: dict[str, Callable[[Tensors, np.ndarray], Found]] = {
    "gated_attention": gated_attention,
    "attention": attention,
    "mean": mean,
    "max": maximum,
    "clam_sb": clam_sb,
    "clam_mb": clam_mb,
    "dsmil": dsmil,
    "set_transformer": set_transformer,
}


@pytest.mark.parametrize("num_tiles", [1, 2, 13])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_its_equations(name: str, num_tiles: int) -> None:
    model = small(name)
    theta, tiles = some_parameters(model, seed=num_tiles), some_tiles(num_tiles)
    t = {k: v.numpy() for k, v in ParameterLayout.of(model).unflatten(theta).items()}
    expected_logits, expected_attention = EQUATIONS[name](t, tiles.numpy())
    logits, alpha = call(model, theta, tiles)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(alpha, expected_attention, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("clam_sb", "clam_mb", "dsmil")])
def test_the_objective_of_most_models_is_the_loss_of_their_logits(name: str) -> None:
    model, tiles, target = small(name), some_tiles(6), class_target()
    theta = some_parameters(model)
    expected = target.loss(call(model, theta, tiles)[0])
    assert torch.equal(objective_of(model)(theta, tiles, target), expected)


def test_dsmils_objective_is_the_mean_of_its_streams_losses() -> None:
    model, tiles, target = small("dsmil"), some_tiles(6), class_target()
    theta = some_parameters(model)
    t = {k: v.numpy() for k, v in ParameterLayout.of(model).unflatten(theta).items()}
    losses = [
        np.log(np.exp(logits).sum()) - logits[1] for logits in dsmil_streams(t, tiles.numpy())[:2]
    ]
    found = objective_of(model)(theta, tiles, target).item()
    assert found == pytest.approx(np.mean(losses), rel=1e-9)
    assert found != pytest.approx(target.loss(call(model, theta, tiles)[0]).item(), rel=1e-3)


def test_tiles_that_tie_for_the_maximum_share_attention_and_gradient() -> None:
    model, tile = small("max"), some_tiles(1)
    theta, tiles = some_parameters(model), torch.cat([tile, tile]).requires_grad_(True)
    logits, alpha = call(model, theta, tiles)
    torch.testing.assert_close(alpha, torch.full((2,), 0.5, dtype=torch.float64))
    first, second = torch.autograd.grad(logits.sum(), tiles)[0]
    torch.testing.assert_close(first, second)
    assert (first != 0).any()
