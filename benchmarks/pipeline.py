"""The whole pipeline on Ray against the same work in one plain process, and what it takes.

The work: read, find tissue, cut, measure artefacts, encode with ``texture`` and store. The plain
process runs on one core; Ray has every core that this machine lends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from rayfed_hn.bags import store
from rayfed_hn.config import Config, DataConfig, EmbedConfig
from rayfed_hn.slides.embedding import embed_slide, recipe
from rayfed_hn.slides.encoders import make_encoder
from rayfed_hn.slides.isolation import KEEP_MEMORY
from rayfed_hn.slides.manifest import read_manifest

EMBED = EmbedConfig(mpp=0.5, tile_px=256)
SAMPLE_SECONDS = 0.5


def measure_pipeline(slide: Path, work: Path, num_slides: int) -> Iterator[dict[str, Any]]:
    """Yield tiles per second of both ways, their ratio, and a worker's peak memory.

    Args:
        slide: The large slide; its copies are links to it.
        work: A folder for both stores.
        num_slides: Slides to embed.
    """
    manifest = _manifest(slide, work, num_slides)
    plain = _timed("plain", manifest, work / "plain")
    cores = sorted(os.sched_getaffinity(0))
    with ThreadPoolExecutor(len(cores)) as pool:
        folders = [work / f"plain-{core}" for core in cores]
        sharing = list(pool.map(lambda f, c: _timed("plain", manifest, f, c), folders, cores))
    on_ray = _timed("ray", manifest, work / "ray")
    if len({way.pop("digest") for way in (plain, on_ray, *sharing)}) > 1:
        raise RuntimeError("the ways made different bags")
    yield {"what": "pipeline", "way": "one plain process, one core", **plain}
    together = sum(way["tiles_per_s"] for way in sharing)
    way = f"{len(cores)} such processes at once, each with all slides: what the cores can do"
    yield {"what": "pipeline", "way": way, "tiles_per_s": round(together, 1)}
    yield {"what": "pipeline", "way": f"Ray, {os.cpu_count()} cores", **on_ray}
    ratio = on_ray["tiles_per_s"] / plain["tiles_per_s"]
    yield {"what": "pipeline on Ray, ratio to one plain process", "ratio": round(ratio, 2)}
    limit = together / plain["tiles_per_s"]
    yield {"what": "processes at once, ratio to one alone", "ratio": round(limit, 2)}


def _manifest(slide: Path, work: Path, num_slides: int) -> Path:
    folder = work / "slides"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["slide_id,path,case_id,site,label"]
    for i in range(num_slides):
        copy = folder / f"s{i}{slide.suffix}"
        if not copy.exists():
            os.link(slide, copy)
        lines.append(f"s{i},{copy.name},c{i},north,x")
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def _timed(way: str, manifest: Path, root: Path, core: int = 0) -> dict[str, Any]:
    """Run one way in a fresh process and return what it says."""
    shutil.rmtree(root, ignore_errors=True)
    command = [sys.executable, __file__, way, str(manifest), str(root)]
    if way == "plain":
        command = ["taskset", "--cpu-list", str(core), *command]
    environment = os.environ | KEEP_MEMORY  # for all ways alike
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(output.stdout.strip().splitlines()[-1])


def run_plain(manifest: Path, root: Path) -> dict[str, Any]:
    """Embed in this very process."""
    encoder = make_encoder(EMBED)
    store.create(root, recipe(EMBED, encoder))
    started, cpu, tiles = time.perf_counter(), time.process_time(), 0
    for record in read_manifest(manifest):
        bag = embed_slide(record, encoder, EMBED)
        store.write(root, bag)
        tiles += len(bag)
    spent = {"cpu_ms_per_tile": round(1000 * (time.process_time() - cpu) / tiles, 2)}
    return _record(tiles, time.perf_counter() - started, root) | spent


def run_ray(manifest: Path, root: Path) -> dict[str, Any]:
    """Embed with the workers of a local cluster; their start counts, Ray's own does not."""
    from rayfed_hn.orchestration.embed import embed
    from rayfed_hn.orchestration.resources import connect

    config = Config(data=DataConfig(manifest=str(manifest), bags=str(root)), embed=EMBED)
    seen: dict[int, Usage] = {}
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(seen, over), daemon=True)
    with connect(config):
        watcher.start()
        started = time.perf_counter()
        report = embed(config)
        seconds = time.perf_counter() - started
        over.set()
        watcher.join()
    usage: dict[str, float] = {}
    for kind in ("encoder", "reader"):
        own = [process for process in seen.values() if process.kind == kind]
        usage[f"{kind}_peak_mib"] = round(max((p.peak_mib for p in own), default=0))
        cpu = sum(process.cpu_seconds for process in own)
        usage[f"{kind}_cpu_ms_per_tile"] = round(1000 * cpu / report.num_tiles, 2)
    return _record(report.num_tiles, seconds, root) | usage


def _record(tiles: int, seconds: float, root: Path) -> dict[str, Any]:
    return {
        "tiles": tiles,
        "seconds": round(seconds, 1),
        "tiles_per_s": round(tiles / seconds, 1),
        "digest": store.digest(root),
    }


class Usage(NamedTuple):
    """What a worker, or a process that reads for it, has taken so far."""

    kind: str
    peak_mib: float
    cpu_seconds: float


def _watch(seen: dict[int, Usage], over: threading.Event) -> None:
    """Keep what every worker and every reader process takes."""
    while not over.wait(SAMPLE_SECONDS):
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):  # it has ended
                words = (folder / "cmdline").read_bytes()
                kind = "encoder" if b"SlideWorker" in words else "reader"
                if kind == "encoder" or b"reader_child" in words:
                    seen[int(folder.name)] = _usage(folder, kind)


def _usage(process: Path, kind: str) -> Usage:
    lines = (process / "status").read_text().splitlines()
    peak_kib = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    # After the name, which may hold spaces; the 14th and 15th fields of all (proc(5)).
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Usage(kind, peak_kib / 1024, ticks / os.sysconf("SC_CLK_TCK"))


if __name__ == "__main__":
    way, manifest, root = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    print(json.dumps((run_plain if way == "plain" else run_ray)(manifest, root)))
