"""The command line as a user meets it: exit codes, messages, files."""

from __future__ import annotations

import errno
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from virtual_sites import TINY

from rayfed_hn import cli
from rayfed_hn.bags import store
from rayfed_hn.bags.entry import read_bag
from rayfed_hn.federation.results import READOUTS
from rayfed_hn.verbs.common import COPY

pytestmark = pytest.mark.ray
SHORT = ["rounds.num_versions=2", "training.steps=2", "resources.sites_per_actor=9"]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rayfed-hn", *words])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "No such command"),
        (["train"], "data.bags: missing"),
        (["train", "data.bags=nowhere"], "data.bags: nowhere does not exist"),
        (["train", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["train", "a.yaml", "b.yaml"], "'b.yaml' is not of the form"),
        (["compare", "rounds.num_version=3"], "did you mean rounds.num_versions?"),
        (["embed", "data.bags=x"], "data.manifest: missing"),
        (["embed", "data.manifest=x.csv", "data.bags=x"], "x.csv does not exist"),
        (["resume", "nowhere"], "nowhere holds no run (no config.yaml)"),
        (["resume", "nowhere", "run.seed=2"], "'run.seed=2': resume goes on with the run as it is"),
        (["report", "nowhere"], "nowhere is not a folder"),
        (["compare", "compare.noise=1,1"], "compare.noise: [1.0, 1.0] names an amount twice"),
        (["scale", "scale.sites=[0]"], "scale.sites: "),
        (["scale", "scale.sites=[]"], "scale.sites: names no number of sites"),
        (["scale", "scale.methods=[fedavgg]"], "scale.methods: "),
        (["scale", "scale.methods=[pooled]"], "scale.methods: got ['pooled']"),
        (["scale", "scale.partition=natural"], "which takes its sites from a bag store"),
        (["scale", "scale.sites=[20000]", "scale.methods=[local]"], "keeps 20,000 networks"),
        (["scale", "resources.pin_label=hospital"], "virtual sites live nowhere"),
    ],
)
def test_bad_usage_ends_with_2_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_of_every_verb_names_its_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, key in [
        ("demo", "demo.slides_per_site=16"),
        ("embed", "embed.mpp=0.5"),
        ("train", "privacy.noise_scale=0.0"),
        ("compare", "compare.seeds=3"),
        ("compare", "compare.noise=[]"),
        ("compare", "compare.noise=0,0.03,0.1,0.3,1"),
        ("onboard", "onboard.labelled=[0, 1, 2, 4, 8]"),
        ("scale", "scale.sites=[10, 100, 1000, 10000]"),
        ("scale", "resources.sites_per_actor=null"),
        *((verb, "data.leave_out=[]") for verb in ("train", "compare")),
        *((verb, f"task.{name}") for verb in ("train", "compare") for name in ("kind", "unit")),
    ]:
        assert run(monkeypatch, verb, "--help") == 0
        assert key in capsys.readouterr().out


@pytest.mark.usefixtures("ray_session")
def test_train_then_report(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
) -> None:
    folder = tmp_path / "run"
    words = ["train", f"data.bags={bag_root}", f"run.dir={folder}", *SHORT]
    assert run(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    assert "versions: 2/2" in out
    assert "Privacy: no noise, no formal guarantee\n" in out
    assert json.loads((folder / "privacy.json").read_text())["mechanism"] == "none"
    digest = json.loads((folder / "summary.json").read_text())["digest"]
    assert f"\nDigest of what the server has learned: {digest}\n" in out
    titles, *sites = (line.split() for line in out.split("\nsite ")[1].splitlines()[:4])
    assert titles == ["train", "val", "test", "AUC", "mixture", "AUC", "last", "AUC", "best"]
    assert [len(site) for site in sites] == [7, 7, 7]
    assert run(monkeypatch, *words) == 2
    assert "holds a run already; give run.resume=true" in capsys.readouterr().err
    assert run(monkeypatch, *words[:2], *SHORT, "run.resume=true") == 2
    assert "run.dir: missing; run.resume=true" in capsys.readouterr().err
    other = [*words, "run.resume=true", "hypernetwork.rho=0.5"]
    assert run(monkeypatch, *other) == 2
    assert "hypernetwork.rho: got 0.5, but the run in" in capsys.readouterr().err
    assert run(monkeypatch, "report", str(folder)) == 0
    assert (folder / "report.html").stat().st_size > 10_000


def test_labels_that_do_not_fit_are_bad_usage(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
) -> None:
    words = [f"data.bags={bag_root}", f"run.dir={tmp_path / 'run'}", "data.positive_label=tumor"]
    for verb in ("train", "compare"):
        assert run(monkeypatch, verb, *words) == 2
        assert "'tumor' is no label of these bags" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(run: Path) -> int:
        raise OSError(errno.ENOSPC, "whatever", str(run / "report.html"))

    monkeypatch.setattr("rayfed_hn.verbs.federation.report", full)
    assert run(monkeypatch, "report", str(tmp_path)) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path / 'report.html'}: No space left on device; what is finished" in told


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_ends_with_4_and_says_how_to_go_on(
    tmp_path: Path, bag_root: Path, kind: signal.Signals
) -> None:
    folder = tmp_path / "run"
    words = ["train", f"data.bags={bag_root}", f"run.dir={folder}", "rounds.num_versions=100000"]
    command = [sys.executable, "-m", "rayfed_hn", *words, "training.steps=1", SHORT[-1]]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that runs in the background of a script has inherited that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        metrics = folder / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not metrics.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(kind)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 4
    assert f"run.dir={folder} run.resume=true goes on" in errors
    assert f"'rayfed-hn resume {folder}'" in errors
    assert "Traceback" not in errors


