"""``rayfed-hn onboard`` as a user meets it: files, exit codes, refusals. No cluster is needed."""

from __future__ import annotations

import json
import math
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import run_verb
from joining import run_directory, trained
from safetensors.torch import load_file
from tiny_federations import TASK_WORDS, create, write

from rayfed_hn.federation.onboarding.trial import RECOMMENDED

QUICK = (
    "onboard.labelled=0,2",
    "onboard.repeats=2",
    "onboard.steps=2",
    "onboard.embedding_steps=2",
)
MULTI = TASK_WORDS["multiclass"]  # all bags of the store have a label of it


@pytest.fixture(scope="module")
def runs(tasks_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs, to be looked at only."""
    folder = tmp_path_factory.mktemp("runs")
    for name, words in {
        "main": MULTI,
        "fedavg": (*MULTI, "method.name=fedavg"),
        "binary": TASK_WORDS["binary"],
        "wide": (*MULTI, "method.name=fedavg", "model.hidden_dim=6"),
        "smaller": (*MULTI, "method.name=fedavg", "data.leave_out=b,c"),
        "whole": (*MULTI, "method.name=fedavg", "data.leave_out="),
    }.items():
        run_directory(folder / name, *trained(tasks_root, *words))
    return folder


def _state(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_a_site_joins_and_a_report_is_made(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
    runs: Path,
) -> None:
    before, out = _state(runs), tmp_path / "joined"
    torch.set_num_threads(2)  # whatever the machine has: networks must not depend on it
    words = ["onboard", runs / "main", "--site", "c", "--fedavg", runs / "fedavg", *QUICK]
    assert run_verb(monkeypatch, *words, "--bags", tasks_root, f"run.dir={out}") == 0
    assert torch.get_num_threads() == 1
    assert _state(runs) == before
    told = capsys.readouterr().out
    assert "Recommended for c: " in told
    summary = _summary(out)
    assert (summary["verb"], summary["status"], summary["site"]) == ("onboard", "complete", "c")
    assert summary["num_labelled"] + summary["num_test"] == 15
    assert summary["origin"] == str(runs / "main")
    assert summary["bags"] == str(tasks_root)
    assert {point["labelled"] for point in summary["curve"]} == {0, 2}
    lines = (out / "curve.jsonl").read_text().splitlines()
    assert len(lines) == 2 * (3 + 9)  # zero-shot, FedAvg, recommended; all arms
    kept = load_file(out / "sites" / "c" / "network_recommended.safetensors")
    assert len(kept["candidates"]) == 3
    assert run_verb(monkeypatch, "report", out) == 0
    text = (out / "report.html").read_text()
    words_of = " ".join(ET.fromstring(text.split("\n", 1)[1]).itertext())
    assert "macro AUC" in words_of
    assert RECOMMENDED in words_of
    assert "nan" not in words_of.lower().split()
    assert f"--fedavg {runs / 'fedavg'}" in words_of
    assert run_verb(monkeypatch, *words, f"run.dir={out}") == 2
    assert "holds a run already" in capsys.readouterr().err


def test_the_command_of_the_report_makes_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runs: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "one"
    words = ["onboard", runs / "main", "--site", "c", *QUICK, "run.seed=3", "data.fold=1"]
    assert run_verb(monkeypatch, *words, f"run.dir={out}") == 0
    assert run_verb(monkeypatch, "report", out) == 0
    page = ET.fromstring((out / "report.html").read_text().split("\n", 1)[1])
    texts = [(e.text or "").strip() for e in page.iter() if (e.text or "").strip()]
    (command,) = (text for text in texts if text.startswith("rayfed-hn onboard"))
    assert run_verb(monkeypatch, *command.split()[1:]) == 0
    one, other = _summary(out), _summary(tmp_path / "one-again")
    for name in ("curve", "recommended", "held_out", "values", "num_test"):
        assert one[name] == other[name], name


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["main", "--site", "a"], "a took part in the run and has its network"),
        (["main", "--site", "nobody"], "has no usable bags of site 'nobody' (sites: a, b, c)"),
        (["main", "--site", "../x"], "--site: '../x' is no name of a site"),
        (["main", "--site", "c/../a"], "is no name of a site"),
        (["main", "--site", ""], "is no name of a site"),
        (["nowhere", "--site", "c"], "nowhere has no summary.json"),
        (["main", "--site", "c", "--fedavg", "main"], "was trained with method.name=hypernetwork"),
        (["main", "--site", "c", "--fedavg", "binary"], "was trained with method.name=hyper"),
        (["binary", "--site", "c", "--fedavg", "fedavg"], "another task or model"),
        (["main", "--site", "c", "--fedavg", "wide"], "another task or model"),
        (["main", "--site", "c", "--fedavg", "smaller"], "other bags"),
        (["main", "--site", "c", "--fedavg", "whole"], "c took part in that run"),
        (["main", "--site", "c", "onboard.labelled=-1"], "onboard.labelled: got [-1]"),
        (["main", "--site", "c", "onboard.labelled=1,1"], "onboard.labelled: [1, 1] has a number"),
        (["main", "--site", "c", "onboard.labelled=many"], "allowed: list of whole number"),
        (["main", "--site", "c", "onboard.step=1"], "did you mean onboard.steps?"),
        (["main", "--site", "c", "x.yaml"], "'x.yaml' is not of the form"),
    ],
)
def test_bad_usage_ends_with_2_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    runs: Path,
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(runs)
    before = _state(runs)
    assert run_verb(monkeypatch, "onboard", *words, f"run.dir={tmp_path / 'out'}") == 2
    assert says in capsys.readouterr().err
    assert _state(runs) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "resume"), [("main", "true"), ("main/../main", "false"), ("fedavg", "true")]
)
def test_the_runs_themselves_are_never_written_to(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    runs: Path,
    given: str,
    resume: str,
) -> None:
    monkeypatch.chdir(runs)
    before = _state(runs)
    words = ["onboard", "main", "--site", "c", "--fedavg", "fedavg", f"run.dir={given}"]
    assert run_verb(monkeypatch, *words, f"run.resume={resume}", "data.leave_out=c") == 2
    assert "is the run that c joins; give another" in capsys.readouterr().err
    assert _state(runs) == before


def test_a_run_that_knew_its_own_folder_is_not_written_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runs: Path
) -> None:
    """Without run.dir a new folder is made, whatever the run's config.yaml says."""
    run = tmp_path / "run"
    shutil.copytree(runs / "main", run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["run"] = {"dir": str(run), "resume": True}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    before = _state(run)
    monkeypatch.chdir(tmp_path)
    assert run_verb(monkeypatch, "onboard", run, "--site", "c", *QUICK) == 0
    assert _state(run) == before
    (made,) = (tmp_path / "runs").iterdir()
    assert made.name.startswith("onboard-")


def test_paths_of_the_run_that_are_gone(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
    runs: Path,
) -> None:
    """Only those that a new site needs are asked for, and one word does without them."""
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(runs / "main", run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    gone = {"enabled": True, "durations": "/gone/a.csv", "absences": "/gone/b.csv"}
    config["simulation"] = gone
    config["data"] |= {"splits": "/gone/splits", "bags": "/gone/bags", "manifest": "/gone/m.csv"}
    config["data"] |= {"root": "/gone"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    words = ["onboard", run, "--site", "c", *QUICK, f"run.dir={out}"]
    assert run_verb(monkeypatch, *words) == 2
    assert "/gone/bags is no bag store" in capsys.readouterr().err
    assert run_verb(monkeypatch, *words, "--bags", tasks_root) == 2
    assert "/gone/splits" in capsys.readouterr().err
    assert not out.exists()
    assert run_verb(monkeypatch, *words, "--bags", tasks_root, "data.splits=") == 0
    assert _summary(out)["num_test"] > 0


def test_tables_of_splits_that_do_not_name_the_site(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    runs: Path,
) -> None:
    """Its cases are divided by our folds; as the tables say where they name it."""
    tables = tmp_path / "tables"
    tables.mkdir()
    words = ["onboard", runs / "main", "--site", "c", *QUICK, f"data.splits={tables}"]
    table = tables / "splits_0_bool.csv"
    table.write_text("slide,train,val,test\na-1,True,False,False\n")
    assert run_verb(monkeypatch, *words, f"run.dir={tmp_path / 'one'}") == 0
    assert "data.splits names no slide of the site" in capsys.readouterr().out
    plain = [*words[:-1], f"run.dir={tmp_path / 'two'}"]
    assert run_verb(monkeypatch, *plain) == 0
    assert _summary(tmp_path / "one")["values"] == _summary(tmp_path / "two")["values"]
    lines = [f"c-{i},{i % 2 == 0},False,{i % 2 == 1}" for i in range(10)]
    table.write_text("\n".join(["slide,train,val,test", *lines]) + "\n")
    assert run_verb(monkeypatch, *words, f"run.dir={tmp_path / 'three'}") == 0
    found = _summary(tmp_path / "three")
    assert (found["num_labelled"], found["num_test"]) == (5, 5)


def _store(root: Path, labels: str, case: str = "case") -> Path:
    create(root)
    for i, label in enumerate(labels):
        write(root, "new", f"new-{i}", label, case=f"{case}-{i}")
    return root


def test_a_store_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, runs: Path
) -> None:
    words = ["onboard", runs / "main", "--site", "new", *QUICK, f"run.dir={tmp_path / 'out'}"]
    words.append("--bags")
    strange = _store(tmp_path / "strange", "789")
    assert run_verb(monkeypatch, *words, strange) == 2
    assert "no bag of new has a label of the run's task (0, 1, 2)" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "bags"
    shutil.copytree(strange, other)
    shutil.rmtree(other / "site=new")
    (other / "recipe.json").unlink()
    from rayfed_hn.bags import store

    store.create(other, {"encoder": "another", "feature_dim": 6})
    write(other, "new", "new-0", "0")
    assert run_verb(monkeypatch, *words, other) == 2
    assert "holds bags of another recipe" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run_verb(monkeypatch, *words, _store(tmp_path / "good", "0101012x")) == 3
    summary = _summary(tmp_path / "out")
    assert summary["set_aside"][0]["reason"].startswith("1 of its bags are damaged or have no")
    assert "set aside: new: 1 of its bags" in capsys.readouterr().out
    assert run_verb(monkeypatch, "report", tmp_path / "out") == 0


def test_a_case_that_the_federation_trained_on_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
    runs: Path,
) -> None:
    bags = tmp_path / "bags"
    shutil.copytree(tasks_root, bags)
    write(bags, "c", "c-extra", "0", case="case-a-1")
    words = ["onboard", runs / "main", "--site", "c", *QUICK, "--bags", bags]
    assert run_verb(monkeypatch, *words, f"run.dir={tmp_path / 'out'}") == 2
    assert "occur at more than one site (first: 'case-a-1'" in capsys.readouterr().err


def test_words_without_effect_are_said_to_be_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, runs: Path
) -> None:
    words = ["onboard", runs / "main", "--site", "c", *QUICK, f"run.dir={tmp_path / 'out'}"]
    assert run_verb(monkeypatch, *words, "training.steps=9", "run.seed=2") == 0
    assert capsys.readouterr().err.splitlines() == [
        "rayfed-hn: note: training.steps has no effect on onboard"
    ]
    assert math.isfinite(sum(_summary(tmp_path / "out")["recommended"].values()))
