"""What has happened on one side of a mirror only, or while it was at work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from test_mirror import fill, there

from rayfed_hn.errors import StorageError
from rayfed_hn.storage import index as index_module
from rayfed_hn.storage.mirror import POINTER, Mirror
from rayfed_hn.storage.remote import Remote, remote_of


def here(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("[!.]*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def at(
    patch: pytest.MonkeyPatch, method: str, name: str, happens: Callable[[], object]
) -> Callable[[], None]:
    """Let something happen once, before a file is moved; returns how to take that back."""
    plain, done = getattr(Remote, method), []

    def watched(self: Remote, *given: object) -> None:
        if name in given and not done:
            done.append(name)
            happens()
        plain(self, *given)

    patch.setattr(Remote, method, watched)
    return lambda: patch.setattr(Remote, method, plain)


class Killed(BaseException):
    """Nothing is done after it."""


def killed() -> None:
    raise Killed


def test_a_process_that_dies_while_it_sends_does_not_lose_what_it_wrote(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, local = remote_of(place), tmp_path / "run"
    fill(local, events="1", other="1")
    Mirror(local, remote).push()
    fill(local, events="1 2", z="new")
    monkeypatch.setattr(
        Mirror, "_note", lambda self, sent: None, raising=False
    )  # it comes no further
    back = at(monkeypatch, "upload", "z", killed)
    with pytest.raises(Killed):
        Mirror(local, remote).push()
    back()
    monkeypatch.undo()
    fill(local, events="1 2 3 4")
    assert Mirror(local, remote).pull() == 0
    assert here(local)["events"] == "1 2 3 4"
    assert Mirror(local, remote).push() == 2
    assert there(remote) == {"events": b"1 2 3 4", "other": b"1", "z": b"new"}


def test_another_process_does_not_take_what_is_on_its_way_for_news(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, local = remote_of(place), tmp_path / "run"
    fill(local, events="1", z="old")
    Mirror(local, remote).push()
    fill(local, events="1 2", z="new")

    def meanwhile() -> None:
        fill(local, events="1 2 3")
        assert Mirror(local, remote).pull() == 0

    at(monkeypatch, "upload", "z", meanwhile)
    Mirror(local, remote).push()
    assert here(local)["events"] == "1 2 3"


def test_a_commit_that_is_dropped_while_it_is_sent_is_sent_whole(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is quicker than its commits are sent points at none that is not there."""
    remote, local = remote_of(place), tmp_path / "run"
    upload, made = Remote.upload, [3]

    def commit(number: int) -> None:
        fill(local, **{f"checkpoints__{number}__{part}": f"{number} {part}" for part in "ab"})
        fill(local, checkpoints__LATEST=str(number))
        shutil.rmtree(local / "checkpoints" / str(number - 2), ignore_errors=True)

    def slowly(self: Remote, source: Path, name: str) -> None:
        made[0] += 1
        commit(made[0])
        upload(self, source, name)

    commit(2)
    commit(3)
    monkeypatch.setattr(Remote, "upload", slowly)
    for _ in range(3):
        Mirror(local, remote).push()
        pointed = (remote.read(POINTER) or b"").decode()
        for part in "ab":
            content = remote.read(f"checkpoints/{pointed}/{part}")
            assert content == f"{pointed} {part}".encode()
    assert not list(local.glob(".sending-*"))


def test_what_is_gone_there_is_deleted_here(place: str, tmp_path: Path) -> None:
    remote, one, other = remote_of(place), tmp_path / "one", tmp_path / "other"
    fill(one, recipe="r", site__a="1", site__b="2", site__c="3", other__d="4")
    Mirror(one, remote).push()
    Mirror(other, remote).pull()
    for name in ("site/a", "site/b", "other/d"):
        remote.delete(name)
    fill(other, site__b="changed here", site__new="never sent")
    assert Mirror(other, remote).pull(lambda name: name.startswith("site/")) == 0
    left = {"site/b": "changed here", "site/new": "never sent", "site/c": "3"}
    assert here(other) == {"recipe": "r", "other/d": "4", **left}
    Mirror(other, remote).pull()
    assert here(other) == {"recipe": "r", **left}
    assert not (other / "other").exists()
    assert Mirror(other, remote).push() == 2
    Mirror(one, remote).pull()
    assert here(one) == here(other)


def test_a_remote_folder_that_was_emptied_is_filled_again(place: str, tmp_path: Path) -> None:
    remote, local = remote_of(place), tmp_path / "run"
    fill(local, config="c", sites__a="n")
    Mirror(local, remote).push()
    for name in remote.files():
        remote.delete(name)
    remote.write(".held.json", b"{}")  # whoever takes it up
    mirror = Mirror(local, remote)
    mirror.pull()
    fill(local, new="n")
    assert mirror.push() == 3
    assert set(there(remote)) == {".held.json", "config", "sites/a", "new"}


