"""The page for those who operate a run says by what its figures are labelled, and they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from unittest.mock import MagicMock

import pytest

pytestmark = pytest.mark.ray


def test_the_page_says_how_figures_are_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    from rayfed_hn.orchestration import metrics

    found: dict[str, set[str]] = {}

    def series(_: object, name: str, __: str, tags: Mapping[str, str], *more: str) -> MagicMock:
        found[name] = {*tags, *more}
        return MagicMock()

    monkeypatch.setattr(metrics, "_series", series)
    metrics.TrainMetrics("run", "fedavg", 3)
    metrics.EmbedMetrics("bags")
    assert found == {name: {"run", "method"} for name in metrics.TRAIN} | {
        "slides": {"run", "status"},
        "tiles": {"run"},
    }
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    said = " ".join(page.split())
    assert "Those of training are labelled with the run directory's name and the method" in said
    assert "those of `embed` with the bag store's name only" in said
