"""A soak: processes of all kinds are killed all the time, and every version is as it should be."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from drivers import driver
from recorded_runs import go_on, lines, newest, plan_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]
NUM_VERSIONS = 200
WORDS = (
    *(f"rounds.num_versions={NUM_VERSIONS}", "training.steps=2", "training.learning_rate=0.01"),
    *("model.hidden_dim=5", "model.attention_dim=4", "hypernetwork.embedding_dim=3"),
    *("simulation.enabled=true", "simulation.slowest=3", "resources.sites_per_actor=2"),
    *("privacy.noise_scale=0.05", "privacy.noise_source=seeded"),
    # Kills are blind: the same site may well die several times in a row.
    *("resources.site_restarts=20", "resources.centre_restarts=20"),
)
KINDS = {"synchronous": (), "asynchronous": ("rounds.buffer_size=2",)}
# A version of three sites passes 12 points of sites, about 10 of the centre and one of the driver.
CHANCES = {
    "synchronous": {"site": 0.013, "centre": 0.008, "driver": 0.03},
    "asynchronous": {"site": 0.018, "centre": 0.008, "driver": 0.03},
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_version_differs(bag_root: Path, tmp_path: Path, kind: str) -> None:
    words = (*WORDS, *KINDS[kind])
    go_on(plan_of(bag_root, *words), tmp_path / "whole")
    folder, counts, begun = tmp_path / "run", tmp_path / "chaos", time.monotonic()
    counts.mkdir()
    chaos = {"folder": str(counts), "seed": 1, "chances": CHANCES[kind]}
    starts, code, output = 0, -9, ""
    while code == -9:
        starts += 1
        assert starts < 60, output
        going_on = ["run.resume=true"] if (folder / "config.yaml").exists() else []
        process = driver(bag_root, folder, *words, *going_on, chaos=chaos)
        output, _ = process.communicate(timeout=1000)
        code = process.returncode
    kills = Counter(line.split()[0] for line in (counts / "kills").read_text().splitlines())
    print(
        f"\nchaos, {kind}: {NUM_VERSIONS} versions, {kills.total()} kills {dict(kills)}, "
        f"{starts} drivers, {time.monotonic() - begun:.0f} s"
    )
    assert code == 0, output
    assert min(kills[who] for who in ("site", "centre", "driver")) > 0
    assert kills.total() >= NUM_VERSIONS / 5
    found, expected = newest(folder), newest(tmp_path / "whole")
    assert found["version"] == expected["version"] == NUM_VERSIONS
    assert found["chain"] == expected["chain"]  # of the digests of all versions
    assert found["digest"] == expected["digest"]
    assert lines(folder, "metrics.jsonl") == lines(tmp_path / "whole", "metrics.jsonl")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["digest"]) == ("complete", expected["digest"])
