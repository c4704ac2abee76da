"""What a comparison says that a run would promise is what that run promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rayfed_hn.federation.cell import Cell, promises
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load

LDP = ("privacy.mechanism=site_ldp", "compare.noise=1,8")


@pytest.mark.parametrize(
    ("words", "amounts"),
    [((), [None]), (("compare.noise=0,0.3",), [0.0, 0.3]), (LDP, [1.0, 8.0])],
)
def test_with_every_amount_it_is_the_promise_of_its_plan(
    bag_root: Path, words: tuple[str, ...], amounts: list[float | None]
) -> None:
    config = load(None, ["compare.methods=local,fedavg", *words])
    found = promises(config, bag_root)
    assert [one["noise"] for one in found] == amounts
    for one in found:
        plan = make_plan(Cell("fedavg", 0, 0, one["noise"]).config(config), bag_root)
        assert one["promise"] == plan.promise()
        assert one["without_noise"] == plan.released_without_noise()
        secret = replace(plan, run_id="a run").promise()
        assert secret.pop("in_ledger")
        told = {k: v for k, v in one["promise"].items() if k != "noise_source"}
        assert told == {k: v for k, v in secret.items() if k != "noise_source"}


def test_where_nothing_is_shared_nothing_is_promised(bag_root: Path) -> None:
    assert promises(load(None, ["compare.methods=local,pooled"]), bag_root) == []
