"""A training run in a process of its own, and what the exporter of its node says of it.

In the process of the tests, in which clusters come and go, the exporter has once heard nothing.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from pathlib import Path

import ray

from rayfed_hn.federation.centre import Progress
from rayfed_hn.loading import load
from rayfed_hn.orchestration.metrics import EmbedMetrics
from rayfed_hn.orchestration.resources import connect
from rayfed_hn.orchestration.train import train
from rayfed_hn.slides.outcome import SlideOutcome

SECONDS = 90.0  # Ray's exporter is told every ten
WORDS = ["rounds.num_versions=3", "training.steps=2", "resources.sites_per_actor=9"]


def exported() -> str:
    (node,) = [node for node in ray.nodes() if node["Alive"]]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.read().decode()


def main(bags: Path, folder: Path) -> None:
    seen: list[Progress] = []
    config, text = load(None, [*WORDS, "resources.cpus=2"]), ""
    with connect(config):
        summary = train(config, bags, folder, seen.append)
        slides = EmbedMetrics("watched-bags")
        slides.tell(SlideOutcome("a", "north", "embedded", 40))
        slides.tell(SlideOutcome("b", "north", "embedded", 2))
        slides.tell(SlideOutcome("c", "north", "set_aside"))
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and "rayfed_hn_tiles" not in text:
            time.sleep(1)
            text = exported()
    told = [line for line in text.splitlines() if "rayfed_hn" in line]
    about = {"sites": len(summary["sites"]), "metric": seen[-1].validation_metric}
    print(json.dumps({"lines": told, **about}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
