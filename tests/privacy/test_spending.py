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
from rayfed_hn.privacy.release import LEDGER, make_gate
from rayfed_hn.privacy.spending import MOST, room, spending

DELTA = 1e-5
HIDES = frozenset([(SPENT.unit, SPENT.neighbouring)])


def charges(run: str, number: int, spent: Spent | None = SPENT) -> list[Charge]:
    return [Charge(ReleaseKey(run, "north", v, v, "00"), "", spent) for v in range(number)]


def test_runs_are_told_apart_and_added_up() -> None:
    found = spending([*charges("one", 3), *charges("two", 2)], DELTA)
    assert [(s.run, s.releases) for s in found] == [("one", 3), ("two", 2), (None, 5)]
    assert {s.hides for s in found} == {HIDES}
    assert [s.epsilon for s in found] == [epsilon_of([SPENT] * n, DELTA) for n in (3, 2, 5)]


def test_what_hides_nothing_leaves_no_epsilon_for_all() -> None:
    found = spending([*charges("bare", 1, None), *charges("two", 2)], DELTA)
    assert [s.epsilon for s in found] == [math.inf, epsilon_of([SPENT] * 2, DELTA), math.inf]
    assert [s.hides for s in found] == [{None}, HIDES, {None} | HIDES]


@given(st.integers(1, 40), st.integers(0, 60))
def test_room_is_what_a_budget_allows_and_no_more(made: int, more: int) -> None:
    spent = charges("one", made)
    budget = epsilon_of([SPENT] * (made + more), DELTA)
    assert room(spent, budget, DELTA) == more


def test_there_is_no_room_where_nothing_can_be_stated() -> None:
    assert room([], 8.0, DELTA) == 0
    assert room(charges("bare", 1, None), 8.0, DELTA) == 0
    assert room([*charges("bare", 1, None), *charges("one", 1)], 1000.0, DELTA) == 0


def test_nobody_counts_for_ever() -> None:
    assert room(charges("one", 1, Spent("site", "replace", 1e4)), 50.0, DELTA) == MOST


@pytest.fixture
def bags(bag_root: Path, tmp_path: Path) -> Path:
    """Bags of which nothing was ever given away."""
    bags = Path(shutil.copytree(bag_root, tmp_path / "bags"))
    for folder in bags.glob("site=*/privacy"):
        shutil.rmtree(folder)
    return bags


def shown(bags: Path, *words: str) -> tuple[int, list[list[str]], str]:
    found = CliRunner().invoke(app, ["ledger", str(bags), *words], standalone_mode=False)
    return found.return_value, [line.split() for line in found.output.splitlines()], found.output


def test_the_verb_shows_every_site_and_writes_nothing(bags: Path) -> None:
    north = FileLedger(bags / "site=north" / "privacy" / LEDGER)
    for charge in (*charges("one", 3), *charges("two", 2)):
        north.charge(charge)
    budget = epsilon_of([SPENT] * 9, DELTA)
    before = sorted(bags.rglob("*"))
    code, lines, text = shown(bags, "--budget", str(budget))
    assert code == 0
    assert sorted(bags.rglob("*")) == before
    total = f"{epsilon_of([SPENT] * 5, DELTA):.4g}"
    assert ["north", "all", "runs", "5", SPENT.unit, total] in lines
    assert ["south", "none", "yet", "0", "–", "0"] in lines
    assert "room for a run of up to 4 versions" in text
    assert "without limit" not in text
    unknown = CliRunner().invoke(app, ["ledger", str(bags), "--site", "nowhere"])
    assert "has no site nowhere; sites: north, south, west" in str(unknown.exception)


def test_what_hides_nothing_is_told(bags: Path) -> None:
    north = FileLedger(bags / "site=north" / "privacy" / LEDGER)
    for charge in (*charges("one", 1, None), *charges("two", 1, None)):
        north.charge(charge)
    _, lines, text = shown(bags, "--site", "north", "--budget", "9")
    assert ["north", "all", "runs", "2", "nothing", "without", "limit"] in lines
    assert "no room for a run" in text
    assert "a run with a privacy.budget is refused" in text
    north.charge(charges("three", 1)[0])
    assert ["north", "all", "runs", "3", "mixed", "without", "limit"] in shown(bags)[1]


@pytest.mark.parametrize("how", ["changed", "cut", "gone"])
def test_a_damaged_ledger_is_no_empty_one(bags: Path, how: str) -> None:
    folder = bags / "site=north" / "privacy"
    way = make_gate(folder, secret=True, delta=DELTA, budget=None, run_budget=None)
    for charge in charges("one", 3):
        way.release(charge.key, SPENT, b"x")
    assert shown(bags)[0] == 0
    path = folder / LEDGER
    if how == "changed":
        path.write_bytes(path.read_bytes().replace(b'"version": 1', b'"version": 7'))
    elif how == "cut":
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    else:
        path.unlink()
    code, _, text = shown(bags, "--budget", "100")
    assert code == 1
    assert "damaged" in text if how == "changed" else "has lost its end" in text
    assert "north  budget" not in text


@pytest.mark.parametrize("words", [["--delta", "0"], ["--budget", "-1"]])
def test_what_makes_no_sense_is_refused(bag_root: Path, words: list[str]) -> None:
    assert CliRunner().invoke(app, ["ledger", str(bag_root), *words]).exit_code == 2
