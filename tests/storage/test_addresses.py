"""Addresses on the command line: which can be used, where, and what stands in their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayfed_hn.errors import ConfigError, StorageError
from rayfed_hn.storage.keeping import bring, brought, storage
from rayfed_hn.storage.mirror import Mirror
from rayfed_hn.storage.remote import Remote, origin_of, remote_of


def test_words_of_a_command(place: str, tmp_path: Path) -> None:
    remote = remote_of(place)
    Mirror(tmp_path / "made", remote).push()
    plain = ["train", "conf.yaml", "data.bags=bags", "model.name=mean", "--site", "a=b"]
    with storage():
        assert brought(plain) == plain
        words = brought(["onboard", f"{place}/bags", f"run.dir={place}"])
        assert brought(["resume", place]) == ["resume", place]  # which it does itself
        more = brought(["predict", str(tmp_path), "--bags", place, f"--against={place}"])
    assert words == ["onboard", str((remote / "bags").copy), f"run.dir={place}"]
    assert more[3:] == [str(remote.copy), f"--against={remote.copy}"]
    assert origin_of(remote.copy / "sites") == Remote(f"{place}/sites")
    assert origin_of(tmp_path) is None
    with pytest.raises(StorageError, match="give a path"):
        bring(place)


@pytest.mark.parametrize(
    "words", [("--to", "s3://b/x"), ("--to=s3://b/x",), ("data.manifest=s3://b/x",)]
)
def test_what_is_read_or_written_on_disks_alone(words: tuple[str, ...]) -> None:
    key = words[0].partition("=")[0]
    with pytest.raises(ConfigError, match=f"^{key}: s3://b/x is in object storage, where only run"):
        brought(["predict", *words])


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://example.org/bags", "http://: not a kind of storage that is known here"),
        ("s3://key:secret@bucket/bags", "AWS_ACCESS_KEY_ID"),
        ("s3://bucket/bags?endpoint_override=x", "AWS_ENDPOINT_URL"),
        ("s3://bucket/a/../../b", "give scheme://place/folder alone"),
    ],
)
def test_addresses_that_cannot_be_used(address: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as told:
        remote_of(address)
    assert "secret" not in str(told.value)
