"""From feature files to a network of one's own: embed, train, onboard, report."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from command_line import run_verb

from rayfed_hn.bags import store

pytestmark = pytest.mark.ray
SHORT = ("rounds.num_versions=2", "training.steps=2", "resources.sites_per_actor=9")
QUICK = (
    "onboard.labelled=0,1",
    "onboard.repeats=1",
    "onboard.steps=2",
    "onboard.embedding_steps=2",
)


def _split_manifest(path: Path) -> None:
    """One manifest of those who train, one of west."""
    header, *lines = path.read_text().splitlines()
    west = [line for line in lines if line.startswith("west-")]
    assert len(west) == 10
    path.with_name("west.csv").write_text("\n".join([header, *west]) + "\n")
    others = [line for line in lines if line not in west]
    path.with_name("others.csv").write_text("\n".join([header, *others]) + "\n")


@pytest.mark.usefixtures("ray_session")
def test_a_site_joins_with_its_manifest(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_verb(monkeypatch, "export", str(bag_root), "clam", "--layout", "clam") == 0
    words = ["manifest", "clam", "clam/dataset.csv", "clam", "--to", "clam/all.csv"]
    assert run_verb(monkeypatch, *words) == 0
    _split_manifest(tmp_path / "clam" / "all.csv")
    assert run_verb(monkeypatch, "embed", "data.manifest=clam/others.csv", "data.bags=bags") == 0
    for method in ("hypernetwork", "fedavg"):
        words = ["train", "data.bags=bags", f"method.name={method}", f"run.dir={method}", *SHORT]
        assert run_verb(monkeypatch, *words) == 0
    before = {p: p.read_bytes() for p in Path("hypernetwork").rglob("*") if p.is_file()}
    words = ["onboard", "hypernetwork", "--fedavg", "fedavg", *QUICK, "run.dir=west"]
    words += ["--manifest", "clam/west.csv", "--site"]
    assert run_verb(monkeypatch, *words, "east") == 2
    assert "has no slide of east" in capsys.readouterr().err
    assert not Path("west").exists()
    for path in list(Path("clam").rglob("west-0.*")):
        path.unlink()
    assert run_verb(monkeypatch, *words, "west") == 3
    assert "set aside: west-0: " in capsys.readouterr().out
    summary = json.loads(Path("west/summary.json").read_text())
    assert [slide["slide_id"] for slide in summary["set_aside"]] == ["west-0"]
    assert summary["num_labelled"] + summary["num_test"] == 9
    assert store.list_sites(Path("west/bags")) == ["west"]
    assert store.list_sites(Path("bags")) == ["north", "south"]
    assert Path("west/sites/west/network_recommended.safetensors").exists()
    assert {p: p.read_bytes() for p in before} == before
    assert run_verb(monkeypatch, "report", "west") == 0
    page = ET.fromstring(Path("west/report.html").read_text().split("\n", 1)[1])
    text = " ".join(page.itertext())
    assert "west joins" in text
    assert f"--bags {tmp_path / 'west' / 'bags'}" in text


@pytest.mark.usefixtures("ray_session")
def test_train_without_a_site_that_joins_from_the_same_store(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
) -> None:
    run = tmp_path / "two"
    words = ["train", f"data.bags={bag_root}", "data.leave_out=west", f"run.dir={run}", *SHORT]
    assert run_verb(monkeypatch, *words) == 0
    said = capsys.readouterr()
    assert "has no effect" not in said.err
    assert "\nwest " not in said.out
    out = tmp_path / "west"
    words = ["onboard", str(run), "--site", "west", *QUICK, f"run.dir={out}"]
    assert run_verb(monkeypatch, *words) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["num_sites"] == 2
    assert summary["bags"] == str(bag_root)
    assert all(0 <= value <= 1 for value in summary["values"].values() if value is not None)
