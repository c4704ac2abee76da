"""The checks of Ray's doors that need no cluster."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rayfed_hn.errors import ConfigError

doors = pytest.importorskip("rayfed_hn.orchestration.doors")
pytestmark = pytest.mark.ray  # starts none, but imports it: for the half of the suite that may


def test_only_we_can_enter_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with doors.private_folder() as folder:
        assert folder.parent.stat().st_mode & 0o777 == 0o700
        assert len(str(folder)) + doors.RAY_NEEDS - 2 <= doors.MAX_SOCKET_PATH
    assert not folder.parent.exists()
    with pytest.raises(ValueError, match="x"), doors.private_folder() as folder:
        raise ValueError("x")
    assert folder.parent.exists()  # its logs may say why
    folder.parent.rmdir()


def test_sockets_find_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doors.tempfile, "gettempdir", lambda: f"/{'long' * 20}")
    with doors.private_folder() as folder:
        longest = f"{folder}/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.12345"
        assert len(os.fsencode(longest)) <= doors.MAX_SOCKET_PATH
        assert "long" not in str(folder)


def test_the_users_token_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/own/token")
    doors.make_token()
    assert not os.environ["RAY_AUTH_TOKEN"]
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    doors.make_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def test_a_start_without_token_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(ConfigError, match="set RAY_AUTH_MODE=token"):
        doors.check_own()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    doors.check_own()
    assert "everybody who can reach this machine's ports" in capsys.readouterr().err


def test_tls_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    for name in doors.TLS_FILES:
        monkeypatch.delenv(name, raising=False)
    for name in doors.TLS_FILES:
        with pytest.raises(ConfigError, match=f"{name}: missing"):
            doors.check_tls()
        monkeypatch.setenv(name, str(tmp_path / name))
        with pytest.raises(ConfigError, match=f"{name}: .* is not a file"):
            doors.check_tls()
        (tmp_path / name).touch(mode=0o600)
    doors.check_tls()


@pytest.mark.parametrize(
    ("answer", "address", "accepted", "refused", "warned"),
    [
        ("UNAUTHENTICATED", "10.0.0.5:6379", False, False, False),
        ("OK", "10.0.0.5:6379", False, True, False),
        ("OK", "10.0.0.5:6379", True, False, True),
        ("OK", "127.0.0.1:6379", False, False, True),
        ("OK", "[::1]:6379", False, False, True),
        ("OK", "head.example:6379", False, True, False),
        ("UNAVAILABLE", "10.0.0.5:6379", False, True, False),
        ("UNIMPLEMENTED", "10.0.0.5:6379", True, False, True),
        ("no answer", "127.0.0.1:6379", False, False, True),
    ],
)
def test_a_cluster_that_answers_strangers(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    address: str,
    accepted: bool,
    refused: bool,
    warned: bool,
) -> None:
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    monkeypatch.setattr(doors, "_as_stranger", lambda _: answer)
    if refused:
        with pytest.raises(ConfigError, match=r"resources\.insecure_cluster=true"):
            doors.check_joined(address, accepted=accepted)
    else:
        doors.check_joined(address, accepted=accepted)
    assert bool(capsys.readouterr().err) == warned


def test_versions_and_tokens_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(ConfigError, match="another version of Ray or Python"),
        doors.explained("10.0.0.5:6379"),
    ):
        raise RuntimeError("Version mismatch: The cluster was started with ...")
    for answer, says in (
        ("UNAVAILABLE", "no cluster answers there"),
        ("UNAUTHENTICATED", "refuses our token, or we have none; set RAY_AUTH_TOKEN_PATH"),
    ):
        monkeypatch.setattr(doors, "_as_stranger", lambda _, answer=answer: answer)
        with pytest.raises(ConfigError, match=says), doors.explained("x:1"):
            raise ConnectionError("nobody")


@pytest.mark.parametrize("content", [None, "", b"\xff"])
def test_the_token_of_a_cluster_that_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content or b"")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with pytest.raises(ConfigError, match=r"holds no token .* 'unset RAY_AUTH_TOKEN_PATH"):
        doors.check_token()
    token.write_text("secret")
    doors.check_token()
    token.unlink()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    doors.check_token()


def test_a_greeting_of_rays_core_is_kept_back_and_nothing_else(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It comes from C++, which knows nothing of Python's stderr."""
    resources = pytest.importorskip("rayfed_hn.orchestration.resources")

    def start() -> None:
        with resources._without_greeting():
            os.write(2, b"[I 1] Set ray log level from environment variable X to 3\nno memory\n")
            raise ValueError("no start")

    with pytest.raises(ValueError, match="no start"):
        start()
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "no memory\nlater\n"
