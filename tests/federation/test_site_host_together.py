"""Sites that a host lets train together, as it does on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_site import plan

from rayfed_hn.federation import site_host
from rayfed_hn.federation.messages import (
    Prepared,
    PrepareRequest,
    Request,
    SiteLost,
    TrainRequest,
    Update,
    read_answer,
)
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.models.cohort import train_cohort
from rayfed_hn.models.standardise import agree

NAMES = ("north", "south", "west")


def requests(of: Plan, turn: int = 0) -> list[TrainRequest]:
    theta = of.initial().numpy()
    return [TrainRequest(name, 1, theta * (1 + i / 10), turn) for i, name in enumerate(NAMES)]


def host(of: Plan, *, together: bool) -> SiteHost:
    made = SiteHost(of, NAMES)
    made._alone = not together
    scale = agree([made._site(name)._measure() for name in NAMES])  # pyright: ignore[reportOptionalMemberAccess]
    for name in NAMES:
        request = PrepareRequest(name, 0, scale)
        assert isinstance(read_answer(request, made.answer(request)), Prepared)
    return made


def events(of: SiteHost, asked: Sequence[Request]) -> list[object]:
    messages = [message for batch in of.answers(asked) for message in batch]
    return [read_answer(r, m.data) for r, m in zip(asked, messages, strict=True)]


def updates(of: SiteHost, asked: Sequence[Request]) -> list[Update]:
    found = events(of, asked)
    assert all(isinstance(event, Update) for event in found)
    return found  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("method.name=fedprox", "training.proximal_mu=0.5"),
        ("method.name=fedper",),
        ("training.keep_optimiser=true",),
        ("model.name=clam_sb",),  # cannot be stacked: one by one, with the same bits
    ],
)
def test_together_is_one_by_one(bag_root: Path, words: tuple[str, ...]) -> None:
    of = plan(
        bag_root,
        "model.standardise=shared",
        *words,
        "training.optimiser=momentum",
        "privacy.noise_scale=0.1",
    )
    alone, together = host(of, together=False), host(of, together=True)
    for turn in range(2):  # the second goes on from what sites kept
        asked = requests(of, turn)
        pairs = zip(updates(alone, asked), updates(together, asked), strict=True)
        for request, (one, other) in zip(asked, pairs, strict=True):
            assert (one.site, one.turn, one.num_steps) == (other.site, other.turn, other.num_steps)
            assert one.site == request.site
            np.testing.assert_allclose(other.update, one.update, rtol=1e-3, atol=1e-6)
            assert np.abs(one.update).max() > 1e-4
            assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
            assert other.validation_metric == one.validation_metric


def test_a_request_that_is_refused_leaves_the_others(bag_root: Path) -> None:
    of = plan(bag_root, "model.standardise=shared")
    asked = requests(of)
    asked[1] = TrainRequest("south", 1, asked[1].parameters[:-1], 0)
    north, south, west = events(host(of, together=True), asked)
    assert isinstance(north, Update)
    assert isinstance(west, Update)
    assert isinstance(south, SiteLost)
    assert "refused" in south.reason


def test_where_there_is_no_room_for_all_fewer_train_together(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def crowded(model: Any, jobs: Sequence[Any], *rest: Any, **options: Any) -> Any:
        tried.append(len(jobs))
        if len(jobs) > 1:
            raise MemoryError
        return train_cohort(model, jobs, *rest, **options)

    of = plan(bag_root, "model.standardise=shared")
    expected = updates(host(of, together=False), requests(of))
    small = host(of, together=True)
    monkeypatch.setattr(site_host, "train_cohort", crowded)
    for one, other in zip(expected, updates(small, requests(of)), strict=True):
        np.testing.assert_array_equal(one.update, other.update)
    assert sorted(tried) == [1, 1, 1, 2, 3]


def test_one_site_that_cannot_train_leaves_the_others(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = plan(bag_root, "model.standardise=shared")
    made = host(of, together=True)
    south = made._site("south")
    assert south is not None
    bad = south.data.train[0].features_ND.shape[1] + 1
    torn = tuple(replace(b, features_ND=np.zeros((3, bad), "f4")) for b in south.data.train)
    south._trainer.use(replace(south.data, train=torn))
    kinds = [type(event).__name__ for event in events(made, requests(of))]
    assert kinds == ["Update", "SiteLost", "Update"]


def test_other_requests_are_answered_in_their_places(bag_root: Path) -> None:
    of = plan(bag_root, "model.standardise=shared")
    made = SiteHost(of, NAMES)
    made._alone = False
    scale = agree([made._site(name)._measure() for name in NAMES])  # pyright: ignore[reportOptionalMemberAccess]
    prepare: list[Request] = [PrepareRequest(name, 0, scale) for name in NAMES]
    found = events(made, [*prepare, *requests(of)])
    kinds = [type(event).__name__ for event in found]
    assert kinds[:3] == ["Prepared"] * 3
    assert kinds[3:] == ["Update"] * 3