@pytest.mark.usefixtures("ray_session")
def test_compare_resumes_cell_by_cell(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
) -> None:
    folder = tmp_path / "run"
    methods = ("local", "fedavg", "hypernetwork", "pooled")
    words = [
        "compare",
        f"data.bags={bag_root}",
        f"run.dir={folder}",
        "compare.methods=" + ",".join(methods),
        "compare.seeds=1",
        "compare.folds=3",
        *SHORT,
    ]
    assert run(monkeypatch, *words) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert len(summary["rows"]) == 4 * 3 * 3 * 3  # methods, folds, sites, readouts
    assert set(summary["rows"][0]) == {
        "method", "readout", "site", "seed", "fold", "value", "num_test",
        "by_slide", "by_case", "num_slides", "num_cases",
    }  # fmt: skip
    told = {name: summary[name] for name in ("task", "unit", "metric", "classes")}
    labels = ["normal", "tumour"]
    assert told == {"task": "binary", "unit": "slide", "metric": "AUC", "classes": labels}
    assert {(t["method"], t["readout"]) for t in summary["table"]} == {
        (m, r) for m in methods for r in READOUTS
    }
    assert len(summary["differences"]) == 3 * 6
    assert (folder / "table.md").read_text() in capsys.readouterr().out
    assert {t["kind"] for t in summary["tests"]} == {"bootstrap by case", "DeLong by case"}
    assert [cost["method"] for cost in summary["costs"]] == list(methods)
    for name in ("table.csv", "table.tex"):
        assert all(method in (folder / name).read_text().replace("\\", "") for method in methods)
    stamps = {p: p.stat().st_mtime_ns for p in (folder / "cells").iterdir()}
    assert len(stamps) == 12
    lost = folder / "cells" / "local-seed0-fold1.json"
    lost.write_text("{")
    assert run(monkeypatch, *words, "run.resume=true") == 0
    again = json.loads((folder / "summary.json").read_text())
    assert again["rows"] == summary["rows"]
    assert again["table"] == summary["table"]
    redone = {p for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp}
    assert redone == {lost}


@pytest.mark.usefixtures("ray_session")
def test_a_private_run_says_what_it_promises_and_how_much_is_noise(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
) -> None:
    words = ["train", f"data.bags={bag_root}", f"run.dir={tmp_path / 'run'}", *SHORT]
    words += ["privacy.mechanism=site_ldp", "privacy.target_epsilon=8"]
    assert run(monkeypatch, *words, "privacy.noise_source=seeded") == 0
    out = capsys.readouterr().out
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["privacy"]
    times = f"{1 / told['signal_to_noise_at_most']:.3g}"
    line = f"Privacy: {told['formal_guarantee']}; the noise is at least {times} times what a site"
    assert f"{line} can say" in out
    assert re.search(r"versions: 2/2 +validation AUC \d\.\d+, signal to noise 1:[\d,]+", out)


