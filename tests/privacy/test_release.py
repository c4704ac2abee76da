"""Seal, charge, send: whatever is interrupted, nothing is sent twice or for free."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checks import SPENT, a_key

from rayfed_hn.errors import BudgetSpent, DataError
from rayfed_hn.privacy.accounting import Spent, epsilon_of
from rayfed_hn.privacy.ledger import FileLedger, ReleaseKey
from rayfed_hn.privacy.release import KEPT, Gate, make_gate

DELTA = 1e-5


def gate(
    folder: Path | None,
    budget: float | None = None,
    run: float | None = None,
    *,
    secret: bool = True,
    versions: int = 0,
) -> Gate:
    limits = {"budget": budget, "run_budget": run, "num_versions": versions}
    return make_gate(folder, secret=secret, delta=DELTA, **limits)


def of_run(run: str, version: int) -> ReleaseKey:
    return ReleaseKey(run, "north", version, version, "00")


# A site that is killed before the n-th call that changes anything on disk, for every n.
SITES = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_release import SPENT, a_key, gate

def asked(folder, fatal):
    calls = 0

    def mortal(call):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)
        return wrapped

    for name in ("fsync", "write", "ftruncate", "open"):
        setattr(os, name, mortal(getattr(os, name)))
    Path.replace, Path.write_bytes = mortal(Path.replace), mortal(Path.write_bytes)
    way = gate(folder)
    message = way.again(a_key(), SPENT)
    if message is None:
        message = way.release(a_key(), SPENT, os.urandom(64))
    calls = -10**6
    with open(folder / "sent", "ab") as sent:  # the network
        sent.write(message)

def in_a_process(folder, fatal):
    child = os.fork()
    if child == 0:
        asked(folder, fatal)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for fatal in range(1, 1000):
    folder = Path(sys.argv[2]) / str(fatal)
    folder.mkdir()
    if (code := in_a_process(folder, fatal)) == 0:
        break
    assert code == -signal.SIGKILL, code
    for name in ("after", "later"):
        state = folder / "ledger.jsonl"
        (folder / f"ledger {name}").write_bytes(state.read_bytes() if state.exists() else b"")
        assert not (folder / "sent").exists() or name == "later"
        assert in_a_process(folder, 10**6) == 0
"""


def charged(path: Path) -> float:
    return epsilon_of([one.spent for one in FileLedger(path).charges() if one.spent], DELTA)


def test_killed_anywhere_epsilon_never_falls_and_a_retry_sends_the_same_bytes(
    tmp_path: Path,
) -> None:
    words = [sys.executable, "-c", SITES, str(Path(__file__).parent), str(tmp_path)]
    subprocess.run(words, check=True)
    killed = [folder for folder in tmp_path.iterdir() if (folder / "ledger later").exists()]
    assert len(killed) >= 8
    for folder in killed:
        after, later, end = (charged(folder / name) for name in
                             ("ledger after", "ledger later", "ledger.jsonl"))  # fmt: skip
        assert after <= later == end == epsilon_of([SPENT], DELTA)  # once, and not for free
        sent = (folder / "sent").read_bytes()
        assert len(sent) == 128
        assert sent[:64] == sent[64:]
    assert len({charged(folder / "ledger after") for folder in killed}) == 2


def test_bytes_that_were_sealed_and_not_charged_are_charged_before_they_are_sent(
    tmp_path: Path,
) -> None:
    way = gate(tmp_path)
    assert way._outbox is not None
    way._outbox.seal(a_key(), b"sealed", 0)
    assert not way._ledger.charges()
    assert gate(tmp_path).again(a_key(), SPENT) == b"sealed"
    assert len(way._ledger.charges()) == 1


def test_a_site_stops_at_its_budget(tmp_path: Path) -> None:
    way = gate(tmp_path, budget=epsilon_of([SPENT] * 3, DELTA))
    for version in range(3):
        assert way.check(of_run(f"run {version}", version), SPENT).releases == 1
        way.release(of_run(f"run {version}", version), SPENT, b"x")
    for stopped in (way, gate(tmp_path, budget=epsilon_of([SPENT] * 3, DELTA))):
        with pytest.raises(BudgetSpent, match=r"beyond the .* of privacy\.budget of all runs"):
            stopped.release(of_run("run 3", 3), SPENT, b"x")
    assert len(FileLedger(tmp_path / "ledger.jsonl").charges()) == 3
    assert way.again(of_run("run 1", 1), SPENT) == b"x"  # which costs nothing more


def test_a_run_that_the_budget_has_no_room_for_is_not_begun(tmp_path: Path) -> None:
    budget = epsilon_of([SPENT] * 5, DELTA)
    first = gate(tmp_path, budget, versions=4)
    for version in range(4):
        first.release(of_run("first", version), SPENT, b"x")
    second = gate(tmp_path, budget, versions=4)
    for version in range(3):
        with pytest.raises(BudgetSpent, match=f"{4 - version} more releases would bring epsilon"):
            second.check(of_run("second", version), SPENT)
    # Who is first asked near the end needs no more than what is left.
    assert second.check(of_run("second", 3), SPENT).releases == 1
    assert first.again(of_run("first", 3), SPENT) == b"x"


