"""A search on Ray Tune: what comes out is what its trials are in process, also when it was cut."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rayfed_hn import cli
from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.cell import Cell, run_cell
from rayfed_hn.loading import load
from rayfed_hn.orchestration import tune as tune_module
from rayfed_hn.orchestration.tune import conclude, try_all
from rayfed_hn.orchestration.tune_optuna import check_optuna
from rayfed_hn.orchestration.tune_trials import News, _reason
from rayfed_hn.reporting.report import write_report
from rayfed_hn.tuning.learning import Learning
from rayfed_hn.tuning.search import Search
from rayfed_hn.tuning.trials import final_divisions, trial_config

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
SHORT = ["rounds.num_versions=3", "training.steps=3", "tune.search=grid", "tune.final_seeds=1"]
GRID = [
    "tune.space.privacy.noise_scale=grid(0.01, 0.5)",
    "tune.space.training.learning_rate=grid(0.0001, 0.02)",
]
OBJECTIVES = ["tune.objectives=validation_metric,noise_scale"]


def config(*words: str) -> Config:
    return load(None, [*SHORT, *GRID, *OBJECTIVES, *words])


class Cut(Exception):
    pass


@pytest.fixture(scope="module")
def whole(
    bag_root: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None
) -> tuple[Path, dict[str, Any]]:
    """A search that was cut after two trials and went on."""
    folder = tmp_path_factory.mktemp("tune")
    (folder / "config.yaml").write_text("{}")
    search = Search.of(config(), bag_root)
    ended: list[int] = []

    def cut(done: int, news: News | None) -> None:
        if done == 2:
            raise Cut

    with pytest.raises(Cut):
        try_all(search, bag_root, folder, cut)
    kept = {p: p.stat().st_mtime_ns for p in (folder / "trials").glob("trial-*.json")}
    assert len(kept) == 2

    def hear(done: int, news: News | None) -> None:
        if news is not None and news.record is not None:
            ended.append(news.trial.number)

    records = try_all(search, bag_root, folder, hear)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert len(ended) == 2  # those that were done are not done again
    return folder, conclude(search, records, bag_root, folder, lambda done, total: None)


def test_the_table_is_that_of_the_trials_in_process(
    bag_root: Path, whole: tuple[Path, dict[str, Any]]
) -> None:
    folder, summary = whole
    search = Search.of(config(), bag_root)
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert [line["trial"] for line in lines] == [0, 1, 2, 3]
    for trial, line in zip(search.trials, lines, strict=True):
        judged = list(Learning(trial_config(search.config, trial.settings), bag_root))
        assert line["settings"] == dict(trial.settings)
        assert line["curve"] == [one.mean for one in judged]
        assert line["validation_metric"] == judged[-1].mean
        assert [d["validation_metric"] for d in line["by_division"]] == list(judged[-1].by_division)
        assert line["status"] == "finished"
    best = max(lines, key=lambda r: (r["validation_metric"], -r["trial"]))
    assert summary["best"] == best["trial"]
    assert summary == json.loads((folder / "summary.json").read_text())
    assert [{k: v for k, v in r.items() if k != "curve"} for r in lines] == summary["trials"]


def test_the_best_is_tested_with_seeds_that_no_trial_had(
    bag_root: Path, whole: tuple[Path, dict[str, Any]]
) -> None:
    folder, summary = whole
    asked = config()
    (trial,) = (t for t in summary["trials"] if t["trial"] == summary["best"])
    final = summary["final"]
    assert final["settings"]["tuned"] == trial["settings"]
    noise = trial["settings"]["privacy.noise_scale"]
    assert final["settings"]["configured"] == {
        "privacy.noise_scale": noise,  # released is as much
        "training.learning_rate": None,
    }
    again = load(folder / "best.yaml")
    seed, fold = final_divisions(asked)[0]
    alone = run_cell(Cell("hypernetwork", seed, fold), again, bag_root)
    found = [r for r in final["rows"] if r["method"] == "tuned" and r["fold"] == fold]
    assert [r["value"] for r in found] == [r["value"] for r in alone["rows"]]
    (difference,) = (d for d in final["differences"] if d["readout"] == "mixture")
    assert {difference["method"], difference["against"]} == {"tuned", "configured"}
    assert not final["unseen"]


def test_files_of_the_front_hold_its_settings(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = whole
    names = {f"trial-{number:04}.yaml": number for number in summary["front"]}
    assert {path.name for path in (folder / "front").iterdir()} == set(names)
    for name, number in names.items():
        found = load(folder / "front" / name)
        wanted = summary["trials"][number]["settings"]
        assert found.privacy.noise_scale == wanted["privacy.noise_scale"]
        assert found.training.learning_rate == wanted["training.learning_rate"]


def test_ray_tune_leaves_curves_and_no_names_of_slides(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = whole
    assert len(list(folder.glob("trials/attempt-2/trial-*/events.out.tfevents.*"))) == 2
    assert not list(folder.rglob("*.csv"))
    text = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
    assert b"north-case" not in text


def test_its_report_can_be_made(whole: tuple[Path, dict[str, Any]]) -> None:
    text = write_report(whole[0]).read_text()
    assert "Of 4 settings" in text


def test_a_trial_that_fails_is_told_and_tried_again(bag_root: Path, tmp_path: Path) -> None:
    words = ["tune.search=grid", "tune.final_seeds=0", "tune.folds=1", "rounds.num_versions=1"]
    words += ["training.steps=1", "tune.space.rounds.min_sites=grid(1, 9)"]
    search = Search.of(load(None, words), bag_root)
    for attempt in (1, 2):
        ended: list[int] = []

        def hear(done: int, news: News | None, ended: list[int] = ended) -> None:
            if news is not None and news.record is not None:
                ended.append(news.trial.number)

        records = try_all(search, bag_root, tmp_path, hear)
        assert sorted(ended) == ([0, 1] if attempt == 1 else [1])
        assert [r["status"] for r in records] == ["finished", "failed"]
        assert "rounds.min_sites: got 9, but 3 sites take part" in records[1]["reason"]
    summary = conclude(search, records, bag_root, tmp_path, lambda done, total: None)
    assert (summary["status"], summary["exit_code"]) == ("degraded", 3)
    assert [r["trial"] for r in summary["failed_trials"]] == [1]
    assert summary["final"] is None


def test_what_an_error_says_is_told_only_if_it_names_no_slide() -> None:
    assert _reason(ConfigError("x: got 3")) == "x: got 3"
    assert "north-1" not in _reason(ValueError("bad bag north-1"))


def test_optuna_is_asked_for_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'rayfed_hn\[optuna\]'"):
        check_optuna()


def test_asha_stops_trials_and_never_calls_one_of_them_best(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    bag_root: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """By the command line, which also says how to go on when it is interrupted."""

    def run(*words: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["rayfed-hn", *words])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    words = [
        f"data.bags={bag_root}",
        f"run.dir={tmp_path}",
        "rounds.num_versions=4",
        "tune.folds=1",
    ]
    words += ["tune.scheduler=asha", "training.steps=2", "tune.num_trials=4", "tune.final_seeds=0"]
    words += ["tune.max_concurrent=1", "tune.space.privacy.noise_scale=uniform(0, 1)"]
    with monkeypatch.context() as cutting:
        cutting.setattr(tune_module, "conclude", interrupt)
        assert run("tune", *words) == 4
    assert f"'rayfed-hn resume {tmp_path}'" in capsys.readouterr().err
    assert run("resume", str(tmp_path)) == 0
    told = capsys.readouterr().out
    assert "trials: 4/4" in told
    assert f"rayfed-hn train {tmp_path / 'best.yaml'}" in told
    summary = json.loads((tmp_path / "summary.json").read_text())
    status = {r["trial"]: r["status"] for r in summary["trials"]}
    assert status[summary["best"]] == "finished"
    assert set(status.values()) <= {"finished", "stopped"}
    for record in summary["trials"]:
        assert (record["version"] == 4) == (record["status"] == "finished")
    assert run("resume", str(tmp_path)) == 0
    assert "is finished (tune, complete); nothing is left to do" in capsys.readouterr().out
