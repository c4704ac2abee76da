"""serve, join and certificates, as they are given on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run_verb
from tiny_federations import federation

from rayfed_hn.transport import join as join_module


@pytest.fixture
def made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    monkeypatch.chdir(tmp_path)
    code = run_verb(
        monkeypatch, "certificates", "pki", "--sites", "a, b", "--server", "localhost,127.0.0.1"
    )
    assert code == 0
    told = capsys.readouterr().out
    assert "made pki/site-b.pem and site-b.key" in told
    assert "note: who has ca.key can be any site" in told
    federation(tmp_path / "bags", {"a": tuple("01" * 6), "b": tuple("01" * 6)})
    return tmp_path


def secured(stem: str, folder: str = "pki") -> list[str]:
    own = f"{folder}/{stem}"
    return ["--certificate", f"{own}.pem", "--key", f"{own}.key", "--ca", "pki/ca.pem"]


@pytest.mark.parametrize("verb", ["serve", "join", "certificates"])
def test_help_teaches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert run_verb(monkeypatch, verb, "--help") == 0
    told = capsys.readouterr().out
    assert f"rayfed-hn {verb}" in told
    assert "Example" in told
    for option in ("--certificate", "--key", "--ca") if verb != "certificates" else ("--days",):
        assert option in told


CLASSES = "task.classes=0,1"
REFUSED = {
    "listen": (["serve", CLASSES, "--listen", "8443", "--sites", "a"], "server", "--listen: got"),
    "sites": (
        ["serve", CLASSES, "--listen", "localhost:0", "--sites", "a,a"],
        "server",
        "--sites: got 'a,a'",
    ),
    "left out": (
        ["serve", CLASSES, "data.leave_out=a", "--listen", "localhost:0", "--sites", "a"],
        "server",
        "data.leave_out: a is among --sites",
    ),
    "no classes": (
        ["serve", "--listen", "localhost:0", "--sites", "a"],
        "server",
        "task.classes: missing",
    ),
    "no address": (["join", CLASSES, "data.bags=bags", "--server", "x"], "site-a", "--server: got"),
    "no bags": (
        ["join", CLASSES, "data.bags=none", "--server", "localhost:9"],
        "site-a",
        "data.bags: none does not exist",
    ),
    "no site": (
        ["join", CLASSES, "data.bags=bags", "--server", "localhost:9"],
        "server",
        "--certificate: it names no site",
    ),
    "not its bags": (
        ["join", CLASSES, "data.bags=bags", "run.dir=r", "--server", "localhost:9"],
        "site-c",
        "has no bags of c",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_start_is_said_before_it_does(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    words, stem, complaint = REFUSED[case]
    run_verb(monkeypatch, "certificates", "pki", "--sites", "c")
    assert run_verb(monkeypatch, *words, *secured(stem)) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("simulated", ["true", "false"])
def test_ledgers_of_sites_that_are_apart_have_to_be_on_a_disk(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], simulated: str
) -> None:
    monkeypatch.setenv("RAYFED_HN_CACHE", str(made / "cache"))
    bags = f"file://{made}/bags"
    words = ["join", CLASSES, f"data.bags={bags}", "run.dir=r", "--server", "localhost:9"]
    words += ["privacy.mechanism=site_ldp", "privacy.target_epsilon=8"]
    words += [f"simulation.enabled={simulated}", "resources.node_limit=0.05"]
    assert run_verb(monkeypatch, *words, *secured("site-a")) == 2
    told = capsys.readouterr().err
    assert f"data.bags: {bags} is in object storage, and a site's ledger" in told
    assert "simulation.enabled" not in told  # it would be charged all the same
    assert not (made / "r").exists()


def test_a_folder_that_no_run_took_can_be_used_again(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(join_module, "FIRST_PAUSE", 0.01)
    words = ["join", CLASSES, "data.bags=bags", "run.dir=r", "--server", "localhost:9"]
    for _ in range(2):
        code = run_verb(monkeypatch, *words, "resources.node_limit=0.05", *secured("site-a"))
        assert code == 1
        assert "could not be reached for 0.05 s" in capsys.readouterr().err


def test_a_server_that_nobody_joins_says_who_is_missing(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["serve", CLASSES, "run.dir=s", "--listen", "localhost:0", "--sites", "a,b"]
    words += ["resources.node_limit=0.1", *secured("server")]
    assert run_verb(monkeypatch, *words) == 1
    assert "a, b did not join within 0.1 s" in capsys.readouterr().err
    assert run_verb(monkeypatch, "resume", "s") == 2
    assert "was made by 'serve'; give its own command again" in capsys.readouterr().err
    assert run_verb(monkeypatch, *words, "run.resume=true") == 1
