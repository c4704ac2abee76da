"""What is spent and what is left, as a ledger tells it."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from checks import SPENT
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.cli import app
from rayfed_hn.privacy.accounting import Spent, epsilon_of
from rayfed_hn.privacy.ledger import Charge, FileLedger, ReleaseKey
from rayfed_hn.privacy.spending import room, spending

DELTA = 1e-5


def charges(run: str, number: int, spent: Spent | None = SPENT) -> list[Charge]:
    return [Charge(ReleaseKey(run, "north", v, v, "00"), "", spent) for v in range(number)]


def test_runs_are_told_apart_and_added_up() -> None:
    found = spending([*charges("one", 3), *charges("two", 2)], DELTA)
    assert [(s.run, s.releases, s.unit) for s in found] == [
        ("one", 3, SPENT.unit), ("two", 2, SPENT.unit), (None, 5, SPENT.unit),
    ]  # fmt: skip
    assert [s.epsilon for s in found] == [epsilon_of([SPENT] * n, DELTA) for n in (3, 2, 5)]


def test_what_hides_nothing_leaves_no_epsilon_for_all() -> None:
    found = spending([*charges("bare", 1, None), *charges("two", 2)], DELTA)
    assert [s.epsilon for s in found] == [math.inf, epsilon_of([SPENT] * 2, DELTA), math.inf]
    assert [s.unit for s in found] == [None, SPENT.unit, None]


@given(st.integers(1, 40), st.integers(0, 60))
def test_room_is_what_a_budget_allows_and_no_more(made: int, more: int) -> None:
    spent = charges("one", made)
    budget = epsilon_of([SPENT] * (made + more), DELTA)
    assert room(spent, budget, DELTA) == more


def test_there_is_no_room_where_nothing_can_be_stated() -> None:
    assert room([], 8.0, DELTA) == 0
    assert room(charges("bare", 1, None), 8.0, DELTA) == 0


def test_the_verb_shows_every_site_and_writes_nothing(bag_root: Path, tmp_path: Path) -> None:
    bags = Path(shutil.copytree(bag_root, tmp_path / "bags"))
    for folder in bags.glob("site=*/privacy"):
        shutil.rmtree(folder)
    north = FileLedger(bags / "site=north" / "privacy" / "ledger.jsonl")
    for charge in (*charges("one", 3), *charges("two", 2)):
        north.charge(charge)
    budget = epsilon_of([SPENT] * 9, DELTA)
    before = sorted(bags.rglob("*"))
    found = CliRunner().invoke(app, ["ledger", str(bags), "--budget", str(budget)])
    assert sorted(bags.rglob("*")) == before
    lines = [line.split() for line in found.output.splitlines()]
    total = f"{epsilon_of([SPENT] * 5, DELTA):.4g}"
    assert ["north", "all", "runs", "5", SPENT.unit, total] in lines
    assert ["south", "none", "yet", "0", "–", "0"] in lines
    assert "room for 4 more releases" in found.output
    text = north._path.read_bytes()
    north._path.write_bytes(text.replace(b'"version": 1', b'"version": 7'))
    damaged = CliRunner().invoke(
        app, ["ledger", str(bags), "--site", "north"], standalone_mode=False
    )
    assert damaged.return_value == 1
    assert "damaged" in damaged.output
    unknown = CliRunner().invoke(app, ["ledger", str(bags), "--site", "nowhere"])
    assert "has no site nowhere; sites: north, south, west" in str(unknown.exception)


@pytest.mark.parametrize("words", [["--delta", "0"], ["--budget", "-1"]])
def test_what_makes_no_sense_is_refused(bag_root: Path, words: list[str]) -> None:
    assert CliRunner().invoke(app, ["ledger", str(bag_root), *words]).exit_code == 2
