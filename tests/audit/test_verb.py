"""``rayfed-hn audit`` as a user meets it. No cluster is needed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from audited_runs import SITE_LDP, plan_of, run_directory
from command_line import run_verb

from rayfed_hn.federation import plan as plans
from rayfed_hn.privacy.mechanisms import SiteGaussian

QUICK = ("audit.shadows=4", "audit.shadowed=1", "audit.canaries=16", "audit.coins=60")


@pytest.fixture(scope="module")
def runs(leaky_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    short = ("training.steps=5", "rounds.num_versions=2")
    run_directory(folder / "open", plan_of(leaky_root, *short), keep=True)
    run_directory(folder / "private", plan_of(leaky_root, *short, *SITE_LDP), keep=True)
    return folder


@pytest.fixture
def own(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs, tmp_path / "runs"))


def test_a_run_without_promise(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_verb(monkeypatch, "audit", own / "open", *QUICK) == 0
    found = json.loads((own / "open" / "audit.json").read_text())
    assert (found["verb"], found["verdict"], found["exit_code"]) == ("audit", "none promised", 0)
    assert found["sites"] == {"north": 2, "south": 2}
    assert found["promised"] is None
    assert found["inversion"]["one_step"] < 1e-3
    assert {len(found[part]) for part in ("membership", "property", "canaries")} == {1, 2, 3}
    out, page = capsys.readouterr().out, (own / "open" / "audit.md").read_text()
    assert page in out
    assert "In the easiest case, the features of a tile are read off to" in page
    nearer = found["inversion"]["told_apart"]["auc_low"] > 0.5
    assert ("is no nearer to bags that were trained on" in page) is not nearer
    for words in (
        "membership: 12/12",
        "Attacked: 4 networks and updates of 2 sites, kept by the run.",
        "| direction of the updates |",
        "The run promises nothing",
        "That they fail is no proof",
    ):
        assert words in out


def test_a_promise_that_is_kept(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("audit.attacks=canaries", "audit.level=0.99", *QUICK)
    assert run_verb(monkeypatch, "audit", own / "private", *words) == 0
    found = json.loads((own / "private" / "audit.json").read_text())
    assert found["verdict"] == "not broken"
    assert found["promised"] == pytest.approx(1)
    assert not {"membership", "inversion", "property"} & found.keys()
    assert len(found["canaries"]) == 3
    assert all(one["bound"]["epsilon"] <= 1 for one in found["canaries"].values())
    out = capsys.readouterr().out
    assert "(1, 1e-05)-DP of every site after 2 releases" in out
    assert "The promise was not broken" in out
    assert "beside the promised 1.00 (delta 1e-05, 99 % confidence)" in out


def test_a_promise_that_is_broken_ends_with_an_error(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mechanism that speaks of noise which it does not add."""

    class Lying(SiteGaussian):
        @property
        def deviation(self) -> float:
            return super().deviation / 100

    monkeypatch.setattr(
        plans, "make_mechanism", lambda privacy, multiplier: Lying(1.0, multiplier, "replace")
    )
    words = ("audit.attacks=canaries", *QUICK)
    assert run_verb(monkeypatch, "audit", own / "private", *words) == 1
    said = capsys.readouterr().err
    assert "rayfed-hn: The promise is broken: a lower bound of" in said
    assert "Do not rely on its epsilon" in said
    found = json.loads((own / "private" / "audit.json").read_text())
    assert (found["verdict"], found["exit_code"]) == ("broken", 1)
    assert any(one["broken"] for one in found["canaries"].values())


def test_some_attacks_only(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_verb(monkeypatch, "audit", own / "open", "audit.attacks=property,inversion") == 0
    found = json.loads((own / "open" / "audit.json").read_text())
    assert found["verdict"] == "not tested"
    assert "No lower bound on epsilon was sought" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["audit", "nowhere"], "nowhere has no config.yaml"),
        (["audit", "RUN", "privacy.mechanism=none"], "audit attacks the run as it is"),
        (["audit", "RUN", "audit.attacks=guess"], "audit.attacks: "),
        (["audit", "RUN", "audit.shadows=2"], "audit.shadows: got 2"),
        (["audit"], "Missing argument 'RUN'"),
    ],
)
def test_bad_usage_ends_with_2_and_writes_nothing(
    own: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    words = [str(own / "open") if word == "RUN" else word for word in words]
    assert run_verb(monkeypatch, *words) == 2
    assert says in capsys.readouterr().err
    assert not (own / "open" / "audit.json").exists()


def test_help_teaches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb(monkeypatch, "audit", "--help") == 0
    out = capsys.readouterr().out
    for words in ("run.keep_messages=true", "audit.canaries=100", "proves nothing"):
        assert words in out
