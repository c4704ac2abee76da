"""A run that follows the order of another one ends in the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from traces import ASYNC, recorded, written

from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load


@pytest.mark.parametrize(
    "words",
    [
        [*ASYNC, "method.name=hypernetwork", "rounds.deadline=60"],
        [*ASYNC, "method.name=fedper", "training.keep_optimiser=true"],
        [*ASYNC, "method.name=pfedhn"],
    ],
)
def test_a_replayed_run_ends_in_the_same_bits(
    bag_root: Path, tmp_path: Path, words: list[str]
) -> None:
    plan = make_plan(load(None, words), bag_root)
    first, lines = recorded(plan, seed=3)
    other, _ = recorded(plan, seed=4)
    assert first.digest != other.digest, "the order makes no difference: nothing is shown here"
    assert [loss.site for loss in first.lost] == ["west"]
    path = written(tmp_path, lines)
    again = run_in_process(make_plan(load(None, [*words, f"rounds.replay={path}"]), bag_root))
    assert again.digest == first.digest
    assert [loss.site for loss in again.lost] == ["west"]
    for one, two in zip(first.scores, again.scores, strict=True):
        np.testing.assert_array_equal(one.last_BE, two.last_BE)
        np.testing.assert_array_equal(one.mixture_BE, two.mixture_BE)