def test_a_commit_that_is_made_while_another_is_brought(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, one, other = remote_of(place), tmp_path / "one", tmp_path / "other"
    _commit(one, remote, 1)

    def commit() -> None:
        shutil.rmtree(one / "checkpoints" / "1")
        _commit(one, remote, 2)

    monkeypatch.setattr(Remote, "read", _after_reading(commit))
    Mirror(other, remote).pull()
    assert here(other) == {"checkpoints/2/state": "2", POINTER: "2"}
    shutil.rmtree(other)
    shutil.rmtree(one / "checkpoints" / "2")
    _commit(one, remote, 1)
    monkeypatch.undo()
    at(monkeypatch, "download", "checkpoints/1/state", commit)
    Mirror(other, remote).pull()
    assert here(other) == {"checkpoints/2/state": "2", POINTER: "2"}
    (other / POINTER).unlink()
    remote.write(POINTER, b"7")  # of which there is no commit: not for the mirror to judge
    Mirror(other, remote).pull()
    assert here(other)[POINTER] == "7"


def _commit(folder: Path, remote: Remote, number: int) -> None:
    fill(folder, **{f"checkpoints__{number}__state": f"{number}"}, checkpoints__LATEST=f"{number}")
    Mirror(folder, remote).push()


def _after_reading(happens: Callable[[], None]) -> Callable[[Remote, str], bytes | None]:
    plain, done = Remote.read, []

    def read(self: Remote, name: str) -> bytes | None:
        found = plain(self, name)
        if not done:
            done.append(name)
            happens()
        return found

    return read


def test_a_pointer_is_brought_as_it_was_when_its_commit_was_listed(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, one, other = remote_of(place), tmp_path / "one", tmp_path / "other"
    _commit(one, remote, 1)
    at(monkeypatch, "download", "checkpoints/1/state", lambda: _commit(one, remote, 2))
    Mirror(other, remote).pull()
    assert here(other) == {"checkpoints/1/state": "1", POINTER: "1"}
    Mirror(other, remote).pull()
    assert here(other)[POINTER] == "2"


def test_what_a_site_has_spent_and_says_stays_on_its_disk(place: str, tmp_path: Path) -> None:
    remote, local = remote_of(place), tmp_path / "bags"
    private = {"site=north__privacy__ledger.jsonl": "spent", "site=north__site.log": "a slide"}
    fill(local, **private, **{"site=north__a.arrow": "bag", "privacy__x": "of no site"})
    Mirror(local, remote).push()
    assert set(there(remote)) == {"site=north/a.arrow", "privacy/x"}
    remote.write("site=south/privacy/ledger.jsonl", b"of another")
    Mirror(tmp_path / "other", remote).pull()
    assert set(here(tmp_path / "other")) == {"site=north/a.arrow", "privacy/x"}
    Mirror(local, remote).pull()
    assert here(local)["site=north/privacy/ledger.jsonl"] == "spent"


def test_what_another_changed_counts_where_this_process_is_not_asked(
    place: str, tmp_path: Path
) -> None:
    """A site's actor goes on from what was sent, on whichever node."""
    remote, one, other = remote_of(place), tmp_path / "one", tmp_path / "other"
    fill(one, sites__a__memory="1", sites__b__memory="1")
    Mirror(one, remote).push()
    Mirror(other, remote).pull()
    fill(other, sites__a__memory="never sent", sites__a__more="never sent", sites__b__memory="2")
    own = Mirror(other, remote, lambda name: name.startswith("sites/a/"))
    assert own.pull(lambda name: name.startswith("sites/a/"), theirs=True) == 1
    assert here(other) == {"sites/a/memory": "1", "sites/b/memory": "2"}


def test_an_index_is_folded_and_survives_a_line_that_was_cut(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, local = remote_of(place), tmp_path / "run"
    monkeypatch.setattr(index_module, "FOLD_BYTES", 200)
    for number in range(4):
        fill(local, **{f"f{number}": "x"})
        Mirror(local, remote).push()
    (journal,) = local.glob(".mirror.*.jsonl")
    assert (local / index_module.INDEX).exists()
    with journal.open("a") as file:
        file.write('["f0", [[1')
    assert Mirror(local, remote).push() == 0
    assert Mirror(local, remote).pull() == 0


def test_a_folder_that_never_stands_still_is_an_error(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, local = remote_of(place), tmp_path / "run"
    remote.write("a", b"x")

    def gone(self: Remote, name: str, to: Path) -> None:
        raise StorageError("gone") from FileNotFoundError()

    monkeypatch.setattr(Remote, "download", gone)
    with pytest.raises(StorageError, match="come and go faster than they are read"):
        Mirror(local, remote).pull()