@pytest.mark.usefixtures("ray_session")
def test_compare_tries_several_amounts_of_noise(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
) -> None:
    """One row a method and amount; baselines once; goes on; one amount equals the plain run."""
    words = ["compare", f"data.bags={bag_root}", "compare.methods=local,fedavg", *SHORT]
    words += ["compare.seeds=1", "compare.folds=3"]
    several = [*words, f"run.dir={tmp_path / 'several'}", "compare.noise=0,0.3"]
    assert run(monkeypatch, *several) == 0
    assert "comparing: 9/9" in capsys.readouterr().out
    found = json.loads((tmp_path / "several" / "summary.json").read_text())
    assert [one["noise"] for one in found["promises"]] == [0.0, 0.3]
    assert {d["against_noise"] for d in found["by_amount"]} == {0.0}
    assert "| fedavg | 0.3 | 0 | mixture |" in (tmp_path / "several" / "table.md").read_text()
    cells = tmp_path / "several" / "cells"
    stamps = {path: path.stat().st_mtime_ns for path in cells.iterdir()}
    names = {path.stem.split("fold0")[1] for path in stamps if "fold0" in path.stem}
    assert names == {"", "-noise0.0", "-noise0.3"}
    lost = cells / "fedavg-seed0-fold1-noise0.3.json"
    lost.write_text("{")
    attacked = cells / "fedavg-seed0-fold0-noise0.0.json"
    attacked.write_text(json.dumps(json.loads(attacked.read_text()) | {"membership_auc": 0.625}))
    stamps[attacked] = attacked.stat().st_mtime_ns
    summary = json.loads((tmp_path / "several" / "summary.json").read_text())
    assert run(monkeypatch, *several, "run.resume=true") == 0
    again = json.loads((tmp_path / "several" / "summary.json").read_text())
    assert {p for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp} == {lost}
    assert again["table"] == summary["table"]
    assert summary["membership"] == []
    (member,) = again["membership"]
    assert (member["method"], member["noise"], member["mean"]) == ("fedavg", 0.0, 0.625)
    for noise in (0.0, 0.3):
        folder = tmp_path / f"plain-{noise}"
        plain = [*words, f"run.dir={folder}", f"privacy.noise_scale={noise}"]
        assert run(monkeypatch, *plain) == 0
        alone = json.loads((folder / "summary.json").read_text())
        for name in ("rows", "table", "per_site", "differences"):
            own = [
                {k: v for k, v in record.items() if k != "noise"}
                for record in summary[name]
                if record["noise"] in (noise, None)
            ]
            assert sorted(own, key=str) == sorted(alone[name], key=str)
    assert "| fedavg | 0.3 |" in (tmp_path / "several" / "table.md").read_text()
    assert run(monkeypatch, "report", str(tmp_path / "several")) == 0
    page = (tmp_path / "several" / "report.html").read_text()
    assert "What noise costs" in page
    assert "What noise hides" in page