def test_a_version_is_not_paid_for_twice_at_the_cost_of_the_last(tmp_path: Path) -> None:
    way = gate(tmp_path, epsilon_of([SPENT] * 4, DELTA), versions=4)
    again = ReleaseKey("run", "north", 0, 9, "00")  # what was not taken is asked for anew
    way.release(of_run("run", 0), SPENT, b"x")
    with pytest.raises(BudgetSpent):
        way.release(again, SPENT, b"y")
    for version in (1, 2, 3):
        way.release(of_run("run", version), SPENT, b"x")
    assert len(way._ledger.charges()) == 4


def test_a_run_stops_at_its_own_epsilon_whatever_others_spent(tmp_path: Path) -> None:
    for version in range(5):
        gate(tmp_path).release(of_run("before", version), SPENT, b"x")
    way = gate(tmp_path, run=epsilon_of([SPENT] * 2, DELTA))
    for version in range(2):
        account = way.check(of_run("now", version), SPENT)
        way.release(of_run("now", version), SPENT, b"x")
        assert account.releases == version + 1
        assert account.epsilon == epsilon_of([SPENT] * (version + 1), DELTA)
        assert account.epsilon_to_come == epsilon_of([SPENT] * (version + 6), DELTA)
    with pytest.raises(BudgetSpent, match="what this run promises"):
        way.check(of_run("now", 2), SPENT)


@pytest.mark.parametrize("other", [None, Spent("patient", "presence or absence", 1.0, 0.1)])
def test_with_what_hides_nothing_or_something_else_all_together_is_without_limit(
    tmp_path: Path, other: Spent | None
) -> None:
    gate(tmp_path).release(of_run("other", 0), other, b"x")
    account = gate(tmp_path).check(of_run("now", 0), SPENT)
    assert account.epsilon == epsilon_of([SPENT], DELTA)
    assert account.epsilon_to_come == math.inf
    with pytest.raises(BudgetSpent, match="no epsilon can be stated for all of them together"):
        gate(tmp_path, budget=100.0).check(of_run("now", 0), SPENT)


def test_an_outbox_keeps_the_last_few_and_what_is_not_kept_is_charged_anew(tmp_path: Path) -> None:
    way = gate(tmp_path)
    for version in range(KEPT + 3):
        way.release(of_run("run", version), SPENT, bytes([version]))
        way.release(of_run("another", version), SPENT, bytes([version]))
    found = [way.again(of_run("run", version), SPENT) for version in range(KEPT + 3)]
    assert found[3:] == [bytes([version]) for version in range(3, KEPT + 3)]
    assert found[:3] == [None] * 3
    assert way.again(of_run("another", 3), SPENT) == bytes([3])  # every run has its own
    assert len(way._ledger.charges()) == 2 * (KEPT + 3)
    way.release(of_run("run", 0), SPENT, b"new noise")
    assert len(way._ledger.charges()) == 2 * (KEPT + 3) + 1


def test_asking_again_and_again_comes_to_an_end(tmp_path: Path) -> None:
    budget = epsilon_of([SPENT] * (KEPT + 4), DELTA)
    way, sent = gate(tmp_path, budget=budget), set()

    def ask(number: int) -> bytes:
        key = of_run("run", number % (KEPT + 1))
        return bytes(way.again(key, SPENT) or way.release(key, SPENT, os.urandom(9)))

    for number in range(100):
        with contextlib.suppress(BudgetSpent):
            sent.add(ask(number))
    assert len(sent) == len(way._ledger.charges()) == KEPT + 4


def test_two_runs_at_once_do_not_both_take_the_last_of_a_budget(tmp_path: Path) -> None:
    one, other = (gate(tmp_path, budget=epsilon_of([SPENT], DELTA)) for _ in range(2))
    one.check(of_run("one", 0), SPENT)
    other.check(of_run("other", 0), SPENT)
    one.release(of_run("one", 0), SPENT, b"x")
    with pytest.raises(BudgetSpent):
        other.release(of_run("other", 0), SPENT, b"y")
    with pytest.raises(BudgetSpent):  # nor are the bytes that it has sealed sent later
        other.again(of_run("other", 0), SPENT)


def test_a_ledger_that_has_lost_its_end_is_noticed(tmp_path: Path) -> None:
    way = gate(tmp_path)
    for version in range(3):
        way.release(of_run("run", version), SPENT, b"x")
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:1]))
    with pytest.raises(DataError, match="privacy ledger has lost its end"):
        gate(tmp_path).again(of_run("run", 3), SPENT)


@pytest.mark.parametrize("kept", ["memory", "files"])
def test_where_noise_repeats_a_release_that_is_made_again_is_the_same(
    tmp_path: Path, kept: str
) -> None:
    way = gate(tmp_path if kept == "files" else None, run=epsilon_of([SPENT], DELTA), secret=False)
    for _ in range(3):  # as in a run that goes on from an older version
        assert way.again(of_run("run", 0), SPENT) is None
        assert way.check(of_run("run", 0), SPENT).releases == 1
        way.release(of_run("run", 0), SPENT, os.urandom(9))
    assert len(way._ledger.charges()) == 1
    with pytest.raises(BudgetSpent):
        way.check(of_run("run", 1), SPENT)
