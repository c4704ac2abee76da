"""What a trial of ``tune`` costs beside its training: memory of another one at a time, and time.

Trials of a search train over one store of bags, which all of them map into memory; that they do is
looked up in the kernel's list of what every process has mapped and has in memory. The memory of a
trial is the PSS of its process (what several processes share is divided among them), less that of
a process of the same moment that has imported torch and does nothing. Added over all trials at
work this is the store once, plus what every trial has for itself; so a search with one trial at a
time is made too, and what another trial adds is the difference, by trial. The time that a trial
costs is that of the search less that of training (which goes on in several places at a time), by
trial; that every place is without training, by trial, is told too. Starting processes and making
plans counts as cost. The network is small: a trial is to read bags, not to multiply.

The store is made in a temporary folder and deleted again. JSON lines.

    python benchmarks/trials.py [--gib 4] [--trials 20] [--at-a-time 4]
        [--versions 2] [--work FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from hardware import name_of

from rayfed_hn.bags import store
from rayfed_hn.bags.bag import Bag
from rayfed_hn.config import Config
from rayfed_hn.loading import load
from rayfed_hn.orchestration.resources import connect
from rayfed_hn.orchestration.tune import try_all
from rayfed_hn.tuning.learning import Learning
from rayfed_hn.tuning.search import Search
from rayfed_hn.tuning.trials import trial_config

SITES, FEATURES, TILES = 4, 1024, 8192  # 32 MiB a bag
LOOK_SECONDS = 1.0
ALONE = 2  # trials one at a time
WORDS = (
    "model.hidden_dim=8",
    "model.attention_dim=4",
    "training.epochs=1",
    "tune.folds=1",
    "tune.final_seeds=0",
    "tune.space.training.learning_rate=loguniform(0.0001,0.01)",
)
BARE = "import sys, torch; torch.ones(9).sum(); print('there', flush=True); sys.stdin.read()"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gib", type=float, default=4.0, help="size of the store (4)")
    parser.add_argument("--trials", type=int, default=20, help="20")
    parser.add_argument("--at-a-time", type=int, default=4, help="trials at a time, 2 or more (4)")
    parser.add_argument("--versions", type=int, default=2, help="of a trial (2)")
    parser.add_argument("--work", type=Path, help="where to put the temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder, bare() as idle:
        root = make_store(Path(folder) / "bags", arguments.gib)
        print(json.dumps(about(root, arguments)), flush=True)
        versions = f"rounds.num_versions={arguments.versions}"
        searches = [
            ([versions, f"tune.num_trials={trials}"], places)
            for trials, places in ((ALONE, 1), (arguments.trials, arguments.at_a_time))
        ]
        found = [
            measure(root, Path(folder) / f"run-{places}", words, places, idle)
            for words, places in searches
        ]
    print(json.dumps(compared(*found)), flush=True)


def make_store(root: Path, gib: float) -> Path:
    """Bags that differ in every value, half of them positive."""
    store.create(root, {"encoder": "synthetic", "feature_dim": FEATURES})
    rng = np.random.default_rng(0)
    noise_ND = rng.standard_normal((TILES, FEATURES), np.float32)
    coords_N2, tissue_N = np.zeros((TILES, 2), np.int64), np.ones(TILES, np.float32)
    for number in range(max(10 * SITES, round(gib * 2**30 / noise_ND.nbytes))):
        features_ND = noise_ND + np.float32(rng.random())
        if number // SITES % 2:
            features_ND[:64, :64] += 2
        name, site = f"slide-{number}", f"site-{number % SITES}"
        label = "tumour" if number // SITES % 2 else "normal"
        bag = Bag(name, name, site, label, features_ND, coords_N2, tissue_N, 256.0, mpp=0.5)
        store.write(root, bag)
    return root


def about(root: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "processor": name_of("cpu"),
        "cores": psutil.cpu_count(),
        "store_gib": round(size_of(root) / 2**30, 3),
        "bags": len(list(root.rglob("*.arrow"))),
        "trials": arguments.trials,
        "at_a_time": arguments.at_a_time,
        "versions": arguments.versions,
    }


def size_of(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*.arrow"))


@contextmanager
def bare() -> Iterator[int]:
    """The id of a process that has imported torch and waits."""
    command = [sys.executable, "-c", BARE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


@dataclass
class Watch:
    """Looks at the trials of a search while it runs.

    Attributes:
        root: The bag store, by which processes of trials are known: they have mapped its files.
        idle: Id of the bare process.
        looks: What was found every time, a record a process of a trial.
    """

    root: Path
    idle: int
    looks: list[list[dict[str, float]]] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def typical(self, places: int) -> list[dict[str, float]]:
        """The look with the median sum, of those at trials in all places, with their bags touched.

        Processes are looked at one after the other, and the first might not yet share a bag that
        the last one has.
        """
        full = max((one["bags_in_memory"] for look in self.looks for one in look), default=0)
        whole = [
            look
            for look in self.looks
            if len(look) == places and all(one["bags_in_memory"] > 0.99 * full for one in look)
        ]
        by_sum = sorted(whole, key=lambda look: sum(one["extra"] for one in look))
        return by_sum[len(by_sum) // 2] if by_sum else []

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            trials = [
                p.pid for p in psutil.Process().children(recursive=True) if self._has_mapped(p.pid)
            ]
            try:
                taken = [rollup(process) for process in trials]
                bare_taken = rollup(self.idle)
                self.looks.append([
                    {
                        "extra": one["Pss"] - bare_taken["Pss"],
                        "own": one["Pss_Anon"] - bare_taken["Pss_Anon"],
                        **self._bags(process),
                    }
                    for process, one in zip(trials, taken, strict=True)
                ])  # fmt: skip
            except OSError:  # one of them has just ended
                continue

    def _has_mapped(self, process: int) -> bool:
        try:
            return str(self.root) in Path(f"/proc/{process}/maps").read_text()
        except OSError:
            return False

    def _bags(self, process: int) -> dict[str, float]:
        mapped = [one for one in areas(process) if one["path"].startswith(str(self.root))]
        return {
            "bags": len({one["path"] for one in mapped}),
            "bags_in_memory": sum(one["Rss"] for one in mapped),
        }


def areas(process: int) -> Iterator[dict[str, Any]]:
    """What a process has mapped: path, and sizes in bytes."""
    found: dict[str, Any] | None = None
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):  # a new area: addresses, rights, offset, device, inode, path
            if found is not None:
                yield found
            found = {"path": words[5] if len(words) > 5 else ""}
        elif found is not None and words[-1] == "kB":
            found[words[0][:-1]] = int(words[1]) * 1024
    if found is not None:
        yield found


def rollup(process: int) -> dict[str, int]:
    """Memory of a whole process in bytes, by kind."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    return {words[0][:-1]: int(words[1]) * 1024 for words in map(str.split, lines)}


