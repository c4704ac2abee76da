"""What a run that went on says of it: in its summary, and in lines on the terminal."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from recorded_runs import SIMULATED, go_on, plan_of

from rayfed_hn.errors import FederationError
from rayfed_hn.federation import record
from rayfed_hn.federation.commits import FOLDER
from rayfed_hn.federation.history import history
from rayfed_hn.federation.record import RunRecord
from rayfed_hn.locks import Holder
from rayfed_hn.verbs.common import print_troubles


def test_other_code_is_seen(
    bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(bag_root, *SIMULATED)
    go_on(plan, tmp_path, stop_at=1)
    go_on(plan, tmp_path, stop_at=2)
    assert history(tmp_path, 2)["code_changed"] is False
    monkeypatch.setattr(record, "source_digest", lambda: "another")
    go_on(plan, tmp_path, stop_at=3)
    found = history(tmp_path, 2)
    assert (found["code_changed"], found["resumed_from"]) == (True, [1, 2])


def test_a_ledger_that_went_back_is_seen(
    bag_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*SIMULATED, "privacy.mechanism=site_ldp", "privacy.target_epsilon=8")
    plan, run = replace(plan_of(bag_root, *words), run_id="r"), tmp_path / "run"
    go_on(plan, run, stop_at=2)
    assert history(run, 2)["ledgers_back"] == []
    shutil.rmtree(run / "sites" / "north" / "privacy")  # seeded noise: not beside the bags
    go_on(plan, run, stop_at=3)
    found = history(run, 2)
    (back,) = found["ledgers_back"]
    assert (back["site"], back["before"], back["after"]) == ("north", 2, 1)
    print_troubles(found)
    line = "note: the privacy ledger of north went back: it had charged 2 releases, and 1 when"
    assert line in capsys.readouterr().out


def test_a_centre_that_outlived_its_driver_is_named(
    bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def taken(path: Path, wait_seconds: float) -> Holder:
        asked.append(path)
        return Holder("17", "elsewhere", "2026-01-02 03:04:05")

    plan = plan_of(bag_root)
    monkeypatch.setattr(record, "hold", taken)
    found = RunRecord(tmp_path, plan)
    says = r"process 17 on elsewhere since 2026.* commits here.*outlived its driver: end it"
    with pytest.raises(FederationError, match=says):
        found.begin(plan.server(), plan.begin_line())
    assert asked == [tmp_path / FOLDER / "lock"]
    assert not list(tmp_path.glob(f"{FOLDER}/0*"))
