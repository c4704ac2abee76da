from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import s3_server


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture(params=["s3", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address where nothing is, and a cache of this test's own."""
    monkeypatch.setenv("RAYFED_HN_CACHE", str(tmp_path / "cache"))
    if request.param == "file":
        return f"file://{tmp_path}/there"
    return f"{request.getfixturevalue('bucket')}/{tmp_path.name}/there"