def measure(
    root: Path, folder: Path, words: Sequence[str], places: int, idle: int
) -> dict[str, Any]:
    """Run a search; prints what was found."""
    config = load(None, [*WORDS, *words, f"resources.cpus={places}"])
    search = Search.of(config, root)
    trials = search.num_trials
    planning = seconds_to_plan(search, config, root)
    begun = time.perf_counter()
    with connect(config):
        started = time.perf_counter() - begun
        with Watch(root, idle) as watch:
            begun = time.perf_counter()
            records = try_all(search, root, folder, lambda done, news: None)
            wall = time.perf_counter() - begun
    found = described(records, watch.typical(places), size_of(root), places)
    found |= {"ray_start_s": round(started, 2), "search_s": round(wall, 2)}
    training = sum(r["seconds"] for r in records) - planning * trials
    found |= {"training_a_trial_s": round(training / trials, 2), "plan_s": round(planning, 2)}
    found |= {"overhead_a_trial_s": round((wall - training / places) / trials, 2)}
    found |= {"overhead_of_a_place_s": round((wall * places - training) / trials, 2)}
    print(json.dumps(found), flush=True)
    return found


def seconds_to_plan(search: Search, config: Config, root: Path) -> float:
    begun = time.perf_counter()
    Learning(trial_config(config, search.trials[0].settings), root)
    return time.perf_counter() - begun


def described(
    records: Sequence[Mapping[str, Any]],
    seen: Sequence[Mapping[str, float]],
    size: int,
    places: int,
) -> dict[str, Any]:
    def shares(name: str) -> list[float]:
        return [round(one[name] / size, 4) for one in seen]

    return {
        "trials": len(records),
        "finished": sum(record["status"] == "finished" for record in records),
        "at_a_time": places,
        "load": round(psutil.getloadavg()[0], 1),
        "bags_mapped": [one["bags"] for one in seen],
        "share_of_store_in_memory": shares("bags_in_memory"),
        "pss_less_bare_share": shares("extra"),
        "pss_less_bare_share_of_all": round(sum(one["extra"] for one in seen) / size, 4),
        "anonymous_less_bare_share": shares("own"),
    }


def compared(alone: Mapping[str, Any], together: Mapping[str, Any]) -> dict[str, Any]:
    """What another trial at a time adds; target: below 0.1 of the store, and 3 s."""
    name, others = "pss_less_bare_share_of_all", len(together["pss_less_bare_share"]) - 1
    adds = (together[name] - alone[name]) / others if others > 0 else None
    return {
        "another_trial_adds_share": None if adds is None else round(adds, 4),
        "largest_anonymous_share": max(together["anonymous_less_bare_share"], default=None),
        "overhead_a_trial_s": together["overhead_a_trial_s"],
        "overhead_of_a_place_s": together["overhead_of_a_place_s"],
    }


if __name__ == "__main__":
    main()
