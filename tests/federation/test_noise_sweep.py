"""Cells with several amounts of noise: which there are, and that each is what it would be alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.cell import Cell, cells, check_cells, run_cell
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load

SHORT = ["rounds.num_versions=2", "training.steps=2", "compare.seeds=1", "compare.folds=3"]
LDP = "privacy.mechanism=site_ldp"


def config(*words: str) -> Config:
    return load(None, [*SHORT, *words])


def timeless(found: dict[str, Any]) -> dict[str, Any]:
    """Without what a clock says, and without the name of the amount."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            left = ("noise", "seconds", "time")
            return {k: plain(v) for k, v in value.items() if k not in left}
        return value

    return plain(found)


def test_without_amounts_cells_are_what_they_were() -> None:
    (cell,) = cells(config("compare.methods=fedavg"))[:1]
    assert cell.name == "fedavg-seed0-fold0"
    assert cell.key == {"method": "fedavg", "seed": 0, "fold": 0}
    assert cell.config(config()).privacy == config().privacy


def test_every_method_has_every_amount_but_what_releases_nothing_none() -> None:
    asked = config("compare.methods=local,fedavg,pooled", "compare.noise=0,0.1,1e-7,12345678.9")
    found = cells(asked)
    amounts = {
        m: [c.noise for c in found if (c.method, c.fold) == (m, 0)] for m in ("local", "fedavg")
    }
    assert amounts == {"local": [None], "fedavg": [0.0, 0.1, 1e-7, 12345678.9]}
    assert len({cell.name for cell in found}) == len(found) == 3 * (1 + 4 + 1)
    assert not any(set('/\\ :*?"<>|') & set(cell.name) for cell in found)
    # The cells of a fold are together: an interrupted comparison is a balanced one.
    assert [cell.fold for cell in found] == sorted(cell.fold for cell in found)


@pytest.mark.parametrize(
    ("sweep", "plain"),
    [
        (["compare.noise=0.1"], ["privacy.noise_scale=0.1"]),
        (["compare.noise=0"], []),
        ([LDP, "compare.noise=50"], [LDP, "privacy.target_epsilon=50"]),
    ],
)
@pytest.mark.parametrize("method", ["hypernetwork", "local", "pooled"])
def test_one_amount_is_the_plain_cell_to_the_bit(
    bag_root: Path, sweep: Sequence[str], plain: Sequence[str], method: str
) -> None:
    word = f"compare.methods={method}"
    swept, alone = config(word, *sweep), config(word, *plain)
    one, other = (run_cell(cells(c)[0], c, bag_root) for c in (swept, alone))
    assert timeless(one) == timeless(other)
    if method == "hypernetwork":
        assert {row["noise"] for row in one["rows"]} == set(swept.compare.noise)
    assert not any("noise" in row for row in other["rows"])


def test_amounts_differ(bag_root: Path) -> None:
    asked = config("compare.methods=fedavg", "compare.noise=0,0.5")
    one, other = (run_cell(cell, asked, bag_root) for cell in cells(asked)[:2])
    assert timeless(one)["scores"] != timeless(other)["scores"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare.noise=-1"], "compare.noise: got [-1.0]; allowed: list of number, >= 0"),
        (["compare.noise=nan"], "compare.noise: got [nan]; give finite numbers"),
        (["compare.noise=1,inf"], "compare.noise: got [1.0, inf]; give finite numbers"),
        (["compare.noise=low"], "compare.noise: got ['low']"),
        (["compare.noise=0.1,0.10"], "names an amount twice"),
        (["compare.noise=0,1", LDP], "compare.noise: got [0.0, 1.0], but with privacy.mech"),
        (["compare.noise=1,201", LDP], "target_epsilon, which is above 0 and at most 200"),
        (["compare.noise=1", "privacy.mechanism=none"], "privacy.mechanism=none has none"),
        (["compare.noise=1", "privacy.noise_scale=0.1"], "privacy.noise_scale: compare.noise says"),
        (["compare.noise=1", LDP, "privacy.target_epsilon=1"], "privacy.target_epsilon: compare."),
        (["compare.noise=1", LDP, "privacy.noise_multiplier=1"], "privacy.noise_multiplier: "),
        (["compare.noise=1,9", LDP, "privacy.budget=3"], "privacy.budget: got 3.0, less than"),
    ],
)
def test_what_cannot_be_compared_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        config(*words)
    assert says in str(error.value)


def test_real_noise_is_refused_since_it_would_be_charged(bag_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.noise_source: os charges the ledgers"):
        cells(config("privacy.noise_source=os", "privacy.noise_scale=0.1"))


@pytest.mark.parametrize("methods", ["fedavg", "fedavg,local"])
def test_what_no_noised_cell_can_do_is_refused_before_anything_runs(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch, methods: str
) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting.pld", None)
    words = ["privacy.mechanism=slide_dpsgd", "training.class_balanced=false"]
    asked = config(*words, "compare.noise=3.21", f"compare.methods={methods}")
    with pytest.raises(ConfigError, match="needs dp-accounting"):
        check_cells(asked, bag_root)


def test_the_amounts_of_compare_are_none_of_train(bag_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.target_epsilon: missing"):
        make_plan(config(LDP, "compare.noise=1"), bag_root)


def test_what_releases_nothing_needs_no_epsilon(bag_root: Path) -> None:
    asked = config(LDP, "compare.noise=1", "compare.methods=local")
    assert make_plan(Cell("local", 0, 0).config(asked), bag_root).noise_multiplier is None
