"""A ledger only grows, tells of damage, and is the same for everybody who reads it."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from checks import SPENT, a_key

from rayfed_hn.errors import BudgetSpent, DataError
from rayfed_hn.privacy.ledger import Charge, FileLedger, MemoryLedger

CHARGES = [Charge(a_key(version=version), "what", SPENT) for version in range(3)]


def filled(path: Path) -> FileLedger:
    ledger = FileLedger(path)
    for charge in CHARGES:
        ledger.charge(charge)
    return ledger


@pytest.mark.parametrize("kept", ["memory", "file"])
def test_charges_come_back_in_order_and_each_once(tmp_path: Path, kept: str) -> None:
    ledger = MemoryLedger() if kept == "memory" else FileLedger(tmp_path / "ledger.jsonl")
    assert ledger.charges() == () or ledger.charges() == []
    for charge in (*CHARGES, CHARGES[1], CHARGES[0]):
        ledger.charge(charge)
    assert list(ledger.charges()) == CHARGES
    ledger.charge(Charge(a_key(b"other"), "what", None))
    ledger.charge(Charge(CHARGES[0].key, "other noise", SPENT))
    assert len(ledger.charges()) == 5


@pytest.mark.parametrize("kept", ["memory", "file"])
def test_what_is_not_allowed_is_not_charged(tmp_path: Path, kept: str) -> None:
    ledger = MemoryLedger() if kept == "memory" else FileLedger(tmp_path / "ledger.jsonl")
    ledger.charge(CHARGES[0])

    def refuse(known: Sequence[Charge]) -> None:
        assert list(known) == CHARGES[:1]
        raise BudgetSpent("no more")

    with pytest.raises(BudgetSpent):
        ledger.charge(CHARGES[1], refuse)
    ledger.charge(CHARGES[0], refuse)  # which is there already
    assert list(ledger.charges()) == CHARGES[:1]


def test_another_process_goes_on_with_it(tmp_path: Path) -> None:
    path = tmp_path / "site" / "ledger.jsonl"
    filled(path)
    assert list(FileLedger(path).charges()) == CHARGES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_line_that_was_torn_by_a_crash_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])  # of which nothing had been sent
    assert list(ledger.charges()) == CHARGES[:2]
    ledger.charge(CHARGES[2])
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", ["changed", "removed", "swapped", "nonsense"])
def test_damage_is_noticed_and_nothing_is_promised(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = filled(path)
    lines = path.read_text().splitlines(keepends=True)
    lines = {
        "changed": [lines[0].replace('"multiplier": 2.0', '"multiplier": 9.0'), *lines[1:]],
        "removed": lines[1:],
        "swapped": [lines[1], lines[0], lines[2]],
        "nonsense": [lines[0], "{}\n", lines[2]],
    }[damage]
    path.write_text("".join(lines))
    for use in (ledger.charges, lambda: ledger.charge(Charge(a_key(b"new"), "what", SPENT))):
        with pytest.raises(DataError, match="privacy ledger is damaged at line"):
            use()


WRITER = """
import sys
from collections.abc import Sequence
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from checks import SPENT, a_key
from rayfed_hn.privacy.ledger import Charge, FileLedger
for version in range(20):
    key = a_key(sys.argv[3].encode(), version)
    FileLedger(Path(sys.argv[1])).charge(Charge(key, "what", SPENT))
"""


def test_a_charge_waits_for_who_is_writing(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.jsonl")
    more = Charge(a_key(b"more"), "what", SPENT)
    writer = threading.Thread(target=ledger.charge, args=(more,))
    with (tmp_path / "ledger.jsonl").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
    writer.join(60)
    assert list(ledger.charges()) == [*CHARGES, more]


def test_two_processes_at_once_lose_no_charge(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    words = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)]
    writers = [subprocess.Popen([*words, name], env=os.environ) for name in ("a", "b")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(FileLedger(path).charges()) == 40
