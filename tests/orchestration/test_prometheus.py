"""Figures for Prometheus: what the exporter of the node says is what the run did."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from rayfed_hn.orchestration.metrics import EMBED, TRAIN

pytestmark = pytest.mark.ray
TESTS = Path(__file__).parents[1]


def value(lines: Sequence[str], name: str, **tags: str) -> float | None:
    for line in lines:
        found = re.match(rf"ray_rayfed_hn_{name}(?:_total)?{{(.*)}} (.*)", line)
        if found and all(f'{key}="{tag}"' in found[1] for key, tag in tags.items()):
            return float(found[2])
    return None


def test_figures_are_those_of_the_run(bag_root: Path, tmp_path: Path) -> None:
    command = [sys.executable, TESTS / "exported_figures.py", bag_root, tmp_path / "watched-run"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "RAY_ADDRESS": "local"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    lines, here = told["lines"], {"run": "watched-run", "method": "hypernetwork"}
    assert value(lines, "version", **here) == 3
    assert value(lines, "versions_planned", **here) == 3
    assert value(lines, "sites_there", **here) == told["sites"]
    assert value(lines, "validation_metric", **here) == pytest.approx(told["metric"])
    assert value(lines, "site_restarts", **here) == 0
    assert value(lines, "slides", run="watched-bags", status="embedded") == 2
    assert value(lines, "slides", run="watched-bags", status="set_aside") == 1
    assert value(lines, "tiles", run="watched-bags") == 42
    assert "north" not in "".join(lines)


def test_every_figure_is_in_the_documentation() -> None:
    text = (TESTS.parent / "docs" / "operations.md").read_text()
    for name in (*TRAIN, *EMBED):
        assert f"`ray_rayfed_hn_{name}" in text, name
