"""Lines that grow: a torn end is dropped, damage is named, and nothing else is lost."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.errors import DataError
from rayfed_hn.federation import json_lines
from rayfed_hn.federation.json_lines import JsonLines

RECORDS = st.lists(st.fixed_dictionaries({"made": st.integers(0, 9), "text": st.text()}))


@given(before=RECORDS, after=RECORDS, torn=st.binary(max_size=40), block=st.integers(1, 60))
def test_what_is_torn_is_dropped_and_the_rest_is_kept(
    before: list[dict], after: list[dict], torn: bytes, block: int
) -> None:
    torn = torn.replace(b"\n", b"")
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "_BLOCK", block)
        path = Path(name) / "lines.jsonl"
        lines = JsonLines(path)
        lines.append(before)
        with path.open("ab") as file:
            file.write(torn)
        assert lines.read() == before
        lines.append(after)
        assert lines.read() == [*before, *after]


def test_a_line_that_was_changed_is_named(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.append([{"made": 1}, {"made": 2}])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"?" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"metrics\.jsonl is damaged at line 1 .*restore the file"):
        lines.read()
