"""Scores of new bags: the same as at the end of training, whose network, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import run_verb
from finished_runs import cases_of_two, finished_run
from tiny_federations import create, federation, write

from rayfed_hn.bags import store
from rayfed_hn.bags.set_aside import SetAsideEntry, remember
from rayfed_hn.bags.store import SiteBags
from rayfed_hn.federation.data import _opaque
from rayfed_hn.prediction.scores import plain

KINDS = {
    "plain": ("model.standardise=none",),
    "mixture": (),
    "last": ("evaluation.readout=last",),
    "best": ("evaluation.readout=best", "method.name=fedavg_ft"),
    "own scale": ("model.standardise=site",),
    "isolated": ("method.name=local",),
    "pooled": ("method.name=pooled",),
    "pooled best": ("method.name=pooled", "evaluation.readout=best"),
    "private classifier": ("method.name=fedper",),
    "multiclass": ("task.kind=multiclass", "task.classes=", "model.name=clam_mb"),
    "ordinal": ("task.kind=ordinal", "task.classes="),
    "survival": ("task.kind=survival", "task.num_bins=3"),
    "fewer tiles": ("data.max_blur=0.5",),
}


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _predicted(row: dict[str, str]) -> list[float]:
    return [float(v) for k, v in row.items() if k.startswith(("probability_", "risk"))]


def _reported(run: Path, root: Path, unit: str) -> dict[tuple[str, str], list[float]]:
    """By site and slide (or case) what the run says of its test bags under its readout."""
    found = {}
    readout = json.loads((run / "summary.json").read_text())["readout"]
    for path in run.glob("sites/*/scores.parquet"):
        site = path.parent.name
        bags = SiteBags(root, site)
        field = "case" if unit == "case" else "slide"
        names = {
            _opaque(getattr(e, f"{field}_id"), bags.salt): getattr(e, f"{field}_id")
            for e in bags.entries
        }
        for row in pq.read_table(path).to_pylist():
            if (row["readout"], row["unit"]) == (readout, unit):
                several = row.get("probabilities") or [row["score"]]
                found[site, names[row[field]]] = several
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_test_bags_get_the_scores_that_the_run_reports(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tasks_root: Path
) -> None:
    words = ("task.classes=0,1", *KINDS[kind])
    if kind == "survival":
        words = KINDS[kind]
    run = finished_run(tmp_path / "run", tasks_root, *words)
    assert run_verb(monkeypatch, "predict", run, "--to", tmp_path / "out.csv") == 0
    table = _table(tmp_path / "out.csv")
    assert len(table) == sum(len(SiteBags(tasks_root, s)) for s in "abc")  # labelled or not
    found = {(row["site"], row["slide_id"]): _predicted(row) for row in table}
    reported = _reported(run, tasks_root, "slide")
    assert len(reported) >= 6
    for name, expected in reported.items():
        own = found[name][-len(expected) :]
        if kind == "plain":
            assert np.array_equal(np.array(own, np.float32), np.array(expected, np.float32))
        else:  # the files' networks have the standardisation in them, which rounds otherwise
            assert own == pytest.approx(expected, abs=2e-6, rel=2e-6)
    by_kind = {"isolated": "personal, mixture", "pooled": "pooled, mixture"}
    assert {row["network"].partition(",")[0] for row in table} == {
        by_kind.get(kind, "pooled" if "pooled" in kind else "personal").partition(",")[0]
    }


@pytest.mark.parametrize(
    "words", [("task.kind=multiclass",), ("task.kind=survival", "task.num_bins=2")]
)
def test_cases(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = cases_of_two(tmp_path / "bags")
    run = finished_run(tmp_path / "run", root, "task.unit=case", *words)
    assert run_verb(monkeypatch, "predict", run, "--to", tmp_path / "out.csv") == 0
    table = _table(tmp_path / "out.csv")
    assert len(table) == 24
    assert table[0]["slide_id"] == "a-0x;a-0y"
    found = {(row["site"], row["case_id"]): _predicted(row) for row in table}
    reported = _reported(run, root, "case")
    assert len(reported) >= 3
    for name, expected in reported.items():
        assert found[name] == pytest.approx(expected, abs=2e-6, rel=2e-6)


def test_a_called_class_is_the_likelier_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tasks_root: Path
) -> None:
    run = finished_run(tmp_path / "run", tasks_root, "task.classes=0,1")
    assert run_verb(monkeypatch, "predict", run, "--to", tmp_path / "out.csv", "--site", "b") == 0
    table = _table(tmp_path / "out.csv")
    assert {row["site"] for row in table} == {"b"}
    for row in table:
        zero, one = _predicted(row)
        assert zero + one == pytest.approx(1)
        assert row["predicted"] == ("1" if one >= 0.5 else "0")


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory, tasks_root: Path) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "run"
    return finished_run(folder, tasks_root, "task.classes=0,1", "data.leave_out=c")


def test_a_stranger_is_scored_with_what_all_share_and_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
    shared_run: Path,
) -> None:
    assert run_verb(monkeypatch, "predict", shared_run, "--to", tmp_path / "out.csv") == 0
    by_site = {row["site"]: row["network"] for row in _table(tmp_path / "out.csv")}
    assert by_site == {"a": "personal, mixture", "b": "personal, mixture", "c": "shared"}
    assert "c did not take part" in capsys.readouterr().out
    # By the other route: the arm of onboarding that uses no label.
    from rayfed_hn.federation.onboarding.arms import ZERO_SHOT, Arms
    from rayfed_hn.federation.onboarding.origin import read_origin
    from rayfed_hn.prediction.scores import unlabelled

    origin = read_origin(shared_run)
    arms = Arms(origin, None, origin.config.onboard, 0, "c")
    bags = SiteBags(tasks_root, "c")
    own = [unlabelled(bags, [i]) for i in range(len(bags))]
    evidence_BE = arms.evidence(arms.fit([], 0)[ZERO_SHOT], own)  # type: ignore[arg-type]
    rows = [r for r in _table(tmp_path / "out.csv") if r["site"] == "c"]
    expected = origin.task.predict(evidence_BE)[:, 0]
    assert np.array_equal([np.float32(r["probability_1"]) for r in rows], expected)


def test_a_stranger_scales_its_own_features_where_all_did(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    labels = {s: tuple("01" * 6) for s in "ab"}
    root = federation(tmp_path / "bags", labels)
    run = finished_run(tmp_path / "run", root, "model.standardise=site")
    rng = np.random.default_rng(0)
    tiles = [rng.normal(size=(5, 6)) for _ in range(4)]
    for site, scale in (("near", 1.0), ("far", 64.0)):
        for i, features_ND in enumerate(tiles):
            write(root, site, f"{site}-{i}", "", features_ND=features_ND * scale)
    words = ["predict", run, "--bags", root, "--site", "near", "--site", "far"]
    assert run_verb(monkeypatch, *words, "--to", tmp_path / "out.csv") == 0
    assert "measured over these very bags" in capsys.readouterr().out
    table = _table(tmp_path / "out.csv")
    near, far = table[:4], table[4:]
    for one, other in zip(near, far, strict=True):
        assert _predicted(one) == pytest.approx(_predicted(other), abs=1e-5)


def test_without_anything_shared_a_stranger_is_set_aside(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
) -> None:
    words = ("task.classes=0,1", "method.name=local", "data.leave_out=c")
    run = finished_run(tmp_path / "run", tasks_root, *words)
    out = tmp_path / "out.csv"
    assert run_verb(monkeypatch, "predict", run, "--to", out) == 3
    assert "method.name=local shares none" in capsys.readouterr().out
    assert {row["site"] for row in _table(out)} == {"a", "b"}
    assert len(_table(tmp_path / "out.set_aside.csv")) == len(SiteBags(tasks_root, "c"))
    assert run_verb(monkeypatch, "predict", run, "--site", "c", "--to", tmp_path / "2.csv") == 1
    assert not (tmp_path / "2.csv").exists()


def test_broken_bags_are_set_aside(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
    shared_run: Path,
) -> None:
    root = tmp_path / "bags"
    shutil.copytree(tasks_root, root)
    (root / "site=a" / "a-0.arrow").write_bytes(b"no bag")
    write(root, "b", "b-nan", "0", features_ND=np.full((3, 6), 1.0))
    path = root / "site=b" / "b-nan.arrow"
    data = path.read_bytes()
    one, nan = np.full(18, 1, "<f4").tobytes(), np.full(18, np.nan, "<f4").tobytes()
    assert data.count(one) == 1
    path.write_bytes(data.replace(one, nan))
    out = tmp_path / "out.csv"
    assert run_verb(monkeypatch, "predict", shared_run, f"data.bags={root}", "--to", out) == 3
    told = capsys.readouterr().out
    assert "set aside: a-0: " in told
    assert "set aside: b-nan: its features are no numbers" in told
    aside = _table(tmp_path / "out.set_aside.csv")
    assert [row["slide_id"] for row in aside] == ["a-0", "b-nan"]
    assert not {"a-0", "b-nan"} & {row["slide_id"] for row in _table(out)}


def test_slides_without_a_bag_are_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
    shared_run: Path,
) -> None:
    root = tmp_path / "bags"
    shutil.copytree(tasks_root, root)
    for site, slide in (("a", "a-torn"), ("far", "far-blank"), ("a", "a-0")):
        remember(root, SetAsideEntry(slide, site, "is cut short", "copy it again", ""))
    out = tmp_path / "out.csv"
    assert run_verb(monkeypatch, "predict", shared_run, f"data.bags={root}", "--to", out) == 3
    assert "set aside: a-torn: is cut short (copy it again)" in capsys.readouterr().out
    aside = [(row["site"], row["slide_id"]) for row in _table(tmp_path / "out.set_aside.csv")]
    assert aside == [("a", "a-torn"), ("far", "far-blank")]  # a-0 has a bag after all
    words = ("--bags", root, "--site", "b", "--to", tmp_path / "b.csv")
    assert run_verb(monkeypatch, "predict", shared_run, *words) == 0


@pytest.mark.parametrize(
    ("number", "unlike"),
    [
        (6, "encoder: 'other' of these, 'test' of the run's"),
        (7, "7 features a tile, and its networks take 6"),
    ],
)
def test_it_is_said_in_what_bags_differ(
    number: int,
    unlike: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    shared_run: Path,
) -> None:
    other = tmp_path / "other"
    encoder = "other" if number == 6 else "test"
    store.create(other, {"encoder": encoder, "feature_dim": number, "mpp": 0.25})
    words = ("predict", shared_run, f"data.bags={other}", "--to", tmp_path / "out.csv")
    assert run_verb(monkeypatch, *words) == 2
    told = capsys.readouterr().err
    assert unlike in told
    assert "mpp: 0.25 of these, None of the run's" in told


@pytest.mark.parametrize("name", ["../out", "/srv/out", "a/b", "..", "b\u00e4d", "x" * 121, ""])
def test_a_summary_cannot_lead_out_of_the_folder(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    shared_run: Path,
) -> None:
    run = tmp_path / "one" / "run"
    shutil.copytree(shared_run, run)
    summary = json.loads((run / "summary.json").read_text())
    old, summary["sites"][0]["site"] = summary["sites"][0]["site"], name
    (run / "summary.json").write_text(json.dumps(summary))
    if name == "../out":  # the file is there to be found
        shutil.copytree(run / "sites" / old, run / "out")
    before = sorted(tmp_path.rglob("*"))
    words = ("--site", name, "--to", tmp_path / "model" / "deep")
    assert run_verb(monkeypatch, "export-model", run, *words) == 2
    assert "is no name of a site" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_refusals(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
    shared_run: Path,
) -> None:
    other = tmp_path / "other"
    store.create(other, {"encoder": "test", "feature_dim": 7})
    write(create(tmp_path / "same"), "c", "c-0", "0")
    out = tmp_path / "out.csv"
    for words, why in {
        (shared_run, "--bags", other): "another recipe than those",
        (shared_run, f"data.bags={other}"): "7 features a tile, and its networks take 6",
        (shared_run, "training.steps=3"): "only data.bags=..., evaluation.readout=... can",
        (shared_run, "--bags", tmp_path / "same", "--site", "z"): "has no bags of z",
        (tmp_path,): "has no summary.json",
        (shared_run, f"data.bags={tmp_path}"): "no bag store",
    }.items():
        assert run_verb(monkeypatch, "predict", *words, "--to", out) == 2, why
        assert why in capsys.readouterr().err
        assert not out.exists()
    out.write_text("mine")
    assert run_verb(monkeypatch, "predict", shared_run, "--to", out) == 2
    assert out.read_text() == "mine"


def test_a_damaged_network_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    shared_run: Path,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(shared_run, run)
    path = run / "sites" / "a" / "network_mixture.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert run_verb(monkeypatch, "predict", run, "--to", tmp_path / "out.csv") == 1
    assert "is no network of this run" in capsys.readouterr().err


def test_scores_of_bags_that_were_trained_on_are_told_apart_however_they_were_given(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
    shared_run: Path,
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(tasks_root, copied)
    for number, (words, told) in enumerate({
        (): True,
        (f"data.bags={tasks_root}",): True,
        ("--bags", tasks_root, "evaluation.readout=last"): True,
        ("evaluation.readout=last", "--site", "b"): True,
        ("--site", "c"): False,  # was left out of the run
        ("--bags", copied): False,
    }.items()):  # fmt: skip
        to = ("--to", tmp_path / f"{number}.csv")
        assert run_verb(monkeypatch, "predict", shared_run, *words, *to) == 0
        assert ("those that it trained on are scored too" in capsys.readouterr().out) == told, words


def test_two_stores_at_once_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tasks_root: Path,
    shared_run: Path,
) -> None:
    other = create(tmp_path / "other")
    write(other, "a", "a-new", "")
    words = ("predict", shared_run, "--bags", tasks_root, f"data.bags={other}")
    assert run_verb(monkeypatch, *words, "--to", tmp_path / "out.csv") == 2
    assert f"data.bags={other}: --bags {tasks_root} says otherwise" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("readout", ["best", "mixture"])
def test_a_hospital_may_be_called_pooled(
    readout: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = federation(tmp_path / "bags", {site: tuple("01" * 6) for site in ("first", "pooled")})
    run = finished_run(tmp_path / "run", root, f"evaluation.readout={readout}")
    assert run_verb(monkeypatch, "predict", run, "--to", tmp_path / "out.csv") == 0
    assert {row["network"] for row in _table(tmp_path / "out.csv")} == {f"personal, {readout}"}


def test_a_mixture_that_is_gone_is_not_replaced_by_another_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = federation(tmp_path / "bags", dict.fromkeys("ab", tuple("01" * 6)))
    run = finished_run(tmp_path / "run", root)
    (run / "sites" / "a" / "network_mixture.safetensors").unlink()
    assert run_verb(monkeypatch, "predict", run, "--to", tmp_path / "out.csv") == 1
    assert "network_mixture.safetensors is no network of this run" in capsys.readouterr().err


def test_nothing_that_is_there_is_written_over(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    shared_run: Path,
) -> None:
    for name in ("out.csv", "out.set_aside.csv"):
        (tmp_path / name).write_text("mine")
        assert run_verb(monkeypatch, "predict", shared_run, "--to", tmp_path / "out.csv") == 2
        assert f"{name} exists" in capsys.readouterr().err
        (tmp_path / name).unlink()


def test_no_name_of_a_run_is_a_formula_of_a_spreadsheet() -> None:
    for text in ("=1+1", "@SUM(A1)", "+1+cmd|' /C calc'!A0", "-2+3", "\t=1"):
        assert plain(text) == f"'{text}"
    for text in ("tumour", "-", "+", "-1", "+0.5", "", "3+4", "a=b"):
        assert plain(text) == text


def test_a_class_that_reads_like_a_formula_is_written_as_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = federation(tmp_path / "bags", dict.fromkeys("ab", ("=1+1", "none") * 6))
    run = finished_run(tmp_path / "run", root)
    assert run_verb(monkeypatch, "predict", run, "--to", tmp_path / "out.csv") == 0
    table = _table(tmp_path / "out.csv")
    assert {row["predicted"] for row in table} <= {"'=1+1", "none"}
    assert all((row["predicted"] == "none") == (_predicted(row)[1] >= 0.5) for row in table)
