"""Ledgers only grow; one that does not is seen."""

from __future__ import annotations

import numpy as np
import pytest

from rayfed_hn.federation.ledger_watch import LedgerWatch
from rayfed_hn.federation.messages import Update


def said(turn: int, releases: int) -> Update:
    return Update("north", turn, turn, np.zeros(2, np.float32), 0.0, 0.0, None, 1, 0.0,
                  releases=releases)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "back"),
    [
        ([(0, 1), (1, 2), (2, 3)], 0),
        ([(0, 5), (1, 5)], 1),  # what was charged for the second request is gone
        ([(0, 5), (1, 2), (2, 3)], 1),
        ([(0, 5), (1, 0)], 1),
        ([(0, 0), (1, 0)], 0),  # no ledger at all
        ([(0, 0), (1, 1)], 0),
        ([(0, 5), (0, 5)], 0),  # the same request, asked again
    ],
)
def test_who_answers_later_has_charged_more(words: list[tuple[int, int]], back: int) -> None:
    watch = LedgerWatch()
    for turn, releases in words:
        watch.see([said(turn, releases)])
    assert len(watch.about["ledgers_back"]) == back


def test_it_goes_on_with_a_run() -> None:
    before = LedgerWatch()
    before.see([said(0, 5)])
    watch = LedgerWatch(before.about["ledgers"], before.about["ledgers_back"])
    watch.see([said(1, 4)])
    (found,) = watch.about["ledgers_back"]
    assert found == {"site": "north", "turn": 1, "before": 5, "after": 4}
