"""Files in object storage are whole or not there, whatever happens while they are sent."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO

import pytest

from rayfed_hn.errors import StorageError
from rayfed_hn.storage import remote as remote_module
from rayfed_hn.storage.remote import remote_of

SIZE = 12_000_000  # more than one part of an upload


def test_an_upload_that_is_interrupted_shows_no_half_file(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensors").write_bytes(b"a" * SIZE)

    class Cut:
        """A file whose second piece is read when Ctrl-C comes."""

        def __init__(self, file: BinaryIO) -> None:
            self._file, self._reads = file, 0
            self.write = file.write

        def __enter__(self) -> Cut:
            return self

        def __exit__(self, *raised: object) -> None:
            self._file.close()

        def read(self, size: int) -> bytes:
            self._reads += 1
            if self._reads == 2:
                raise KeyboardInterrupt
            return self._file.read(size)

    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda *given: Cut(opened(*given)))
    remote = remote_of(f"{bucket}/interrupted")
    with contextlib.suppress(KeyboardInterrupt):  # or it is one call, which ends first
        remote.upload(tmp_path / "tensors", "tensors")
    assert [size for size, _ in remote.files().values()] in ([], [SIZE])


def test_nobody_sees_a_file_that_is_still_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, seen = remote_of(f"file://{tmp_path}/there"), []
    remote.write("f", b"old and whole")

    def slow(there: BinaryIO, here: BinaryIO, length: int) -> None:
        here.write(there.read(4))
        here.flush()
        seen.append(remote.read("f"))
        here.write(there.read())

    monkeypatch.setattr(remote_module.shutil, "copyfileobj", slow)
    remote.write("f", b"half of it")
    assert seen == [b"old and whole"]
    assert remote.read("f") == b"half of it"
    assert set(remote.files()) == {"f"}


def test_an_upload_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = remote_of(f"file://{tmp_path}/there")
    remote.write("f", b"old")

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(remote_module.shutil, "copyfileobj", full)
    with pytest.raises(StorageError, match=r"there/f: .*No space left"):
        remote.write("f", b"new")
    assert remote.read("f") == b"old"
    assert set(remote.files()) == {"f"}


def test_a_file_that_has_gone_is_not_made_empty_there(place: str, tmp_path: Path) -> None:
    remote = remote_of(place)
    with pytest.raises(StorageError) as told:
        remote.upload(tmp_path / "gone", "f")
    assert isinstance(told.value.__cause__, FileNotFoundError)
    assert not remote.files()
