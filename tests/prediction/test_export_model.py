"""A network that is handed on: the same scores without this package, and a card that is true."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run_verb
from finished_runs import finished_run
from tiny_federations import create, write

from rayfed_hn.bags.store import SiteBags
from rayfed_hn.federation.labels import task_of
from rayfed_hn.loading import load
from rayfed_hn.models.exported import export_program
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import MODELS, make_model
from rayfed_hn.prediction.networks import Network
from rayfed_hn.prediction.scores import values

# A process that has the standard library, torch, and what torch itself cannot do without.
ALONE = """
import sys, json
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
NEEDED = {"torch", "torchgen", "functorch", "typing_extensions", "sympy", "mpmath", "filelock",
          "networkx", "jinja2", "markupsafe", "fsspec", "setuptools", "_distutils_hack", "nvidia",
          "triton", "cuda"}
class Only:
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        if first in NEEDED | set(sys.stdlib_module_names) or first.startswith("_sysconfigdata"):
            return PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Only()]
import torch
torch.set_num_threads(1)
asked, answers = json.loads(sys.stdin.read()), []
for program, bags in asked:
    extra = {"about.json": ""}
    network = torch.export.load(program, extra_files=extra).module()
    said = [network(torch.tensor(bag, dtype=torch.float32)).tolist() for bag in bags]
    answers.append({"said": said, "about": json.loads(extra["about.json"])})
foreign = {"numpy", "scipy", "rayfed_hn", "safetensors"} & set(sys.modules)
print(json.dumps([answers, sorted(foreign)]))
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
OTHERS = [("survival", "clam_mb"), ("multiclass", "dsmil"), ("binary", "set_transformer")]


def _alone(asked: Sequence[tuple[Path, Sequence[np.ndarray]]]) -> list[dict[str, Any]]:
    """What programs say of bags in a process that has torch only, and about themselves."""
    words = [[str(program), [bag.tolist() for bag in bags]] for program, bags in asked]
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE],
        input=json.dumps(words),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers, foreign = json.loads(done.stdout)
    assert foreign == []
    return answers


@pytest.mark.parametrize("name", ["numpy", "rayfed_hn", "safetensors", "scipy"])
def test_alone_is_alone(name: str) -> None:
    code = ALONE.partition("import torch\n")[0] + f"import {name}"
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=path
    )
    assert f"No module named '{name}'" in done.stderr


def test_all_models_are_covered() -> None:
    assert {model for _, model, _ in RUNS} == set(MODELS)


@pytest.fixture(scope="module")
def new_bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = create(tmp_path_factory.mktemp("new") / "bags")
    rng = np.random.default_rng(0)
    for number, size in enumerate((1, 2, 7, 333)):
        write(root, "b", f"new-{number}", "", features_ND=3 * rng.normal(size=(size, 6)) + 1)
    return root


