"""Cells of a comparison that are attacked: the same numbers, and one more."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayfed_hn.audit.attacked_cell import attacked_cell
from rayfed_hn.audit.membership import ALIGNMENT, membership
from rayfed_hn.audit.run import KEPT, Heard, audited
from rayfed_hn.federation.cell import Cell, fingerprint, run_cell
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load

WORDS = [
    "rounds.num_versions=3",
    "training.steps=4",
    "compare.folds=3",
    "audit.exchanges=2",
    "audit.shadows=4",
]
ATTACK = "compare.attack=true"


@pytest.mark.parametrize("noise", [None, 0.5])
def test_an_attack_adds_its_auc_and_changes_nothing(bag_root: Path, noise: float | None) -> None:
    cell = Cell("fedavg", 0, 0, noise)
    attacked = attacked_cell(cell, load(None, [*WORDS, ATTACK]), bag_root)
    auc = attacked.pop("membership_auc")
    plain = attacked_cell(cell, load(None, WORDS), bag_root)
    assert "membership_auc" not in plain
    for one in (attacked, plain):
        for record in (*one["metrics"], one["costs"]):
            record.pop("seconds")
    assert attacked == plain
    assert 0 <= auc <= 1


def test_the_auc_is_that_of_audit(bag_root: Path) -> None:
    config, cell = load(None, [*WORDS, ATTACK]), Cell("hypernetwork", 0, 0)
    plan = make_plan(cell.config(config), bag_root)
    heard = Heard(plan)
    run_cell(cell, config, bag_root, heard.tell)
    found = membership(audited(plan, heard.chosen(), KEPT))[ALIGNMENT]
    assert found is not None
    assert attacked_cell(cell, config, bag_root)["membership_auc"] == found.auc


def test_what_releases_nothing_is_not_attacked(bag_root: Path) -> None:
    found = attacked_cell(Cell("local", 0, 0), load(None, [*WORDS, ATTACK]), bag_root)
    assert "membership_auc" not in found


def test_a_cell_that_was_not_attacked_does_not_do_for_one_that_is_to_be() -> None:
    marks = {
        fingerprint(load(None, [*WORDS, *more]), "store")
        for more in ([], [ATTACK], [ATTACK, "audit.exchanges=3"])
    }
    assert len(marks) == 3
    assert fingerprint(load(None, ["audit.exchanges=3"]), "") == fingerprint(load(None, []), "")
