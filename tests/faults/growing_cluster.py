"""Run in a process namespace of its own: a cluster that grows, and what is done on it.

Ray's autoscaler with its provider of made-up nodes, which are processes of this machine. 'ray stop'
ends every Ray process that it can see, which is why it must see no others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import ray
import ray.cloudpickle

from rayfed_hn.config import EmbedConfig
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load
from rayfed_hn.orchestration.embed import embed
from rayfed_hn.orchestration.train import train

SECONDS = 3.0  # that a slide takes, so that a node has come before all are done
HEAD = {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0}
WORKER = {"resources": {"CPU": 3}, "node_config": {}, "min_workers": 0, "max_workers": 1}
LISTS = (
    *("setup_commands", "initialization_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files"),
    *("rsync_exclude", "rsync_filter"),
)
CLUSTER = {
    "cluster_name": "growing",
    "max_workers": 1,
    "idle_timeout_minutes": 5,
    "upscaling_speed": 10,
    "provider": {"type": "fake_multinode", "disable_node_updaters": True},
    "available_node_types": {"ray.head.default": HEAD, "worker": WORKER},
    "head_node_type": "ray.head.default",
    "auth": {},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    **{name: [] for name in LISTS},
}


class Slow:
    """An encoder that takes its time, and notes which process it is in."""

    name, feature_dim, digest = "slow", 3, "0" * 64

    def __init__(self, notes: Path) -> None:
        self._notes = notes

    def encode(self, tiles_NHW3: np.ndarray) -> np.ndarray:
        (self._notes / str(os.getpid())).touch()
        time.sleep(SECONDS)
        return tiles_NHW3.reshape(len(tiles_NHW3), -1, 3).mean(1).astype(np.float32)


def embedding(folder: Path) -> dict[str, object]:
    notes = folder / "processes"
    notes.mkdir()
    words = [f"data.manifest={folder / 'manifest.csv'}", f"data.bags={folder / 'bags'}"]
    words += ["embed.tile_px=128", "embed.slides_in_flight=1", "resources.autoscaling=true"]

    def make(config: EmbedConfig, device: str) -> Slow:
        return Slow(notes)

    report = embed(load(None, words), encoder_factory=make)
    return {"embedded": report.count("embedded"), "processes": len(list(notes.iterdir()))}


def training(folder: Path, bags: Path) -> dict[str, object]:
    words = ["rounds.num_versions=2", "training.steps=2", "resources.autoscaling=true"]
    words += ["simulation.enabled=true"]
    config = load(None, words)
    summary = train(config, bags, folder / "run", lambda news: None)
    whole = run_in_process(make_plan(config, bags))
    return {"digest": summary["digest"], "in_process": whole.digest}


def main(verb: str, folder: Path, bags: Path) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (folder / "cluster.json").write_text(json.dumps(CLUSTER))
    start = ["ray", "start", "--head", f"--autoscaling-config={folder / 'cluster.json'}"]
    fake = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
    subprocess.run([*start, "--num-cpus=1"], env=os.environ | fake, check=True, stdout=sys.stderr)
    ray.init("auto", log_to_driver=False)
    found = embedding(folder) if verb == "embed" else training(folder, bags)
    print(json.dumps(found | {"cpus": ray.cluster_resources()["CPU"]}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
