"""What this machine can do at best, and what its processes take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import psutil
import torch

MIB = 2**20


def copy_bandwidth(device: str = "cpu", values: int = 50_000_000) -> float:
    """Bytes read and written a second when an array much larger than caches is copied.

    By one thread, as the server computes; the median of several times.
    """
    source, threads = torch.ones(values, device=device), torch.get_num_threads()
    target = torch.empty_like(source)
    torch.set_num_threads(1)
    try:
        return 2 * source.nbytes / seconds_of(lambda: target.copy_(source), device)
    finally:
        torch.set_num_threads(threads)


def seconds_of(work: Callable[[], object], device: str = "cpu", times: int = 7) -> float:
    """Median seconds of some work, after a first time that does not count."""
    found = []
    for _ in range(times + 1):
        begun = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begun)
    return median(found[1:])


@dataclass(frozen=True)
class Memory:
    """Memory of the processes of one kind.

    Attributes:
        processes: How many there are.
        pss_mib: Theirs, with what several processes share divided among them.
        rss_mib: All that is resident in each, so that shared pages count several times.
    """

    processes: int
    pss_mib: float
    rss_mib: float


def memory_by_kind(kind_of: Callable[[str], str]) -> dict[str, Memory]:
    """Memory of this process and of all that it started, directly or not.

    Args:
        kind_of: From a command line to the kind of process.
    """
    this = psutil.Process()
    found: dict[str, list[tuple[float, float]]] = {}
    for process in [this, *this.children(recursive=True)]:
        try:
            kind = "driver" if process == this else kind_of(" ".join(process.cmdline()))
            taken = process.memory_full_info()
        except psutil.Error:  # it has just ended
            continue
        found.setdefault(kind, []).append((taken.pss / MIB, taken.rss / MIB))
    return {
        kind: Memory(len(each), *(round(float(x), 1) for x in np.sum(each, axis=0)))
        for kind, each in sorted(found.items())
    }
