"""What is handed on to trackers, what is not, and that they cannot stop a run."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from fake_scale import scale_summary

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import load
from rayfed_hn.reporting import tracking
from rayfed_hn.reporting.tracking import check_tracker, settings, tracked

# Clients that write down what they are told, in the place of the real ones.
MLFLOW = """
    from types import SimpleNamespace
    told = []
    def set_experiment(name): told.append(("experiment", name))
    def start_run(run_name=None, run_id=None, tags=None):
        told.append(("start", run_name, run_id))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "id-1"))
    def log_params(params): told.append(("params", params))
    def log_metrics(metrics, step): told.append(("metrics", metrics, step))
    def set_tag(key, value): told.append(("tag", key, value))
    def end_run(status): told.append(("end", status))
"""
WANDB = """
    told = []
    class Settings:
        def __init__(self, **words): self.words = words
    class Run:
        id = "id-2"
        summary = {}
        def log(self, values): told.append(("metrics", values))
        def finish(self, exit_code): told.append(("end", exit_code))
    def init(project, name, config, dir, settings, id=None, resume=None):
        told.append(("start", project, name, config, settings.words, id, resume))
        return Run()
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = tmp_path / "packages"
    folder.mkdir()
    for name, text in (("mlflow", MLFLOW), ("wandb", WANDB)):
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(folder)
    yield __import__
    for name in ("mlflow", "wandb"):
        sys.modules.pop(name, None)


def config_of(name: str, *words: str) -> Config:
    return load(None, [f"run.track={name}", *words])


def run_of(config: Config, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with tracked(config, folder, "scale") as tracker:
        tracker.log({"mean over sites/validation AUC": 0.7, "undefined": None}, 1)
        tracker.log({"undefined": None}, 2)
        tracker.results(scale_summary())


def test_mlflow_is_told_settings_versions_and_results(tmp_path: Path, client: Any) -> None:
    config = config_of("mlflow", "rounds.num_versions=7", "data.bags=/wards/jane-doe")
    run_of(config, tmp_path / "run")
    told = client("mlflow").told
    assert told[:2] == [("experiment", "rayfed-hn"), ("start", "scale run", None)]
    assert told[2][0] == "params"
    assert told[2][1]["rounds.num_versions"] == "7"
    assert ("metrics", {"mean over sites/validation AUC": 0.7}, 1) in told
    rows = scale_summary()["rows"]
    for row in rows:
        name = f"{row['method']}/test AUC by number of sites/mean site"
        assert ("metrics", {name: row["tested"]["mean"]}, row["sites"]) in told
    assert told[-2:] == [("tag", "status", "complete"), ("end", "FINISHED")]
    assert "jane" not in repr(told)
    assert str(tmp_path) not in repr(told)


def test_a_run_that_goes_on_goes_on_there_too(tmp_path: Path, client: Any) -> None:
    for name, known in (("mlflow", "id-1"), ("wandb", "id-2")):
        for _ in range(2):
            run_of(config_of(name), tmp_path / name)
        starts = [one for one in client(name).told if one[0] == "start"]
        assert json.loads((tmp_path / name / "tracking.json").read_text()) == {"id": known}
        assert known not in repr(starts[0])
        assert known in repr(starts[1])


def test_wandb_is_told_no_host_and_no_code(tmp_path: Path, client: Any) -> None:
    run_of(config_of("wandb"), tmp_path / "run")
    told = client("wandb").told
    assert told[0][:3] == ("start", "rayfed-hn", "scale run")
    assert told[0][4]["console"] == "off"
    assert all(told[0][4][name] for name in ("disable_code", "x_disable_meta", "x_disable_stats"))
    assert ("metrics", {"mean over sites/validation AUC": 0.7, "step": 1}) in told
    assert told[-1] == ("end", 0)


@pytest.mark.parametrize("call", ["start_run", "log_metrics", "end_run"])
def test_a_tracker_that_fails_stops_nothing_and_is_told_of_once(
    tmp_path: Path,
    client: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    call: str,
) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route to tracker.example")

    monkeypatch.setattr(client("mlflow"), call, fails)
    run_of(config_of("mlflow"), tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("warning: run.track: ConnectionError: no route") == 1
    assert "The run itself goes on" in said


def test_curves_that_cannot_be_read_end_the_hand_over_and_not_the_run(
    tmp_path: Path, client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracked(config_of("mlflow"), tmp_path, "scale") as tracker:
        tracker.results({**scale_summary(), "rows": [{}]})
    assert "warning: run.track: KeyError" in capsys.readouterr().err
    assert ("end", "FINISHED") not in client("mlflow").told


def test_a_tracker_that_hangs_is_not_waited_for(
    tmp_path: Path,
    client: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(client("mlflow"), "start_run", lambda **_: time.sleep(5))
    monkeypatch.setattr(tracking, "LAST_SECONDS", 0.2)
    begun = time.monotonic()
    run_of(config_of("mlflow"), tmp_path / "run")
    assert time.monotonic() - begun < 3
    assert "still busy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "KILLED"), (ValueError("x"), "FAILED")]
)
def test_how_a_run_ended_is_told(
    tmp_path: Path, client: Any, error: BaseException, status: str
) -> None:
    with (
        pytest.raises(type(error)),
        tracked(config_of("mlflow"), tmp_path, "train"),
    ):
        raise error
    assert client("mlflow").told[-1] == ("end", status)


def test_results_of_train_are_of_sites_together(tmp_path: Path, client: Any) -> None:
    sites = [
        {"site": "St. Mary", "test_last": 0.5, "test_best": None},
        {"site": "north", "test_last": 1.0, "test_best": None},
    ]
    summary = {"verb": "train", "status": "degraded", "metric": "AUC", "num_versions": 3}
    with tracked(config_of("mlflow"), tmp_path, "train") as tracker:
        tracker.results(summary | {"sites": sites})
    told = client("mlflow").told
    values = {
        "test AUC_ readout last/mean site": 0.75,  # MLflow takes no comma
        "test AUC_ readout last/worst site": 0.5,
    }
    assert ("metrics", values, 3) in told
    assert "Mary" not in repr(told)
    assert told[-2:] == [("tag", "status", "degraded"), ("end", "FINISHED")]


@pytest.mark.parametrize(("name", "package"), [("mlflow", "mlflow-skinny"), ("wandb", "wandb")])
def test_a_client_that_is_not_here_is_said_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, name: Any, package: str
) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"run\.track: {name} is not .*pip install {package}'"):
        check_tracker(name)
    check_tracker("none")


def test_without_a_tracker_nothing_is_written(tmp_path: Path) -> None:
    run_of(config_of("none"), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_settings_name_no_place() -> None:
    words = ["data.bags=/secret/bags", "run.dir=/secret/run", "embed.weights=/secret/w.pt"]
    told = settings(load(None, words))
    assert "secret" not in repr(told)
    assert told["rounds.num_versions"] == "20"
    assert told["run.seed"] == "0"  # a run is repeated by it


def test_without_a_tracker_nothing_is_read_for_it(tmp_path: Path) -> None:
    """The metrics of a comparison may be many, and not be there any more."""
    with tracked(load(), tmp_path, "compare") as tracker:
        tracker.results({"verb": "compare", "status": "complete", "metric": "AUC", "table": []})
