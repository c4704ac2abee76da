"""A folder in object storage is the folder on the disk, at every moment one that can go on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rayfed_hn.errors import StorageError
from rayfed_hn.storage.mirror import POINTER, Mirror
from rayfed_hn.storage.remote import Remote, remote_of


def fill(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def there(remote: Remote) -> dict[str, bytes | None]:
    return {name: remote.read(name) for name in remote.files()}


def test_what_is_sent_comes_back_elsewhere(place: str, tmp_path: Path) -> None:
    remote, local, other = remote_of(place), tmp_path / "one", tmp_path / "other"
    fill(local, config="a", sites__north__network="bb", checkpoints__LATEST="7", empty="")
    mirror = Mirror(local, remote)
    assert mirror.push() == 4
    assert mirror.push() == 0
    fill(local, config="new")
    (local / "empty").unlink()
    assert mirror.push() == 1
    back = Mirror(other, remote)
    assert back.pull() == 3
    assert back.pull() == 0
    files = [path.relative_to(other) for path in other.rglob("[!.]*") if path.is_file()]
    assert {str(path): (other / path).read_text() for path in files} == {
        "config": "new",
        "sites/north/network": "bb",
        "checkpoints/LATEST": "7",
    }
    assert back.push() == 0  # what came is not sent back
    fill(other, config="newer")
    assert back.push() == 1
    assert mirror.pull() == 1
    assert (local / "config").read_text() == "newer"
    fill(other, more="from another process")
    assert back.push() == 1
    assert Mirror(local, remote).pull() == 1
    assert mirror.push() == 0  # what another brought here is not sent back either


def test_a_folder_that_was_copied_is_sent_whole_to_another_place(
    place: str, tmp_path: Path
) -> None:
    fill(tmp_path / "one", config="a")
    Mirror(tmp_path / "one", remote_of(f"{place}/first")).push()
    shutil.copytree(tmp_path / "one", tmp_path / "copied")
    assert Mirror(tmp_path / "copied", remote_of(f"{place}/second")).push() == 1


def test_only_what_is_wanted_comes_and_only_what_is_mine_goes(place: str, tmp_path: Path) -> None:
    remote, local = remote_of(place), tmp_path / "one"
    fill(local, sites__north__a="1", sites__south__b="2", lock="mine", x__lock="mine")
    fill(local, **{".sites.123.partial": "cut"})
    assert Mirror(local, remote, lambda name: name.startswith("sites/north/")).push() == 1
    assert set(remote.files()) == {"sites/north/a"}
    Mirror(local, remote).push()
    assert set(remote.files()) == {"sites/north/a", "sites/south/b"}
    mirror = Mirror(tmp_path / "other", remote, lambda name: name.startswith("sites/north/"))
    assert mirror.pull(lambda name: name.startswith("sites/north/")) == 1
    (tmp_path / "other" / "sites" / "north" / "a").unlink()
    mirror.push()
    assert set(remote.files()) == {"sites/south/b"}  # and nobody else's file is taken away


def test_the_pointer_is_sent_last_and_as_it_was_at_first(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that is made while files are sent is not pointed at before it is there."""
    remote, local = remote_of(place), tmp_path / "run"
    fill(local, checkpoints__LATEST="1", checkpoints__1__state="one", metrics="1")
    sent: list[str] = []
    upload = Remote.upload

    def slow(self: Remote, source: Path, name: str) -> None:
        sent.append(name)
        fill(local, checkpoints__LATEST="2", checkpoints__2__state="two")
        upload(self, source, name)

    monkeypatch.setattr(Remote, "upload", slow)
    mirror = Mirror(local, remote)
    mirror.push()
    assert sent[-1] == POINTER
    assert there(remote)[POINTER] == b"1"
    assert there(remote)["checkpoints/1/state"] == b"one"
    monkeypatch.setattr(Remote, "upload", upload)
    mirror.push()
    assert there(remote)[POINTER] == b"2"
    assert there(remote)["checkpoints/2/state"] == b"two"


def test_the_pointer_is_read_before_anything_is_listed(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it names is in the list then, whatever is committed meanwhile."""
    remote, local = remote_of(place), tmp_path / "run"
    fill(local, checkpoints__LATEST="1", checkpoints__1__state="one")
    listing = Mirror._found

    def slow(self: Mirror) -> dict[str, tuple[int, int]]:
        found = listing(self)
        fill(local, checkpoints__LATEST="2", checkpoints__2__state="two")
        return found

    monkeypatch.setattr(Mirror, "_found", slow)
    Mirror(local, remote).push()
    assert there(remote) == {POINTER: b"1", "checkpoints/1/state": b"one"}


def test_a_commit_that_goes_while_it_is_sent_is_no_error(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, local = remote_of(place), tmp_path / "run"
    fill(local, checkpoints__1__state="one", checkpoints__2__state="two")
    upload = Remote.upload

    def pruned(self: Remote, source: Path, name: str) -> None:
        if name == "checkpoints/1/state":
            source.unlink()
        upload(self, source, name)

    monkeypatch.setattr(Remote, "upload", pruned)
    assert Mirror(local, remote).push() == 1
    assert set(remote.files()) == {"checkpoints/2/state"}


def test_what_changed_on_one_side_is_taken_from_it(place: str, tmp_path: Path) -> None:
    """Even if the times of two machines differ."""
    remote, one, other = remote_of(place), tmp_path / "one", tmp_path / "other"
    fill(one, a="here", b="here", c="here")
    Mirror(one, remote).push()
    Mirror(other, remote).pull()
    fill(other, b="there", c="there")
    Mirror(other, remote).push()
    fill(one, a="HERE", c="HERE")
    os.utime(one / "a", (0, 0))
    mirror = Mirror(one, remote)
    assert mirror.pull() == 2
    assert {p.name: p.read_text() for p in one.glob("[abc]")} == {
        "a": "HERE",
        "b": "there",
        "c": "there",
    }
    assert mirror.push() == 1
    assert Mirror(one, remote).pull() == 0  # a new process moves nothing that it need not


def test_a_file_outside_of_its_folder_is_not_written(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = remote_of(place)
    fill(tmp_path / "made", a="x")
    Mirror(tmp_path / "made", remote).push()
    found = remote.files()
    monkeypatch.setattr(Remote, "files", lambda self: {"../../a": found["a"]})
    with pytest.raises(StorageError, match="outside of itself"):
        Mirror(tmp_path / "deep" / "er" / "here", remote).pull()
    assert not os.path.exists(tmp_path / "deep" / "a")