@pytest.mark.parametrize("half", [0, 1])
def test_the_program_alone_says_what_predict_says(
    half: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tasks_root: Path, new_bags: Path
) -> None:
    opened = SiteBags(new_bags, "b")
    bags = [np.array(opened.load(i).features_ND) for i in range(len(opened))]
    assert [len(bag) for bag in bags] == [1, 2, 7, 333]
    runs = RUNS[half::2]
    for number, (task, model, words) in enumerate(runs):
        words = (*TASKS[task], f"model.name={model}", "model.attention_dim=4", *words)
        run = finished_run(tmp_path / f"run{number}", tasks_root, *words)
        out, folder = tmp_path / f"{number}.csv", tmp_path / f"m{number}"
        assert run_verb(monkeypatch, "predict", run, "--bags", new_bags, "--to", out) == 0
        assert run_verb(monkeypatch, "export-model", run, "--site", "b", "--to", folder) == 0
    answers = _alone([(tmp_path / f"m{n}" / "b.pt2", bags) for n in range(len(runs))])
    for number, (made, found) in enumerate(zip(runs, answers, strict=True)):
        with (tmp_path / f"{number}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        names = found["about"]["output"]
        expected = [[float(row[name]) for name in names] for row in rows]
        np.testing.assert_allclose(found["said"], expected, rtol=1e-6, atol=1e-6, err_msg=f"{made}")
        assert len({tuple(row) for row in expected}) > 1
        card = (tmp_path / f"m{number}" / "MODEL_CARD.md").read_text()
        assert found["about"]["recipe_sha256"] in card


def test_models_on_other_tasks_say_alone_what_they_say_here(tmp_path: Path) -> None:
    """Pairs that ``RUNS`` lacks; two networks of a mixture, and large features."""
    rng = np.random.default_rng(3)
    bags = [(3 * rng.normal(size=(n, 6)) + 1).astype(np.float32) for n in (1, 2, 3, 50)]
    share_C = np.array([0.7, 0.5])
    asked, expected = [], []
    for task_name, name in OTHERS:
        words = (*TASKS[task_name], f"model.name={name}", "model.hidden_dim=8")
        config = load(None, [*words, "model.attention_dim=4"])
        task = task_of(config, ("0", "1", "2")[: 2 if task_name == "binary" else 3], (1.0, 2.0))
        model = make_model(6, task.num_outputs, config.model)
        size = ParameterLayout.of(model).size
        networks_CP = torch.tensor(rng.normal(size=(2, size)) / 2).float()
        network = Network("own", "mixture", model, task, tuple(networks_CP), share_C)
        said = [values(task, network.predict(LabelledBag(bag, 0))) for bag in bags]
        path = tmp_path / f"{name}.pt2"
        path.write_bytes(export_program(model, network.candidates, share_C, task, {}))
        asked.append((path, bags))
        expected.append(said)
    for pair, answer, said in zip(OTHERS, _alone(asked), expected, strict=True):
        np.testing.assert_allclose(answer["said"], said, rtol=2e-5, atol=1e-6, err_msg=str(pair))
        assert np.ptp(np.array(said), axis=0).max() > 1e-3, pair  # it depends on the bag


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
        (  # its own scale of features is in its first layer, and nobody noised that
            (
                *("privacy.noise_scale=0.1", "privacy.mechanism=paper", "evaluation.readout=last"),
                "model.standardise=site",
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
    assert run_verb(monkeypatch, "export-model", run, "--site", "a", "--to", tmp_path / "m") == 0
    card = (tmp_path / "m" / "MODEL_CARD.md").read_text()
    assert ("was trained at a without noise" in card) != noised
    assert ("trained at a without noise" in capsys.readouterr().out) != noised
    assert "was chosen on the validation bags" not in card  # of the last version nothing was
    assert ("which sites released once without noise" in card) == noised  # of the shared scale


def test_the_card_has_the_numbers_of_the_run_and_code_that_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tasks_root: Path
) -> None:
    run = finished_run(tmp_path / "run", tasks_root, "task.classes=0,1")
    assert run_verb(monkeypatch, "export-model", run, "--site", "a", "--to", tmp_path / "m") == 0
    card = (tmp_path / "m" / "MODEL_CARD.md").read_text()
    for site in json.loads((run / "summary.json").read_text())["sites"]:
        value = site["test_mixture"]
        assert f"{site['site']}" in card
        assert value is None or f"| {value:.3f} |" in card
    sha256 = hashlib.sha256((tmp_path / "m" / "a.pt2").read_bytes()).hexdigest()
    assert f"| file | `a.pt2`, SHA-256 `{sha256}` |" in card
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
        assert run_verb(monkeypatch, "export-model", run, *words) == 2
        assert why in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
    for path in (run / "sites" / "a").glob("network_*"):
        path.unlink()
    assert run_verb(monkeypatch, "export-model", run, "--site", "a", "--to", tmp_path / "m") == 2
    assert "left no network" in capsys.readouterr().err
