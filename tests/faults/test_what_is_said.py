"""What a run that went on says of it: in its summary, and in lines on the terminal."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from recorded_runs import SHORT, SIMULATED, go_on, plan_of

from rayfed_hn.errors import ConfigError, FederationError
from rayfed_hn.federation import record
from rayfed_hn.federation.commits import FOLDER
from rayfed_hn.federation.history import history
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.federation.record import RunRecord
from rayfed_hn.federation.site import note_failure
from rayfed_hn.loading import load
from rayfed_hn.locks import Holder
from rayfed_hn.run_directory import claim
from rayfed_hn.verbs.common import print_troubles
from rayfed_hn.verbs.federation import train


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


def test_other_bags_are_refused_before_anything_is_changed(bag_root: Path, tmp_path: Path) -> None:
    bags, folder = Path(shutil.copytree(bag_root, tmp_path / "bags")), tmp_path / "run"
    words = [*SHORT, *SIMULATED, f"data.bags={bags}", f"run.dir={folder}", "run.resume=true"]
    config = load(None, words)
    claim(folder, config, "train", resume=False)
    go_on(make_plan(config, bags), folder)
    next((bags / "site=north").glob("*.arrow")).unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"data\.bags: these are not the bags.* put them back"):
        train(words)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("module", "words"),
    [("readouts", ()), ("site_memory", ("training.keep_optimiser=true",))],
)
def test_a_site_without_room_says_so_and_not_that_its_bags_are_gone(
    bag_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    words: tuple[str, ...],
) -> None:
    def full(path: Path, write: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(f"rayfed_hn.federation.{module}.write_atomically", full)
    with pytest.raises(FederationError, match="the site could not write its files") as told:
        go_on(plan_of(bag_root, *SIMULATED, *words), tmp_path)
    assert str(tmp_path) not in str(told.value)  # what a site's disk is called stays there
    assert "No space left" in (bag_root / "site=north" / "site.log").read_text()


def test_a_log_that_cannot_be_written_changes_no_reason(tmp_path: Path) -> None:
    try:
        raise ValueError("something")
    except ValueError:
        assert note_failure(tmp_path) == 0  # a folder
        assert note_failure(tmp_path / "site.log") > 0


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