def test_a_ladder_is_measured_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "ladder"
    words = ["scale", f"run.dir={folder}", "scale.where=process", *TINY]
    assert run(monkeypatch, *words, "scale.sites=[4,8]") == 0
    out = capsys.readouterr().out
    assert "versions: 8/8" in out
    assert f"Run directory: {folder}. Pictures: rayfed-hn report {folder}" in out
    summary = json.loads((folder / "summary.json").read_text())
    assert [row["sites"] for row in summary["rows"]] == [4, 4, 8, 8]
    assert run(monkeypatch, *words, "scale.sites=[4,8]") == 2
    assert "holds a run already; give run.resume=true" in capsys.readouterr().err
    (folder / "scale.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in summary["rows"][:3]))
    assert run(monkeypatch, *words, "scale.sites=[4,8]", "run.resume=true") == 0
    again = json.loads((folder / "summary.json").read_text())["rows"]
    assert again[:3] == summary["rows"][:3]
    assert (again[3]["method"], again[3]["sites"]) == ("fedavg", 8)
    assert run(monkeypatch, "report", str(folder)) == 0
    assert (folder / "report.html").stat().st_size > 10_000


@pytest.mark.usefixtures("ray_session")
def test_a_ladder_of_sites_like_real_ones_finds_their_bags_by_a_relative_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bag_root: Path
) -> None:
    """The session's cluster works in another folder, as one that is joined does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bags").symlink_to(bag_root)
    words = ["scale", "data.bags=bags", "run.dir=run", "scale.partition=natural", *TINY]
    assert run(monkeypatch, *words, "scale.sites=[3]", "scale.methods=[fedavg]") == 0


def test_tables_become_manifests_and_bags_go_out_and_come_back(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bag_root: Path,
) -> None:
    """Bags are exported as CLAM's files, and read back by what CLAM's own table says."""
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "export", str(bag_root), "clam", "--layout", "clam") == 0
    assert "30 bags" in capsys.readouterr().out
    words = ["manifest", "clam", "clam/dataset.csv", "clam", "--to", "clam/again.csv"]
    assert run(monkeypatch, *words) == 0
    assert "30 slides of 30 cases at 3 sites" in capsys.readouterr().out
    assert run(monkeypatch, *words) == 2
    assert "clam/again.csv exists" in capsys.readouterr().err
    assert run(monkeypatch, "embed", "data.manifest=clam/again.csv", "data.bags=back") == 0
    for site in store.list_sites(bag_root):
        pairs = zip(
            store.SiteBags(bag_root, site).entries,
            store.SiteBags(tmp_path / "back", site).entries,
            strict=True,
        )
        for ours, theirs in pairs:
            assert (ours.slide_id, ours.case_id, ours.label) == (
                theirs.slide_id, theirs.case_id, theirs.label,
            )  # fmt: skip
            features = [read_bag(entry.path).features_ND for entry in (ours, theirs)]
            assert (features[0] == features[1]).all()


def test_what_a_manifest_leaves_out_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "TCGA-A1-A0SB-01Z-00-DX1.svs").touch()
    (tmp_path / "TCGA-A1-A0SD-01Z-00-DX1.svs").touch()
    (tmp_path / "holiday.svs").touch()
    labels = tmp_path / "labels.csv"
    labels.write_text("case_id,label\nTCGA-A1-A0SB,luminal\n")
    to = tmp_path / "manifest.csv"
    assert run(monkeypatch, "manifest", "tcga", str(tmp_path), str(labels), "--to", str(to)) == 3
    out = capsys.readouterr().out
    assert "1 slides of 1 cases at 1 sites" in out
    assert "its name is no TCGA slide barcode" in out
    assert to.read_text().splitlines()[1].startswith("TCGA-A1-A0SB-01Z-00-DX1,")


def test_set_aside_slides_wait_for_retry_and_pictures_are_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, mean in (("good", (180, 90, 150)), ("white", (255, 255, 255))):
        picture = (np.array(mean) - rng.integers(0, 30, (512, 512, 1))).clip(0, 255)
        picture = picture if name == "good" else np.full((512, 512, 3), 255)
        tifffile.imwrite(
            f"{name}.tiff", picture.astype(np.uint8), tile=(256, 256), photometric="rgb"
        )
    Path("manifest.csv").write_text(
        "slide_id,path,case_id,site,label,mpp\n"
        + "".join(f"{n},{n}.tiff,{n},north,x,0.5\n" for n in ("good", "white"))
    )
    words = ["embed", "data.manifest=manifest.csv", "data.bags=bags"]
    assert run(monkeypatch, *words) == 3
    out = capsys.readouterr().out
    assert "texture" in out
    assert "set aside: white: no tissue found" in out
    assert run(monkeypatch, *words, "embed.pictures=true") == 3
    assert "1 were in bags already, 1 set aside" in capsys.readouterr().out
    page = Path("bags/site=north/contact-sheet.html").read_text()
    assert "no tissue found" in page
    assert Path("bags/site=north/pictures/good.jpg").stat().st_size > 1000
    assert run(monkeypatch, *words, "--retry") == 3
    assert "set aside: white: no tissue found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("embed", "data.manifest=slides.csv", "data.bags=/nowhere"), "data.manifest"),
        (("train", "data.bags=bags"), "data.bags"),
        (("resume", "runs/one"), "RUN"),
    ],
)
def test_what_a_job_has_no_copy_of(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: tuple[str, ...],
    key: str,
) -> None:
    copy = tmp_path / COPY / "working_dir_files"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert run(monkeypatch, *words) == 2
    told = capsys.readouterr().err
    assert f"rayfed-hn: {key}: " in told
    assert "a job has a copy of the working directory with code and settings alone" in told
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words) == 2
    assert "a job has a copy" not in capsys.readouterr().err
