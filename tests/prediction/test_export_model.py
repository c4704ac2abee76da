"""A network that is handed on: the same scores without this package, and a card that is true."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from finished_runs import finished_run
from tiny_federations import create, write

from rayfed_hn import cli
from rayfed_hn.bags.store import SiteBags
from rayfed_hn.models.registry import MODELS

ALONE = """
import sys, json
import numpy as np, torch
torch.set_num_threads(1)
asked = json.loads(sys.stdin.read())
extra = {"about.json": ""}
program = torch.export.load(asked["program"], extra_files=extra).module()
said = [program(torch.from_numpy(np.load(path))).tolist() for path in asked["bags"]]
foreign = [name for name in sys.modules if name.startswith("rayfed_hn")]
print(json.dumps({"said": said, "about": json.loads(extra["about.json"]), "foreign": foreign}))
"""
TASKS = {
    "binary": ("task.classes=0,1",),
    "multiclass": ("task.kind=multiclass",),
    "ordinal": ("task.kind=ordinal",),
    "survival": ("task.kind=survival", "task.num_bins=3"),
}
# Every task, model, kind of network and scale at least once.
RUNS = [
    ("binary", "gated_attention", ()),
    ("multiclass", "clam_mb", ("evaluation.readout=last",)),
    ("ordinal", "dsmil", ("method.name=pooled",)),
    ("survival", "set_transformer", ("model.standardise=none",)),
    ("binary", "mean", ("method.name=local", "evaluation.readout=best")),
    ("binary", "max", ("method.name=fedper",)),
    ("multiclass", "attention", ("model.standardise=site",)),
    ("ordinal", "clam_sb", ("method.name=fedavg_ft", "evaluation.readout=last")),
]


def _main(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["rayfed-hn", *map(str, words)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def _alone(tmp_path: Path, program: Path, bags: list[np.ndarray]) -> dict:
    """What the program says in a process that has torch and numpy only."""
    paths = [tmp_path / f"bag-{i}.npy" for i in range(len(bags))]
    for path, features_ND in zip(paths, bags, strict=True):
        np.save(path, features_ND)
    asked = json.dumps({"program": str(program), "bags": [str(p) for p in paths]})
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE], input=asked, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_all_models_are_covered() -> None:
    assert {model for _, model, _ in RUNS} == set(MODELS)


@pytest.mark.parametrize(("task", "model", "words"), RUNS)
def test_the_program_alone_says_what_predict_says(
    task: str,
    model: str,
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tasks_root: Path,
) -> None:
    words = (*TASKS[task], f"model.name={model}", "model.attention_dim=4", *words)
    run = finished_run(tmp_path / "run", tasks_root, *words)
    new = create(tmp_path / "new")
    rng = np.random.default_rng(0)
    for number, size in enumerate((1, 2, 7, 333)):
        write(new, "b", f"new-{number}", "", features_ND=3 * rng.normal(size=(size, 6)) + 1)
    out = tmp_path / "out.csv"
    assert _main(monkeypatch, "predict", run, "--bags", new, "--to", out) == 0
    assert _main(monkeypatch, "export-model", run, "--site", "b", "--to", tmp_path / "m") == 0
    opened = SiteBags(new, "b")
    bags = [np.array(opened.load(i).features_ND) for i in range(len(opened))]
    assert [len(bag) for bag in bags] == [1, 2, 7, 333]
    found = _alone(tmp_path, tmp_path / "m" / "b.pt2", bags)
    assert found["foreign"] == []
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = found["about"]["output"]
    expected = [[float(row[name]) for name in names] for row in rows]
    np.testing.assert_allclose(found["said"], expected, rtol=1e-6, atol=1e-6)
    assert len({tuple(row) for row in expected}) > 1
    card = (tmp_path / "m" / "MODEL_CARD.md").read_text()
    assert found["about"]["recipe_sha256"] in card


@pytest.mark.parametrize(
    ("words", "noised"),
    [
        ((), False),
        (("evaluation.readout=last",), False),
        (("privacy.noise_scale=0.1", "privacy.mechanism=paper"), False),
        (("privacy.noise_scale=0.1", "privacy.mechanism=paper", "evaluation.readout=last"), True),
        (
            (
                *("privacy.noise_scale=0.1", "privacy.mechanism=paper", "evaluation.readout=last"),
                "method.name=fedavg_ft",
            ),
            False,
        ),
    ],
)
def test_the_card_says_whether_there_was_noise(
    words: tuple[str, ...],
    noised: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
) -> None:
    run = finished_run(tmp_path / "run", tasks_root, "task.classes=0,1", *words)
    assert _main(monkeypatch, "export-model", run, "--site", "a", "--to", tmp_path / "m") == 0
    card = (tmp_path / "m" / "MODEL_CARD.md").read_text()
    assert ("was trained at a without noise" in card) != noised
    assert ("trained at a without noise" in capsys.readouterr().out) != noised


def test_the_card_has_the_numbers_of_the_run_and_code_that_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tasks_root: Path
) -> None:
    run = finished_run(tmp_path / "run", tasks_root, "task.classes=0,1")
    assert _main(monkeypatch, "export-model", run, "--site", "a", "--to", tmp_path / "m") == 0
    card = (tmp_path / "m" / "MODEL_CARD.md").read_text()
    for site in json.loads((run / "summary.json").read_text())["sites"]:
        value = site["test_mixture"]
        assert f"{site['site']}" in card
        assert value is None or f"| {value:.3f} |" in card
    for part in ("Intended use", "Research only", "License\n\nNot stated", '"encoder": "test"'):
        assert part in card
    for told in json.loads((run / "privacy.json").read_text())["in_words"]:
        assert told.replace("<", "&lt;") in card
    code = card.partition("```python\n")[2].partition("```")[0]
    assert len(code.strip().splitlines()) == 5
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path / "m", capture_output=True, text=True
    )
    assert "probability_1" in done.stdout, done.stderr


def test_refusals(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
) -> None:
    run = finished_run(tmp_path / "run", tasks_root, "task.classes=0,1", "data.leave_out=c")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    for words, why in {
        ("--site", "c", "--to", tmp_path / "m"): "c did not take part",
        ("--site", "a", "--to", full): "is not empty",
    }.items():
        assert _main(monkeypatch, "export-model", run, *words) == 2
        assert why in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
    for path in (run / "sites" / "a").glob("network_*"):
        path.unlink()
    assert _main(monkeypatch, "export-model", run, "--site", "a", "--to", tmp_path / "m") == 2
    assert "left no network" in capsys.readouterr().err
