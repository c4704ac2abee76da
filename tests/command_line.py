"""The command line as a user gives it, in this process."""

from __future__ import annotations

import sys

import pytest

from rayfed_hn import cli


def run_verb(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run ``rayfed-hn`` with these words; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["rayfed-hn", *map(str, words)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code
