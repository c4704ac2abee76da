"""The ways to a network of one's own, each against another route to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from joining import arms_for, everything, task_origin
from tiny_federations import TASK_WORDS
from torch import Tensor
from torch.func import functional_call

from rayfed_hn.federation.data import SiteBag
from rayfed_hn.federation.onboarding import arms as ways
from rayfed_hn.federation.onboarding.arms import Arms, Fitted
from rayfed_hn.federation.onboarding.origin import Origin
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.standardise import Standardisation
from rayfed_hn.models.training import train_locally
from rayfed_hn.seeds import derive

GENERATORS = {
    "fixed": (),
    "mlp": ("hypernetwork.features=mlp",),
    "kernel": ("hypernetwork.estimate=kernel",),
    "pfedhn": ("method.name=pfedhn",),
}


@pytest.fixture
def origin(tasks_root: Path) -> Origin:
    return task_origin(tasks_root, "binary")


@pytest.fixture
def bags(tasks_root: Path, origin: Origin) -> tuple[SiteBag, ...]:
    return everything(tasks_root, origin.task).bags


def _loss(origin: Origin, network_P: Tensor, bags: tuple[SiteBag, ...], scale: object) -> float:
    """Mean loss by hand, on features that are standardised by hand."""
    layout = ParameterLayout.of(origin.model)
    losses = []
    for bag in bags:
        features = np.concatenate(bag.parts())
        if isinstance(scale, Standardisation):
            features = (features - scale.centre_D) / scale.deviation_D
        named = layout.unflatten(network_P)
        logits_O, _ = functional_call(origin.model, named, (torch.from_numpy(features),))
        losses.append(origin.task.target(bag).loss(logits_O).item())
    return float(np.mean(losses))


def _same(one: Fitted, other: Fitted) -> bool:
    return torch.equal(one.network_P, other.network_P)


def test_which_arms_there_are(tasks_root: Path, origin: Origin, bags: tuple[SiteBag, ...]) -> None:
    fedavg = task_origin(tasks_root, "binary", "method.name=fedavg")
    alone = {ways.ZERO_SHOT, ways.NEAREST, ways.BASE_FT, ways.ISOLATED}
    made = {ways.EMBEDDING, ways.EMBEDDING_FT}
    second = {ways.FEDAVG, ways.FEDAVG_FT}
    assert arms_for(origin).fit(bags, 0).keys() == alone | made
    assert arms_for(origin, fedavg).fit(bags, 0).keys() == alone | made | second
    assert arms_for(fedavg).fit(bags, 0).keys() == alone
    assert alone | made | second == ways.WORDS.keys()
    assert arms_for(origin).fit((), 0).keys() == {ways.ZERO_SHOT}
    assert arms_for(origin, fedavg).fit((), 0).keys() == {ways.ZERO_SHOT, ways.FEDAVG}


def test_what_needs_no_training_is_what_was_handed_on(
    tasks_root: Path, origin: Origin, bags: tuple[SiteBag, ...]
) -> None:
    fedavg = task_origin(tasks_root, "binary", "method.name=fedavg")
    fitted = arms_for(origin, fedavg).fit(bags, 0)
    assert torch.equal(fitted[ways.ZERO_SHOT].network_P, origin.base)
    assert torch.equal(fitted[ways.FEDAVG].network_P, fedavg.base)
    assert fitted[ways.ZERO_SHOT].scale is origin.scale
    assert fitted[ways.FEDAVG].scale is fedavg.scale


@pytest.mark.parametrize("name", GENERATORS)
def test_the_embedding_is_fitted_by_adam_and_the_hypernetwork_stays(
    tasks_root: Path, name: str
) -> None:
    origin = task_origin(tasks_root, "binary", *GENERATORS[name])
    assert origin.generator is not None
    bags = everything(tasks_root, origin.task).bags
    start_V = origin.generator.start_V
    stays_P = origin.generator.make(start_V + 1).detach().clone()
    none = arms_for(origin, embedding_steps=0).fit(bags, 0)[ways.EMBEDDING]
    assert none.embedding_V is not None
    assert torch.equal(none.embedding_V, start_V)
    assert torch.equal(none.network_P, origin.generator.make(start_V))
    one = arms_for(origin, embedding_steps=1, embedding_rate=0.01).fit(bags, 0)[ways.EMBEDDING]
    assert one.embedding_V is not None
    moved_V = (one.embedding_V - start_V).abs()  # Adam's first step is the rate, whatever the slope
    assert moved_V.max() == pytest.approx(0.01, rel=0.01)
    many = arms_for(origin, embedding_steps=30).fit(bags, 0)
    losses = [_loss(origin, f.network_P, bags, f.scale) for f in (none, one, many[ways.EMBEDDING])]
    assert losses[2] < losses[1] < losses[0]
    assert torch.equal(origin.generator.make(start_V + 1), stays_P)
    assert torch.equal(origin.generator.start_V, start_V)
    fitted_V, kept_V = (many[arm].embedding_V for arm in (ways.EMBEDDING, ways.EMBEDDING_FT))
    assert fitted_V is not None
    assert kept_V is fitted_V


def test_without_a_personal_part_no_embedding_changes_anything(tasks_root: Path) -> None:
    origin = task_origin(tasks_root, "binary", "hypernetwork.rho=0")
    assert origin.generator is not None
    bags = everything(tasks_root, origin.task).bags
    made = arms_for(origin, embedding_steps=5).fit(bags, 0)[ways.EMBEDDING]
    torch.testing.assert_close(made.network_P, origin.base)


@pytest.mark.parametrize("kind", TASK_WORDS)
def test_fine_tuning_is_local_training(tasks_root: Path, kind: str) -> None:
    origin = task_origin(tasks_root, kind)
    bags = everything(tasks_root, origin.task).bags
    fedavg = task_origin(tasks_root, kind, "method.name=fedavg")
    fitted = arms_for(origin, fedavg, steps=4).fit(bags, 7)
    own = fitted[ways.ISOLATED].scale
    starts = {
        ways.BASE_FT: (origin.base, origin.scale),
        ways.FEDAVG_FT: (fedavg.base, fedavg.scale),
        ways.EMBEDDING_FT: (fitted[ways.EMBEDDING].network_P, origin.scale),
        ways.ISOLATED: (origin.initial, own),
    }
    for arm, (start_P, scale) in starts.items():
        hand = train_locally(
            origin.model,
            start_P,
            [replace(bag, standardisation=scale) for bag in bags],
            origin.config.training,
            task=origin.task,
            learning_rate=0.01,
            num_steps=4,
            seed=derive(0, "onboarding", "c", 7),
        ).parameters
        assert torch.equal(fitted[arm].network_P, hand), arm
        assert not torch.equal(hand, start_P)


def test_isolated_training_knows_nothing_of_the_federation(
    tasks_root: Path, origin: Origin, bags: tuple[SiteBag, ...]
) -> None:
    other = task_origin(tasks_root, "binary", "method.name=fedavg")
    assert origin.scale is not None
    nothing = replace(
        origin,
        base=origin.base * torch.nan,
        networks={},
        generator=None,
        scale=Standardisation(origin.scale.centre_D + 5, origin.scale.deviation_D * 3),
    )
    one = arms_for(origin).fit(bags, 0)[ways.ISOLATED]
    assert _same(one, arms_for(other).fit(bags, 0)[ways.ISOLATED])
    assert _same(one, arms_for(nothing).fit(bags, 0, only=[ways.ISOLATED])[ways.ISOLATED])
    assert one.scale is not None
    every = [np.concatenate(bag.parts()) for bag in bags]
    mean_D = np.mean([features.mean(axis=0) for features in every], axis=0)
    np.testing.assert_allclose(one.scale.centre_D, mean_D, atol=1e-6)


def test_the_nearest_site_is_the_one_with_the_lowest_loss(
    origin: Origin, bags: tuple[SiteBag, ...]
) -> None:
    for labels in range(2):  # of one class alone another site may be nearest
        own = tuple(bag for bag in bags if bag.label == labels)
        losses = {s: _loss(origin, n, own, origin.scale) for s, n in origin.networks.items()}
        best = min(losses, key=lambda site: losses[site])
        nearest = arms_for(origin).fit(own, 0)[ways.NEAREST]
        assert torch.equal(nearest.network_P, origin.networks[best])
    flipped = replace(origin, networks=dict(reversed(list(origin.networks.items()))))
    one, other = (arms_for(o).fit(bags, 0)[ways.NEAREST] for o in (origin, flipped))
    assert _same(one, other)


def test_nothing_that_was_handed_on_changes(origin: Origin, bags: tuple[SiteBag, ...]) -> None:
    before = [t.clone() for t in (origin.base, origin.initial, *origin.networks.values())]
    arms_for(origin, steps=10, embedding_steps=10).fit(bags, 0)
    after = [origin.base, origin.initial, *origin.networks.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_everything_random_follows_from_seed_site_and_draw(
    origin: Origin, bags: tuple[SiteBag, ...]
) -> None:
    arms = arms_for(origin)
    torch.manual_seed(1)
    one = arms.fit(bags, 3)
    torch.manual_seed(2)
    np.random.seed(5)
    two = arms.fit(bags, 3)
    assert all(_same(one[arm], two[arm]) for arm in one)
    others: list[tuple[Arms, int]] = [
        (arms, 4),
        (replace(arms, seed=1), 3),
        (replace(arms, site="d"), 3),
    ]
    for other, draw in others:
        fitted = other.fit(bags, draw)
        assert not _same(fitted[ways.ISOLATED], one[ways.ISOLATED])
        assert _same(fitted[ways.EMBEDDING], one[ways.EMBEDDING])  # which draws nothing


@pytest.mark.parametrize("asked", ["site", "none"])
def test_the_scale_is_of_the_kind_that_the_run_had(tasks_root: Path, asked: str) -> None:
    origin = task_origin(tasks_root, "binary", f"model.standardise={asked}")
    bags = everything(tasks_root, origin.task).bags
    scales = [fitted.scale for fitted in arms_for(origin).fit(bags, 0).values()]
    if asked == "none":
        assert scales == [None] * len(scales)
        return
    centres = [scale.centre_D for scale in scales if scale is not None]
    assert len(centres) == len(scales)
    assert all((centre_D == centres[0]).all() for centre_D in centres)
