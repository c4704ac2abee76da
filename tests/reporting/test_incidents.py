"""What a run went through is told on its page, and nothing where nothing happened."""

from __future__ import annotations

import json
from pathlib import Path

from rayfed_hn.reporting.incidents import incidents
from rayfed_hn.reporting.report import write_report

TITLE = "What the run went through"


def test_restarts_damage_and_ledgers_are_told(train_run: Path) -> None:
    assert TITLE not in write_report(train_run).read_text()
    path = train_run / "summary.json"
    happened = {
        "restarts": {"north": 1, "south": 2},
        "centre_restarts": 1,
        "damaged_commits": [{"what": "the commit of version 3 is damaged", "went_on_from": 2}],
        "absent": [{"site": "east", "version": 6}],
        "ledgers_back": [{"site": "west", "before": 4, "after": 3, "turn": 4}],
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | happened))
    found = write_report(train_run).read_text()
    assert TITLE in found
    for line in (
        "what works for north was gone, and was started anew once",
        "what works for south was gone, and was started anew 2 times",
        "the central actor died once",
        "east was away from version 6 on",
        "the commit of version 3 is damaged; the run went on from version 2",
        "the privacy ledger of west went back: it had charged 4 releases, and 3 when",
    ):
        assert line in found


def test_nothing_happened() -> None:
    assert incidents({"restarts": {}, "centre_restarts": 0, "damaged_commits": []}) == []
