"""Does a killed embed lose anything? Ten times kill -9 of everything, each time resumed.

Embeds ``histology/`` of the real data (RAYFED_HN_DATA) once undisturbed and once killed at ten
random moments: driver, cluster, workers and readers at once. The two stores must be equal.

    python benchmarks/kill_embed.py [--kills 10] [--seed 0] [--work FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from rayfed_hn.bags import store

MARK = "RAYFED_HN_KILL_TEST"  # inherited by every process that an embed starts
LATEST_SECONDS = 25.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="kill-embed-"))
    moments = random.Random(arguments.seed)
    undisturbed = store.digest(_finish(work / "undisturbed"))
    stores, kills = [work / "killed-1"], 0
    while kills < arguments.kills:
        after = round(moments.uniform(1.0, LATEST_SECONDS), 1)
        running, bags = _kill(stores[-1], after)
        print(json.dumps({"killed_after_s": after, "was_running": running, "bags": bags}))
        kills += running
        if not running:  # it was through with everything: the next kill needs work to disturb
            stores.append(work / f"killed-{len(stores) + 1}")
    equal = [store.digest(_finish(bags)) == undisturbed for bags in stores]
    leftovers = [str(path) for bags in stores for path in bags.rglob("*.partial")]
    print(json.dumps({"kills": kills, "stores": len(stores), "equal": equal, "left": leftovers}))
    if not all(equal) or leftovers:
        raise SystemExit(1)


def _command(bags: Path) -> list[str]:
    data = Path(os.environ.get("RAYFED_HN_DATA", "../shared/data"))
    words = [f"data.manifest={data / 'histology' / 'manifest.csv'}", f"data.bags={bags}"]
    words.append(f"run.dir={bags}-run-{uuid.uuid4().hex[:8]}")
    return [sys.executable, "-m", "rayfed_hn", "embed", "conf/histology.yaml", *words]


def _finish(bags: Path) -> Path:
    subprocess.run(_command(bags), check=True, stdout=subprocess.DEVNULL)
    return bags


def _kill(bags: Path, after: float) -> tuple[bool, int]:
    """Start an embed and kill all of it; returns whether it still ran and the bags there are."""
    token = uuid.uuid4().hex
    process = subprocess.Popen(
        _command(bags), env=os.environ | {MARK: token}, stdout=subprocess.DEVNULL
    )
    time.sleep(after)
    running = process.poll() is None
    while victims := _marked(token):
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        process.poll()
        time.sleep(0.2)
    process.wait()
    return running, len(list(bags.glob("site=*/*.arrow")))


def _marked(token: str) -> list[int]:
    """Processes that live and carry the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={token}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


if __name__ == "__main__":
    main()
