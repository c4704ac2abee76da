"""Figures for Prometheus: what the exporter of the node says is what the run did."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import pytest
import ray

from rayfed_hn.federation.centre import Progress
from rayfed_hn.loading import load
from rayfed_hn.orchestration.metrics import EMBED, TRAIN, EmbedMetrics
from rayfed_hn.orchestration.train import train
from rayfed_hn.slides.outcome import SlideOutcome

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
SECONDS = 60.0  # Ray's exporter is told every ten


def exported() -> str:
    (node,) = [node for node in ray.nodes() if node["Alive"]]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.read().decode()


def value(text: str, name: str, **tags: str) -> float | None:
    for line in text.splitlines():
        found = re.match(rf"ray_rayfed_hn_{name}(?:_total)?{{(.*)}} (.*)", line)
        if found and all(f'{key}="{tag}"' in found[1] for key, tag in tags.items()):
            return float(found[2])
    return None


def test_figures_are_those_of_the_run(bag_root: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    words = ["rounds.num_versions=3", "training.steps=2", "resources.sites_per_actor=9"]
    folder = tmp_path / "watched-run"
    summary = train(load(None, words), bag_root, folder, seen.append)
    slides = EmbedMetrics("watched-bags")
    slides.tell(SlideOutcome("a", "north", "embedded", 40))
    slides.tell(SlideOutcome("b", "north", "embedded", 2))
    slides.tell(SlideOutcome("c", "north", "set_aside"))
    end, text = time.monotonic() + SECONDS, ""
    while time.monotonic() < end and value(text, "tiles") is None:
        time.sleep(1)
        text = exported()
    here = {"run": "watched-run", "method": "hypernetwork"}
    assert value(text, "version", **here) == summary["num_versions"] == 3
    assert value(text, "versions_planned", **here) == 3
    assert value(text, "sites_there", **here) == len(summary["sites"])
    assert value(text, "validation_metric", **here) == pytest.approx(seen[-1].validation_metric)
    assert value(text, "site_restarts", **here) == 0
    assert value(text, "slides", run="watched-bags", status="embedded") == 2
    assert value(text, "slides", run="watched-bags", status="set_aside") == 1
    assert value(text, "tiles", run="watched-bags") == 42
    assert "north" not in "".join(line for line in text.splitlines() if "rayfed_hn" in line)


def test_every_figure_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    for name in (*TRAIN, *EMBED):
        assert f"`ray_rayfed_hn_{name}" in text, name
